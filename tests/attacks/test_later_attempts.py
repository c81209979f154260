"""A server that begins runs anew, against people at the station: what they said of one attempt counts for those that follow it here."""

from dataclasses import replace

import pytest

from folkmoot.node.journal import decision_records, records
from folkmoot.node.journal.decision_records import HELD_BY_PERSON
from folkmoot.node.journal.records import ASSIGNED, RunRecord
from folkmoot.node.station import Station
from folkmoot.trust import make_approval
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import ServerFrame
from folkmoot.v1.task_pb2 import ApprovalSubject, RunState
from tests.builders import NOW, World
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation, lung, make_station
from tests.unit.node.test_intake import cancelled, receipt_of, take

__all__ = ["lung", "make_station"]


def begun_anew(frame: ServerFrame) -> tuple[ServerFrame, ServerFrame]:
    """What a server sends that takes a run from a node and gives it to the same one."""
    later = ServerFrame(sequence=3)
    later.assign.CopyFrom(frame.assign)
    later.assign.attempt = 2
    return cancelled(frame.assign.run_id, sequence=2, attempt=1), later


async def ended(station: Station, record: RunRecord, state: RunState.ValueType) -> None:
    await station.journal.transact(lambda db: records.end_run(db, replace(record, state=state), None))


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        (ApprovalSubject.APPROVAL_SUBJECT_RUN, ErrorReason.ERROR_REASON_APPROVAL_DECLINED),
        (ApprovalSubject.APPROVAL_SUBJECT_RELEASE, ErrorReason.ERROR_REASON_RELEASE_DECLINED),
    ],
    ids=["approval", "release"],
)
async def test_a_run_that_a_person_declined_does_not_come_back_as_another_attempt(
    lung: World, make_station: MakeStation, subject: ApprovalSubject.ValueType, reason: ErrorReason.ValueType
):
    station = make_station()
    frame = assign(lung, max_attempts=2)
    [first] = (await take(station, frame)).records
    signed = make_approval(
        genesis=lung.genesis,
        task_digest=first.task_digest,
        run_id=first.run_id,
        attempt=1,
        subject=subject,
        decision=Decision.DECISION_DECLINE,
        approved_by="uid:0",
        now=NOW,
        node_key=station.node_key,
    )
    await station.journal.transact(
        lambda db: decision_records.insert_approval(db, first, subject, Decision.DECISION_DECLINE, signed)
    )
    await ended(station, first, RunState.RUN_STATE_REFUSED)
    [second] = (await take(station, *begun_anew(frame))).records
    assert second.attempt == 2
    assert receipt_of(second, station).reason == reason


async def test_a_run_that_a_person_cancelled_does_not_come_back_as_another_attempt(
    lung: World, make_station: MakeStation
):
    station = make_station()
    frame = assign(lung, max_attempts=2)
    [first] = (await take(station, frame)).records
    by = records.CANCELLED_AT_STATION
    await station.journal.transact(lambda db: records.cancel_run(db, first.run_id, by=by))
    await ended(station, first, RunState.RUN_STATE_CANCELLED)
    [second] = (await take(station, *begun_anew(frame))).records
    assert receipt_of(second, station).reason == ErrorReason.ERROR_REASON_RUN_CONFLICT


async def test_a_person_who_wants_to_look_at_a_result_looks_at_that_of_the_next_attempt(
    lung: World, make_station: MakeStation
):
    station = make_station()
    frame = assign(lung, max_attempts=2)
    [first] = (await take(station, frame)).records
    await station.journal.transact(lambda db: decision_records.want_to_look(db, first))
    [second] = (await take(station, *begun_anew(frame))).records
    assert (second.state, second.hold) == (ASSIGNED, HELD_BY_PERSON)
    known = await station.journal.transact(lambda db: records.attempts_of(db, first.run_id))
    assert known[-1].hold == HELD_BY_PERSON
