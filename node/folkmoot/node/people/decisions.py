"""What people at the station do with runs: find them, approve or decline, hold, look, release, cancel; open, pause or drain the node.

Promises: a decision is signed and in the journal before anything acts on it, and the first one about a run stands, whoever comes later and
whatever happens to the process. Nothing here waits for the server.
"""

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import structlog

from folkmoot.node.execution.executor import Executor
from folkmoot.node.execution.outcomes import state_name
from folkmoot.node.journal import decision_records, records
from folkmoot.node.journal.records import AWAITING_APPROVAL, CANCELLED_AT_STATION, HELD, RunRecord
from folkmoot.node.link.attachment import Link
from folkmoot.node.station import Station
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import FolkmootError, fingerprint, make_approval
from folkmoot.trust.rules import LONGEST_REFERENCE_BYTES
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject, Isolation

log = structlog.get_logger()

AWAITED = {
    ApprovalSubject.APPROVAL_SUBJECT_RUN: AWAITING_APPROVAL,
    ApprovalSubject.APPROVAL_SUBJECT_RELEASE: HELD,
}
"""In which state a run waits for a decision."""


class Desk(Protocol):
    """A station at work, as people there deal with it."""

    @property
    def station(self) -> Station:
        """What its runs share."""

    @property
    def executor(self) -> Executor:
        """Its runs."""

    @property
    def link(self) -> Link:
        """Its link to the server."""

    @property
    def isolation(self) -> Isolation.ValueType:
        """What keeps its algorithms apart."""

    def offer(self) -> None:
        """Tell the server what the node offers now, after any of it has changed."""

    def reload_policy(self) -> None:
        """Put in force what the policy file says now; if it can't be read, FolkmootError is raised and the old policy stays."""


async def find_run(desks: Sequence[Desk], run_id: str) -> tuple[Desk, RunRecord]:
    """The newest attempt of a run, by its id or the beginning of it. Raises RUN_NOT_FOUND, also where several begin like this."""
    found: list[tuple[Desk, RunRecord]] = []
    for desk in desks:
        matching = await desk.station.journal.transact(partial(decision_records.runs_like, beginning=run_id.lower()))
        found += [(desk, record) for record in matching]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} runs of this node begin with {run_id!r}" if found else f"this node has no run {run_id!r}"
    raise FolkmootError(ErrorReason.ERROR_REASON_RUN_NOT_FOUND, what)


def find_desks(desks: Sequence[Desk], collaboration: str) -> Sequence[Desk]:
    """Those of a collaboration, by name, name@fingerprint or the fingerprint's beginning; all without. Raises COLLABORATION_NOT_FOUND."""
    found = [desk for desk in desks if _is_called(desk, collaboration)]
    if not found or (collaboration and len(found) > 1):
        known = ", ".join(str(desk.station.replica.reference) for desk in desks)
        what = "names several" if found else "is none"
        raise FolkmootError(
            ErrorReason.ERROR_REASON_COLLABORATION_NOT_FOUND,
            f"{collaboration!r} {what} of the collaborations that this node serves: {known}",
        )
    return found


def _is_called(desk: Desk, collaboration: str) -> bool:
    reference = desk.station.replica.reference
    names = (reference.name, str(reference))
    return collaboration in names or fingerprint(reference.genesis).startswith(collaboration)


async def decide(
    desk: Desk,
    record: RunRecord,
    subject: ApprovalSubject.ValueType,
    decision: Decision.ValueType,
    decided_by: str,
) -> RunRecord:
    """Let a person's decision stand, unless there is one. Raises NOT_WAITING for a run that does not wait for it."""
    if len(decided_by.encode()) > LONGEST_REFERENCE_BYTES:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INVALID_FIELD, f"decided_by has more than {LONGEST_REFERENCE_BYTES} bytes"
        )
    station = desk.station
    signed = make_approval(
        genesis=station.state.genesis,
        task_digest=record.task_digest,
        run_id=record.run_id,
        attempt=record.attempt,
        subject=subject,
        decision=decision,
        approved_by=decided_by,
        now=station.now(),
        node_key=station.node_key,
    )
    standing = await station.journal.transact(lambda db: _decide(db, record, subject, decision, signed))
    failpoint("node.approval.journaled")
    told = {"subject": ApprovalSubject.Name(subject), "decision": Decision.Name(decision)}
    log.info("run.decided", run_id=record.run_id, **told, decided_by=decided_by)
    station.people.notify()
    return standing


def _decide(
    db: sqlite3.Connection,
    record: RunRecord,
    subject: ApprovalSubject.ValueType,
    decision: Decision.ValueType,
    signed: Signed,
) -> RunRecord:
    standing = records.get_run(db, *record.key) or record
    if decision_records.decision_about(db, standing, subject) is None:
        if standing.state != AWAITED[subject] or standing.cancelled:
            raise _not_waiting(standing, "for that")
        decision_records.insert_approval(db, standing, subject, decision, signed)
    return standing


async def hold(desk: Desk, record: RunRecord) -> RunRecord:
    """Have a run's last word wait for a person. Raises NOT_WAITING where it has left already, or the run has ended without one."""
    run = desk.executor.run_of(record.run_id)
    if run is not None and not run.record.stands:
        run.hold()
    standing = await desk.station.journal.transact(lambda db: decision_records.want_to_look(db, record))
    if not standing.hold or standing.ended:
        raise _not_waiting(standing, "to be held: its result has left, or there was none")
    if run is not None and not run.record.stands:
        run.hold()
    log.info("run.to_be_held", run_id=record.run_id)
    return standing


async def cancel(desk: Desk, record: RunRecord) -> RunRecord:
    """End a run that has not ended, in the station's name."""
    await desk.station.journal.transact(lambda db: records.cancel_run(db, record.run_id, by=CANCELLED_AT_STATION))
    desk.executor.cancel(record.run_id)
    log.info("run.cancelled_at_station", run_id=record.run_id)
    return await standing_run(desk, record)


async def standing_run(desk: Desk, record: RunRecord) -> RunRecord:
    """A run as the journal has it now."""
    standing = await desk.station.journal.transact(lambda db: records.get_run(db, *record.key))
    return standing or record


async def set_availability(desk: Desk, availability: Availability.ValueType) -> None:
    """Open, pause or drain the node: journaled, then told to the server, and to the runs that wait."""
    station = desk.station
    await station.journal.transact(lambda db: decision_records.set_availability(db, availability))
    station.availability = availability
    log.warning("node.availability", availability=Availability.Name(availability))
    desk.offer()
    station.people.notify()


def _not_waiting(record: RunRecord, what: str) -> FolkmootError:
    return FolkmootError(
        ErrorReason.ERROR_REASON_NOT_WAITING,
        f"the run {record.run_id} is {state_name(record.state)}, and does not wait {what}",
    )
