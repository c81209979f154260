"""`folkmoot node status`: how the node is in each collaboration, by its files; and by its own word, if it runs."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from folkmoot.cli.output import counted, json_option, show_json, text_of
from folkmoot.node.cli.client import at_station
from folkmoot.node.cli.view import name_of, when
from folkmoot.node.config import CollaborationConfig, NodeConfig, load_config
from folkmoot.node.journal.database import read_only
from folkmoot.trust import FolkmootError
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.station_service_pb2 import GetStationStatusRequest, StationStatus


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--number", type=click.IntRange(1), default=20, show_default=True, help="The newest runs, so many.")
@json_option
def status(config: Path, number: int, *, as_json: bool) -> None:
    """Show what the node of CONFIG has done, what waits, and what keeps it from new work. Works beside a running node, and without one."""
    settings = load_config(config)
    live = running_stations(settings)
    found = [
        _described(settings, block, live.get(str(block.collaboration)), number) for block in settings.collaboration
    ]
    if as_json:
        show_json(found)
        return
    for each in found:
        _show(each)


def running_stations(config: NodeConfig) -> dict[str, StationStatus]:
    """What the running node says of itself, by collaboration; nothing if none runs."""
    try:
        with at_station(config) as station:
            stations = station.call(station.stub.GetStationStatus, GetStationStatusRequest()).stations
    except (FolkmootError, OSError):
        return {}
    return {each.collaboration: each for each in stations}


def _described(
    config: NodeConfig, block: CollaborationConfig, live: StationStatus | None, number: int
) -> dict[str, Any]:
    from folkmoot.node.app import station_directory
    from folkmoot.node.people.overview import problems
    from folkmoot.transport import Replica

    directory = station_directory(config, block.collaboration)
    facts: dict[str, Any] = {"collaboration": str(block.collaboration), "running": live is not None}
    if not (directory / "journal.db").exists():
        return facts | {"started": False}
    replica = Replica(directory, block.collaboration)
    facts |= {"started": True, "problems": list(problems(block, replica, directory))}
    if live is not None:
        facts["attached_since"] = when(live, "attached_since")
    return facts | _journaled(directory / "journal.db", number)


def _journaled(journal: Path, number: int) -> dict[str, Any]:
    from folkmoot.node.execution.outcomes import state_name
    from folkmoot.node.journal import decision_records, records

    with closing(read_only(journal)) as connection:
        counts = decision_records.count_runs(connection)
        return {
            "availability": name_of(Availability, decision_records.availability(connection)),
            "deliveries_acknowledged": records.acknowledged(connection),
            **vars(counts),
            "runs": [
                {
                    "accepted_at": records.moment(record.accepted_at_us),
                    "run": record.run_id,
                    "state": state_name(record.state),
                    "end": "delivered" if record.committed_at_us else "to deliver" if record.ended else "under way",
                }
                for record in records.recent_runs(connection, number)
            ],
        }


def _show(facts: dict[str, Any]) -> None:
    click.echo(facts["collaboration"])
    if not facts["started"]:
        click.echo("  never started")
        return
    if not facts["running"]:
        click.echo("  not running")
    elif (since := facts["attached_since"]) is not None:
        click.echo(f"  running, attached since {text_of(since)}, {facts['availability']}")
    else:
        click.echo(f"  running, not attached to the server, {facts['availability']}")
    for problem in facts["problems"]:
        click.echo(text_of(f"  {problem}"))
    click.echo(f"  {counted(facts['open'], 'run')} open, {counted(facts['undelivered'], 'end')} to deliver")
    click.echo(
        f"  waiting for a person: {counted(facts['awaiting_approval'], 'approval')}, {counted(facts['held'], 'release')}"
    )
    click.echo(f"  deliveries acknowledged: {facts['deliveries_acknowledged']}")
    for run in facts["runs"]:
        accepted = run["accepted_at"].isoformat(timespec="seconds")
        click.echo(f"  {accepted}  run {run['run']}  {run['state']:<10}  {run['end']}")
