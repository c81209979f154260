"""`folkmoot node runs`, `show`, `approve-run`, `look`, `release` and the like: what people do at a running node, through its local socket."""

import os
import sys
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.cli.output import counted, json_option, show_json, show_rows, text_of
from folkmoot.node.cli.client import StationClient, at_station, person
from folkmoot.node.cli.view import RUN_COLUMNS, everything, readable, run_lines, run_row, status_lines
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.station_service_pb2 import StationRun, StationStatus
from folkmoot.v1.task_pb2 import RunState

Command = TypeVar("Command", bound=Callable[..., Any])

CONFIG = click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
LOOK_AGAIN_SECONDS = 1.0


def about_a_run(command: Command) -> Command:
    """The arguments of a command about one run: the node's node.toml, and the run."""
    return CONFIG(click.argument("run")(command))


def decision(command: Command) -> Command:
    """`about_a_run`, with who decides."""
    named = click.option("--as", "decided_by", help="Who decides; without it the user id of this terminal.")(command)
    return about_a_run(json_option(named))


@click.command()
@CONFIG
@click.option("--waiting", is_flag=True, help="Only runs and results that wait for a person.")
@click.option(
    "--collaboration", default="", help="Only of this one: name, name@fingerprint or the fingerprint's beginning."
)
@click.option("--number", type=click.IntRange(1, 1000), default=50, show_default=True, help="The newest, so many.")
@json_option
def runs(config: Path, collaboration: str, number: int, *, waiting: bool, as_json: bool) -> None:
    """List runs of the node that CONFIG describes, the newest first."""
    states = (RunState.RUN_STATE_AWAITING_APPROVAL, RunState.RUN_STATE_HELD) if waiting else ()
    request = pb.ListStationRunsRequest(collaboration=collaboration, page_size=number, states=states)
    with at_station(config) as station:
        listed = station.call(station.stub.ListStationRuns, request).runs
    if as_json:
        show_json([everything(run) for run in listed])
    else:
        show_rows(map(run_row, listed), RUN_COLUMNS, as_json=False, empty="nothing waits" if waiting else "no runs")


@click.command()
@about_a_run
@json_option
def show(config: Path, run: str, *, as_json: bool) -> None:
    """Show everything there is to know about RUN (its id, or the beginning of it) before deciding."""
    with at_station(config) as station:
        found = station.call(station.stub.GetStationRun, pb.GetStationRunRequest(run_id=run)).run
    if as_json:
        show_json(everything(found))
    else:
        show_lines(run_lines(found))


def show_lines(lines: Iterable[tuple[str, object]]) -> None:
    """Print what is known, one thing per line; what is empty is left out. What has lines of its own can't pass for one of these."""
    for name, value in lines:
        if text := text_of(value):
            click.echo(f"{name:<18} {text}".replace("\n", f"\n{'':<18} "))


@click.command("approve-run")
@decision
def approve_run(config: Path, run: str, decided_by: str | None, *, as_json: bool) -> None:
    """Let RUN start, which waits for it. The decision is signed, and cannot be taken back."""
    _decide(config, run, decided_by, Decision.DECISION_APPROVE, as_json=as_json)


@click.command("decline-run")
@decision
def decline_run(config: Path, run: str, decided_by: str | None, *, as_json: bool) -> None:
    """Refuse RUN, which waits for approval. The decision is signed, and cannot be taken back."""
    _decide(config, run, decided_by, Decision.DECISION_DECLINE, as_json=as_json)


@click.command()
@decision
def release(config: Path, run: str, decided_by: str | None, *, as_json: bool) -> None:
    """Let the held result of RUN leave. The decision is signed, and cannot be taken back."""
    _decide(config, run, decided_by, Decision.DECISION_APPROVE, of_its_result=True, as_json=as_json)


@click.command()
@decision
def withhold(config: Path, run: str, decided_by: str | None, *, as_json: bool) -> None:
    """Drop the held result of RUN: it is refused, and the result is gone. The decision is signed, and cannot be taken back."""
    _decide(config, run, decided_by, Decision.DECISION_DECLINE, of_its_result=True, as_json=as_json)


def _decide(
    config: Path,
    run: str,
    decided_by: str | None,
    decided: Decision.ValueType,
    *,
    of_its_result: bool = False,
    as_json: bool,
) -> None:
    who = decided_by or person()
    with at_station(config) as station:
        if of_its_result:
            request = pb.DecideReleaseRequest(run_id=run, decision=decided, decided_by=who)
            found: StationRun = station.call(station.stub.DecideRelease, request).run
        else:
            asked = pb.DecideRunRequest(run_id=run, decision=decided, decided_by=who)
            found = station.call(station.stub.DecideRun, asked).run
    _tell(found, ("run", "decided"), as_json=as_json)


def _tell(run: StationRun, about: Collection[str], *, as_json: bool) -> None:
    """Say some of what there is to know about a run."""
    if as_json:
        show_json(everything(run))
    else:
        show_lines(line for line in run_lines(run) if line[0] in about)


@click.command()
@about_a_run
@json_option
def hold(config: Path, run: str, *, as_json: bool) -> None:
    """Have the result of RUN wait for a release, whatever the policy says; from now on neither its log nor its progress leaves."""
    with at_station(config) as station:
        found = station.call(station.stub.HoldRun, pb.HoldRunRequest(run_id=run)).run
    _tell(found, ("run", "state", "waits for"), as_json=as_json)


@click.command()
@about_a_run
@json_option
def cancel(config: Path, run: str, *, as_json: bool) -> None:
    """End RUN, if it has not ended: it is cancelled in the station's name."""
    with at_station(config) as station:
        found = station.call(station.stub.CancelStationRun, pb.CancelStationRunRequest(run_id=run)).run
    _tell(found, ("run", "state", "waits for"), as_json=as_json)


@click.command()
@about_a_run
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the result's bytes to this new file."
)
def look(config: Path, run: str, output: Path | None) -> None:
    """Look at the held result of RUN, as those will read it who receive it. Nothing leaves by it."""
    with at_station(config) as station:
        frames = station.stream(station.stub.ReadHeldResult, pb.ReadHeldResultRequest(run_id=run))
        content_type = next(frames).head.content_type
        if output is not None:
            size_bytes = write_private(output, (frame.data for frame in frames))
            click.echo(f"{text_of(content_type)}, {size_bytes:,} bytes, are in {output}", err=True)
            return
        content = b"".join(frame.data for frame in frames)
    text = readable(content_type, content)
    if text is None:
        raise click.UsageError(
            f"it is {text_of(content_type)}, {len(content):,} bytes: name a file to write it to with --output"
        )
    click.echo(text_of(text))


def write_private(path: Path, pieces: Iterable[bytes]) -> int:
    """Write a new file that nobody else may read; return its size in bytes. What is there already may be somebody else's."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise click.UsageError(f"{path} is there already: name another file with --output") from None
    with os.fdopen(descriptor, "wb") as file:
        return sum(map(file.write, pieces))


def availability(command: Command) -> Command:
    """The arguments of commands that open, pause or drain."""
    named = click.option("--collaboration", default="", help="Only in this one; without it in every one.")(command)
    return CONFIG(json_option(named))


@click.command()
@availability
def pause(config: Path, collaboration: str, *, as_json: bool) -> None:
    """Have the node accept runs and start none, until `resume`; what runs goes on."""
    with at_station(config) as station:
        _show_statuses(_be(station, collaboration, Availability.AVAILABILITY_PAUSED), as_json=as_json)


@click.command()
@availability
def resume(config: Path, collaboration: str, *, as_json: bool) -> None:
    """Have the node start runs again."""
    with at_station(config) as station:
        _show_statuses(_be(station, collaboration, Availability.AVAILABILITY_OPEN), as_json=as_json)


@click.command()
@availability
@click.option("--wait", is_flag=True, help="Return when nothing runs any more, and the server has every end.")
def drain(config: Path, collaboration: str, *, wait: bool, as_json: bool) -> None:
    """Get the node ready to go: it starts nothing, and gets nothing new where the organization has another node."""
    with at_station(config) as station:
        statuses = _be(station, collaboration, Availability.AVAILABILITY_DRAINING)
        while wait and (busy := _busy(station, collaboration, statuses)):
            if sys.stderr.isatty():
                click.echo(busy, err=True)
            time.sleep(LOOK_AGAIN_SECONDS)
            statuses = list(station.call(station.stub.GetStationStatus, pb.GetStationStatusRequest()).stations)
    _show_statuses(statuses, as_json=as_json)


def _be(station: StationClient, collaboration: str, value: Availability.ValueType) -> list[StationStatus]:
    request = pb.SetAvailabilityRequest(collaboration=collaboration, availability=value)
    return list(station.call(station.stub.SetAvailability, request).stations)


def _busy(station: StationClient, collaboration: str, statuses: Iterable[StationStatus]) -> str:
    """What a node that is to go still does, in words; nothing when it may go."""
    request = pb.ListStationRunsRequest(
        collaboration=collaboration, page_size=1000, states=(RunState.RUN_STATE_RUNNING,)
    )
    running = len(station.call(station.stub.ListStationRuns, request).runs)
    undelivered = sum(status.undelivered for status in statuses)
    if not running and not undelivered:
        return ""
    return f"{counted(running, 'run')} under way, {counted(undelivered, 'end')} to deliver"


def _show_statuses(statuses: Iterable[StationStatus], *, as_json: bool) -> None:
    if as_json:
        show_json([everything(status) for status in statuses])
        return
    for status in statuses:
        show_lines(status_lines(status))


@click.command("reload")
@CONFIG
@json_option
def reload_policy(config: Path, *, as_json: bool) -> None:
    """Put in force what the policy file says now, as SIGHUP does. A file that can't be read changes nothing."""
    with at_station(config) as station:
        statuses = station.call(station.stub.ReloadPolicy, pb.ReloadPolicyRequest()).stations
    _show_statuses(statuses, as_json=as_json)


COMMANDS = (
    approve_run,
    cancel,
    decline_run,
    drain,
    hold,
    look,
    pause,
    release,
    reload_policy,
    resume,
    runs,
    show,
    withhold,
)
"""What `folkmoot node` gets from here."""
