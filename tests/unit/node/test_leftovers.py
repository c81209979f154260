"""What a node that was killed has left in the middle of something is cleared away at its next start, and nothing else."""

from collections.abc import Callable

import pytest

from folkmoot.node import records
from folkmoot.node.keeping import clear_leftovers
from folkmoot.node.records import ASSIGNED
from folkmoot.node.station import Station
from folkmoot.v1.task_pb2 import RunState
from tests.unit.node.test_journal import run

DIGESTS = {name: bytes([number]) * 32 for number, name in enumerate(("input", "result", "old input", "orphan"))}


@pytest.fixture
async def station(make_station: Callable[[], Station]) -> Station:
    station = make_station()
    waiting = run("waiting", input_digest=DIGESTS["input"], state=ASSIGNED)
    ended = run(
        "ended",
        input_digest=DIGESTS["old input"],
        result_digest=DIGESTS["result"],
        state=int(RunState.RUN_STATE_COMPLETED),
    )
    for record in (waiting, ended):
        await station.journal.transact(lambda db, record=record: records.insert_run(db, record))  # type: ignore[misc]
    for folder in ("inbox", "outbox"):
        for digest in DIGESTS.values():
            (station.directory / folder / digest.hex()).write_bytes(b"sealed")
    return station


def left(station: Station, folder: str) -> set[str]:
    names = {digest.hex(): name for name, digest in DIGESTS.items()}
    return {names[path.name] for path in (station.directory / folder).iterdir()}


async def test_of_what_was_sealed_only_what_the_journal_names_stays(station: Station):
    await clear_leftovers(station)
    assert left(station, "outbox") == {"input", "result", "old input"}


async def test_of_what_was_downloaded_only_what_a_run_still_needs_stays(station: Station):
    await clear_leftovers(station)
    assert left(station, "inbox") == {"input"}
