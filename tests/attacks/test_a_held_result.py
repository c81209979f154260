"""An algorithm whose result is held, and that wants something out before a person has looked."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.execution.outcomes import crashed
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.people import decisions, held
from folkmoot.node.people.held import must_be_looked_at
from folkmoot.node.policy.judgement import record_of
from folkmoot.node.proxy import runs
from folkmoot.node.proxy.ports import Exit
from folkmoot.node.runtimes.process import ProcessRuntime
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign
from folkmoot.v1.task_pb2 import ExitClass, Isolation, RunState
from tests.builders import NOW
from tests.integration.node.conftest import Place, directory, exit_of, make_place
from tests.integration.node.fakes import FakeRun
from tests.unit.node.conftest import POLICY, MakeStation, lung, make_station
from tests.unit.node.test_runs import MakeRun, frames, make_run, sent

__all__ = ["directory", "lung", "make_run", "make_station", "sent"]

SECRET = "the-mean-of-the-secret-column-is-fortytwo"

ENDS = {
    "as if the command were not there": ("sys.exit(127)", ExitClass.EXIT_CLASS_NOT_STARTED),
    "as if the command could not run": ("sys.exit(126)", ExitClass.EXIT_CLASS_NOT_STARTED),
    "as if the process were lost": ("os.kill(os.getppid(), 9)", ExitClass.EXIT_CLASS_LOST),
}


def held_run() -> RunRecord:
    return replace(record_of(Assign(run_id="run", attempt=1), NOW), started_at_us=1, hold=1)


def place_of(code: str, directory: Path) -> Place:
    place = make_place("process", directory, "")
    command = (sys.executable, "-c", f"import os, sys; print({SECRET!r}, flush=True); {code}")
    place.runtime = ProcessRuntime(directory, node="node", proxy=place.proxy, command=command)
    return place


@pytest.mark.parametrize("end", ENDS)
async def test_an_end_that_a_process_can_make_look_like_none_waits_for_a_person(directory: Path, end: str):
    """A process chooses its exit code, and may end the shell around it; what it printed comes along with either."""
    code, exit_class = ENDS[end]
    place = place_of(code, directory)
    await place.runtime.adopt()
    run = FakeRun(place.runtime.name_run())
    place.names.append(run.run_name)
    await place.proxy.open(run, SourceTables({}), directory / run.run_name)
    try:
        await place.runtime.start(place.start_of(run.run_name))
        outcome = crashed(await exit_of(place.runtime, run.run_name), held_run())
    finally:
        await place.clean()
    assert outcome.exit_class == exit_class
    assert SECRET in outcome.text
    assert must_be_looked_at(held_run(), outcome, place.runtime.isolation)


@pytest.mark.parametrize("isolation", [Isolation.ISOLATION_CONTAINER, Isolation.ISOLATION_SANDBOX])
def test_an_end_that_no_container_can_choose_is_told_without_a_person(isolation: Isolation.ValueType):
    for exit_class in (ExitClass.EXIT_CLASS_NOT_STARTED, ExitClass.EXIT_CLASS_LOST):
        assert not must_be_looked_at(held_run(), crashed(Exit(exit_class, None, ""), held_run()), isolation)


async def test_who_holds_a_result_that_is_leaving_is_not_told_that_it_waits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    run = await make_run()
    desk = cast(Any, SimpleNamespace(station=run.station, executor=SimpleNamespace(run_of=lambda _: run)))
    told: list[int | None] = []

    async def end_run(*arguments: Any, **options: Any) -> RunRecord:
        with pytest.raises(FolkmootError) as refused:
            await decisions.hold(desk, run.record)
        told.append(refused.value.reason)
        return await held.end_run(*arguments, **options)

    monkeypatch.setattr(runs, "end_run", end_run)
    await run.write_result("application/json", frames(b"1"))
    assert told == [ErrorReason.ERROR_REASON_NOT_WAITING]
    assert (run.record.state, run.record.hold) == (RunState.RUN_STATE_COMPLETED, 0)


async def test_a_result_that_another_run_left_no_room_for_leaves_no_file(
    make_run: MakeRun, make_station: MakeStation, monkeypatch: pytest.MonkeyPatch
):
    """Both had found room in their organization's day."""
    run = await make_run(station=make_station(policy=f"{POLICY}\n[quotas]\nbytes_out_per_day = 10000\n"))

    async def room(*_: object) -> None:
        """What there was before the other one left."""

    monkeypatch.setattr(runs, "require_room", room)
    with pytest.raises(FolkmootError) as refused:
        await run.write_result("application/octet-stream", frames(os.urandom(1 << 20)))
    assert refused.value.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED
    assert not list((run.station.directory / "outbox").iterdir())
    await run.write_result("application/octet-stream", frames(b"small"))
    assert run.record.state == RunState.RUN_STATE_COMPLETED


async def test_a_result_that_is_held_at_the_last_moment_is_one_that_can_be_looked_at(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    run = await make_run()
    desk = cast(Any, SimpleNamespace(station=run.station, executor=SimpleNamespace(run_of=lambda _: run)))

    async def hold_meanwhile(*_: object) -> None:
        monkeypatch.undo()
        await decisions.hold(desk, run.record)

    monkeypatch.setattr(runs, "require_room", hold_meanwhile)
    with pytest.raises(FolkmootError, match="write it again"):
        await run.write_result("application/octet-stream", frames(os.urandom(1 << 20)))
    assert not list((run.station.directory / "outbox").iterdir())
    await run.write_result("text/plain", frames(b"42"))
    assert run.record.state == RunState.RUN_STATE_HELD
    assert [part async for part in held.read_held(run.station, run.record)][1:] == [b"42"]
