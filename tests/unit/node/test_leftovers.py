"""What a node that was killed has left in the middle of something is cleared away at its next start, and nothing else; so is, after days,
what belongs to runs that the server has."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from folkmoot.node.journal import keeping_records, records
from folkmoot.node.journal.records import ASSIGNED, microseconds
from folkmoot.node.station import Station
from folkmoot.node.storage.keeping import clear_away, clear_leftovers
from folkmoot.node.storage.scratch import Scratch
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
    await clear_leftovers(station, Scratch(station.directory / "scratch"))
    assert left(station, "outbox") == {"input", "result", "old input"}


async def test_of_what_was_downloaded_only_what_a_run_still_needs_stays(station: Station):
    await clear_leftovers(station, Scratch(station.directory / "scratch"))
    assert left(station, "inbox") == {"input"}


# ---- scratch volumes -----------------------------------------------------------------------------------------------------

OLD, YOUNG, OPEN, UNKNOWN = (f"{number}" * 36 for number in range(4))
KEEP_DAYS = 7


@pytest.fixture
async def volumes(make_station: Callable[[], Station]) -> tuple[Station, Scratch]:
    """A station with a job that ended long ago, one of which a run ended long ago, one that goes on, and one that the journal never saw."""
    station = make_station()
    scratch = Scratch(station.directory / "scratch")
    long_ago = microseconds(station.now() - timedelta(days=KEEP_DAYS, seconds=1))
    lately = microseconds(station.now() - timedelta(days=KEEP_DAYS - 1))
    commits = [(OLD, long_ago), (YOUNG, long_ago), (YOUNG, lately), (OPEN, 0)]
    for number, (job_id, committed) in enumerate(commits):
        record = run(f"{number}", job_id=job_id, scratch=1, committed_at_us=committed)
        await station.journal.transact(lambda db, record=record: records.insert_run(db, record))  # type: ignore[misc]
    for job_id in (OLD, YOUNG, OPEN, UNKNOWN):
        scratch.open(job_id, organization_id="Alpha", first_use=True)
    return station, scratch


async def test_scratch_goes_when_all_of_its_job_was_delivered_days_ago(volumes: tuple[Station, Scratch]):
    station, scratch = volumes
    await clear_leftovers(station, scratch)
    assert {*scratch.jobs()} == {OLD, YOUNG, OPEN, UNKNOWN}
    await clear_away(station, scratch, keep_days=KEEP_DAYS)
    assert {*scratch.jobs()} == {YOUNG, OPEN, UNKNOWN}


async def test_scratch_that_was_about_to_go_when_the_node_was_killed_goes_at_its_start(
    volumes: tuple[Station, Scratch], monkeypatch: pytest.MonkeyPatch
):
    station, scratch = volumes
    with monkeypatch.context() as killed:
        killed.setattr(Scratch, "remove", lambda *_: None)
        await clear_away(station, scratch, keep_days=KEEP_DAYS)
    await clear_leftovers(station, scratch)
    assert {*scratch.jobs()} == {YOUNG, OPEN, UNKNOWN}


async def test_scratch_that_went_is_not_replaced_by_an_empty_one(volumes: tuple[Station, Scratch]):
    station, scratch = volumes
    await clear_away(station, scratch, keep_days=KEEP_DAYS)
    assert await station.journal.transact(lambda db: records.scratch_used(db, OLD))


async def test_what_an_attempt_needs_outlives_an_earlier_one_that_ended_long_ago(make_station: Callable[[], Station]):
    station = make_station()
    long_ago = microseconds(station.now() - timedelta(days=KEEP_DAYS + 1))
    attempts = [run("same", attempt=1, committed_at_us=long_ago), run("same", attempt=2, result_digest=b"r" * 32)]
    for record in attempts:
        await station.journal.transact(lambda db, record=record: records.insert_run(db, record))  # type: ignore[misc]
    await clear_away(station, Scratch(station.directory / "scratch"), keep_days=KEEP_DAYS)
    assert b"r" * 32 in await station.journal.transact(keeping_records.kept_payloads)
