"""Quotas: counted from the journal, for the organization whose user made the root task, by the day of the station's clock."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from folkmoot.node.journal import records
from folkmoot.node.journal.database import Journal
from folkmoot.node.journal.records import RunRecord, microseconds
from folkmoot.node.policy.policy_file import Policy, Quotas
from folkmoot.node.policy.quotas import allowance, usage
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Allowance, Departure, leave
from folkmoot.trust import FolkmootError
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import RunState
from tests.builders import World
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import POLICY as STATION_POLICY
from tests.unit.node.conftest import MakeStation
from tests.unit.node.test_intake import receipt_of, take
from tests.unit.node.test_runs import MakeRun, Sent, frames, lines, make_run, sent

__all__ = ["make_run", "sent"]

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
POLICY = Policy(quotas=Quotas(runs_per_day=2, bytes_out_per_day=1000), time_zone="Europe/Berlin")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal(tmp_path / "journal.db")
    yield opened
    await opened.close()


def run(name: str, *, initiator: str = "alpha", accepted_at: datetime = NOON, **changes: object) -> RunRecord:
    usual: dict[str, object] = {
        "run_id": name,
        "attempt": 1,
        "task_id": f"task of {name}",
        "job_id": "job",
        "task_digest": b"",
        "chain": b"",
        "policy_digest": b"policy",
        "input_digest": b"",
        "memory_bytes": 0,
        "cpu_millis": 0,
        "run_time_seconds": 0,
        "result_limit_bytes": 0,
        "accepted_at_us": microseconds(accepted_at),
        "state": RunState.RUN_STATE_ASSIGNED,
        "initiator_id": initiator,
    }
    return RunRecord(**(usual | changes))  # type: ignore[arg-type]


async def put(journal: Journal, *runs: RunRecord) -> None:
    for each in runs:
        await journal.transact(partial(records.insert_run, record=each))


async def send(
    journal: Journal, name: str, size_bytes: int, *, time: datetime = NOON, most: Allowance | None = None
) -> None:
    departure = Departure(b"", time, EnvelopeKind.ENVELOPE_KIND_RESULT, b"d", size_bytes, ("alpha",), most)
    await journal.transact(lambda connection: leave(connection, (name, 1), "task", (departure,)))


async def used(
    journal: Journal, run: RunRecord | None = None, *, now: datetime = NOON, initiator: str = "alpha"
) -> tuple[int, int]:
    found = await journal.transact(lambda connection: usage(connection, POLICY, now, initiator, run))
    assert found.ends_at == datetime(2026, 11, 20, 23, tzinfo=UTC) or now != NOON
    return found.runs, found.bytes_out


async def test_runs_that_were_accepted_today_count_for_their_organization(journal: Journal):
    yesterday = datetime(2026, 11, 19, 22, 59, tzinfo=UTC)
    await put(
        journal,
        run("one"),
        run("two", accepted_at=yesterday + timedelta(minutes=1)),
        run("yesterday's", accepted_at=yesterday),
        run("refused", state=RunState.RUN_STATE_REFUSED),
        run("undecided", policy_digest=b""),
        run("another's", initiator="beta"),
        run("ended", state=RunState.RUN_STATE_CANCELLED),
    )
    assert await used(journal) == (3, 0)
    assert await used(journal, initiator="beta") == (1, 0)
    assert await used(journal, now=NOON + timedelta(days=1)) == (0, 0)


async def test_the_run_that_came_first_has_the_last_place(journal: Journal):
    first, second = run("z"), run("a")
    await put(journal, first, second)
    assert await used(journal, first) == (0, 0)
    assert await used(journal, second) == (1, 0)
    assert await used(journal, run("not here yet")) == (2, 0)


async def test_bytes_count_when_they_leave(journal: Journal):
    await put(journal, run("one"), run("another's", initiator="beta"))
    await send(journal, "one", 600, time=NOON - timedelta(days=1))
    await send(journal, "one", 300)
    await send(journal, "another's", 50)
    assert await used(journal) == (1, 300)


async def test_what_would_be_too_much_does_not_leave_and_is_not_counted(journal: Journal):
    await put(journal, run("one"), run("two"))
    most = allowance(POLICY, NOON)
    await send(journal, "one", 600, most=most)
    with pytest.raises(FolkmootError, match=r"600 have left, and this is 401 more.*2026-11-21T00:00") as refusal:
        await send(journal, "two", 401, most=most)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED
    assert await used(journal) == (2, 600)
    await send(journal, "two", 400, most=most)
    await send(journal, "two", 50)  # What a person has released, or is said of a failure.
    assert await used(journal) == (2, 1050)


async def test_what_leaves_at_the_same_time_fits_together_or_not_at_all(journal: Journal):
    await put(journal, *(run(str(number)) for number in range(8)))
    most, left = allowance(POLICY, NOON), 0
    for number in range(8):
        try:
            await send(journal, str(number), 300, most=most)
            left += 1
        except FolkmootError:
            pass
    assert left == 3


def test_without_a_quota_anything_may_leave():
    assert allowance(Policy(), NOON) is None


async def test_of_runs_that_come_together_no_more_are_accepted_than_there_may_be(
    lung: World, make_station: MakeStation
):
    station = make_station(policy=STATION_POLICY + "[quotas]\nruns_per_day = 2\n")
    taken = await take(station, *(assign(lung, sequence=number) for number in range(1, 5)))
    receipts = [receipt_of(record, station) for record in taken.records if record.receipt]
    assert len(taken.records) - len(receipts) == 2
    assert {receipt.rule for receipt in receipts} == {"quotas.runs_per_day (until 2026-11-21T00:00+00:00)"}
    again = await take(station, assign(lung, sequence=5))
    assert receipt_of(again.records[0], station).reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED


async def test_where_the_days_bytes_are_used_up_only_what_is_said_of_a_failure_leaves(
    make_run: MakeRun, make_station: MakeStation, sent: Sent
):
    run = await make_run(station=make_station(policy=STATION_POLICY + "[quotas]\nbytes_out_per_day = 10\n"))
    await run.log(lines(1, "a"))
    await run.report_progress(0.5, "half")
    await run.reports.flush()
    assert not any(frame.run_update.log_envelopes or frame.run_update.progress_envelope for frame in sent)
    with pytest.raises(FolkmootError, match="make it smaller") as refusal:
        await run.write_result("text/plain", frames(b"a result"))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_QUOTA_EXCEEDED
    assert not list((run.station.directory / "outbox").glob("*"))
    assert run.record.bytes_out == 0
    await run.write_failure("it did not fit", 0)
    assert receipt_of(run.record, run.station).bytes_out == run.record.bytes_out > 10
    assert await run.station.journal.transact(egress.verify) == 1
