"""What the server hands over, turned into journal entries: nothing is believed that is not proven.

An Assign is verified against the station's own ledger and decided by its policy; accepted or refused, the decision is journaled, and
only then acknowledged. A Cancel is noted. A message is believed if a node of the sibling's organization sealed it for its place. All
deliveries that came together are journaled in one step.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import structlog
from google.protobuf.message import DecodeError

from folkmoot.node import message_records, records
from folkmoot.node.messages import open_message
from folkmoot.node.outcomes import Outcome, make_receipt, refused
from folkmoot.node.policy import Refused
from folkmoot.node.records import ASSIGNED, RunRecord, microseconds
from folkmoot.node.station import Station
from folkmoot.trust import (
    EnvelopeRejected,
    FolkmootError,
    LedgerFork,
    TaskAheadOfLedger,
    TaskExpired,
    TaskNotProven,
    TrustError,
    VerifiedTask,
    digest,
    sign_receipt,
    verify_task,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign, PeerMessage, ServerFrame
from folkmoot.v1.task_pb2 import Isolation, RunState, TaskSpec

Change: TypeAlias = Callable[[sqlite3.Connection], Callable[[], None]]
"""A journal change that returns what to do once it is durable."""

log = structlog.get_logger()


class Runs(Protocol):
    """What happens to runs once the journal knows of them."""

    def take_up(self, record: RunRecord) -> None:
        """Go on with a run from where the journal has it; does nothing if that is under way."""

    def cancel(self, run_id: str) -> None:
        """End a run that is not wanted any more."""

    def task_of(self, run_id: str) -> VerifiedTask | None:
        """The task of a run that is under way here."""

    def message_arrived(self, run_id: str) -> None:
        """A message for a run has been journaled."""


@dataclass(frozen=True)
class Judgement:
    """What the station says to an assignment: a task, or the outcome that it is refused with."""

    record: RunRecord
    task: VerifiedTask | None
    refusal: Outcome | None


class Intake:
    """Takes deliveries in."""

    def __init__(self, station: Station, runs: Runs) -> None:
        self._station = station
        self._runs = runs
        self._judged: dict[str, VerifiedTask] = {}
        self._acknowledged: int | None = None

    async def acknowledged(self) -> int:
        """Up to which delivery everything is journaled."""
        if self._acknowledged is None:
            self._acknowledged = await self._station.journal.transact(records.acknowledged)
        return self._acknowledged

    async def start_over(self, sequence: int) -> None:
        """The server counts its deliveries anew, from behind this one."""
        await self._station.journal.transact(lambda connection: records.acknowledge(connection, sequence))
        self._acknowledged = sequence

    async def take(self, frames: Sequence[ServerFrame]) -> int:
        """Journal deliveries; return up to which one everything is journaled. Those that came before are skipped."""
        last = await self.acknowledged()
        changes: list[Change] = []
        self._judged = {}
        for frame in frames:
            if frame.sequence <= last:
                continue
            if frame.sequence != last + 1:
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION,
                    f"delivery {frame.sequence} came where {last + 1} was next",
                )
            last = frame.sequence
            change = await self._change(frame)
            if change is not None:
                changes.append(change)
        afterwards = await self._station.journal.transact(lambda connection: _apply(connection, changes, last))
        self._acknowledged = last
        for act in afterwards:
            act()
        return last

    async def _change(self, frame: ServerFrame) -> Change | None:
        match frame.WhichOneof("frame"):
            case "assign":
                return await self._assign(frame.assign)
            case "cancel":
                return self._cancel(frame.cancel.run_id)
            case "peer_message":
                return await self._message(frame.peer_message)
            case kind:
                log.warning("link.delivery_unknown", kind=kind, sequence=frame.sequence)
                return None

    # ---- assignments ----

    async def _assign(self, assign: Assign) -> Change:
        judged = await self._judge(assign)
        if judged.task is not None:
            self._judged[assign.run_id] = judged.task
        inline = (judged.record.input_digest, assign.input_envelope)

        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            record = self._stand(connection, judged, inline)
            return lambda: self._take_up(record, inline if record is judged.record else (b"", b""))

        return change

    def _take_up(self, record: RunRecord, inline: tuple[bytes, bytes]) -> None:
        if all(inline):
            self._station.envelopes.remember(*inline)
        self._runs.take_up(record)

    def _stand(self, connection: sqlite3.Connection, judged: Judgement, inline: tuple[bytes, bytes]) -> RunRecord:
        """Let the judgement stand, unless the run is known: a repeat is answered with what stands, nothing runs twice."""
        record = judged.record
        for known in records.attempts_of(connection, record.run_id):
            if known.attempt == record.attempt:
                return records.reopen_run(connection, known)
            if known.state != RunState.RUN_STATE_REFUSED:
                judged = replace(judged, refusal=refused(ErrorReason.ERROR_REASON_RUN_CONFLICT, "journal"))
        if judged.refusal is not None:
            record = self._refuse(judged)
        elif all(inline):
            records.put_envelope(connection, *inline)
        records.insert_run(connection, record)
        return record

    def _refuse(self, judged: Judgement) -> RunRecord:
        """The record of a run that the station would not execute, with the receipt that says so."""
        assert judged.refusal is not None  # noqa: S101 - for the type checker
        now = self._station.now()
        receipt = make_receipt(
            self._station,
            judged.record,
            judged.task.spec if judged.task else None,
            judged.refusal,
            isolation=Isolation.ISOLATION_UNSPECIFIED,
            result=None,
            ended_at=now,
        )
        return replace(
            judged.record,
            state=judged.refusal.state,
            receipt=sign_receipt(receipt, self._station.node_key).SerializeToString(),
            ended_at_us=microseconds(now),
        )

    async def _judge(self, assign: Assign) -> Judgement:
        """Verify, then ask the policy. What can't be decided now (the server can't be reached) raises, and comes again."""
        record = self._record(assign)
        try:
            task = await self._verify(assign)
        except (TaskNotProven, TaskAheadOfLedger, TaskExpired, LedgerFork) as error:
            log.warning("task.refused", run_id=assign.run_id, task_id=record.task_id, detail=str(error))
            return Judgement(record, None, refused(error.reason, error.metadata.get("rule", "")))
        record = replace(record, input_digest=task.input(self._station.organization_id).envelope_digest)
        decision = self._station.decide(task)
        if isinstance(decision, Refused):
            log.warning("run.refused", run_id=assign.run_id, task_id=record.task_id, rule=decision.rule)
            return Judgement(record, task, refused(decision.reason, decision.rule))
        limits = decision.limits
        accepted = replace(
            record,
            memory_bytes=limits.memory_bytes,
            cpu_millis=limits.cpu_millis,
            run_time_seconds=limits.run_time_seconds,
            result_limit_bytes=decision.result_bytes,
        )
        return Judgement(accepted, task, None)

    async def _verify(self, assign: Assign) -> VerifiedTask:
        """The task of an assignment, proven, and proven to be for this organization."""
        if self._station.fork is not None:
            raise self._station.fork
        try:
            task = verify_task(assign.chain, self._station.state, now=self._station.now())
        except TaskAheadOfLedger:
            await self._station.refresh()
            task = verify_task(assign.chain, self._station.state, now=self._station.now())
        if task.receiver(assign.run_id).organization_id != self._station.organization_id:
            raise TaskNotProven(f"the run {assign.run_id} is another organization's", metadata={"rule": "RECEIVERS"})
        if not 1 <= assign.attempt <= task.spec.max_attempts:
            raise TaskNotProven(
                f"the task allows {task.spec.max_attempts} attempts, this is number {assign.attempt}",
                metadata={"rule": "MAX_ATTEMPTS"},
            )
        return task

    def _record(self, assign: Assign) -> RunRecord:
        """What there is to say of an assignment before anything is proven."""
        body = assign.chain.specs[-1].body if assign.chain.specs else b""
        claimed = _claimed_spec(body)
        return RunRecord(
            run_id=assign.run_id,
            attempt=assign.attempt,
            task_id=claimed.task_id,
            job_id=claimed.job_id,
            task_digest=digest(body),
            chain=assign.chain.SerializeToString(),
            policy_digest=self._station.policy_file.digest,
            input_digest=b"",
            memory_bytes=0,
            cpu_millis=0,
            run_time_seconds=0,
            result_limit_bytes=0,
            accepted_at_us=microseconds(self._station.now()),
            state=ASSIGNED,
        )

    # ---- everything else ----

    def _cancel(self, run_id: str) -> Change:
        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            records.cancel_run(connection, run_id)
            return lambda: self._runs.cancel(run_id)

        return change

    async def _message(self, message: PeerMessage) -> Change | None:
        task = self._judged.get(message.to_run_id) or self._runs.task_of(message.to_run_id)
        if task is None or task.receiver(message.to_run_id).organization_id != self._station.organization_id:
            log.info("message.dropped", run_id=message.to_run_id, cause="the run is not under way here")
            return None
        try:
            await open_message(self._station, task, message)
        except TrustError as error:
            cause = error.cause_text if isinstance(error, EnvelopeRejected) else error.message
            log.warning("message.rejected", run_id=message.to_run_id, sequence=message.sequence, cause=cause)
            return None

        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            message_records.insert_incoming(connection, message)
            return lambda: self._runs.message_arrived(message.to_run_id)

        return change


def _apply(connection: sqlite3.Connection, changes: Sequence[Change], last: int) -> list[Callable[[], None]]:
    afterwards = [change(connection) for change in changes]
    records.acknowledge(connection, last)
    return afterwards


def _claimed_spec(body: bytes) -> TaskSpec:
    """What an unproven spec says; empty if it says nothing."""
    try:
        return TaskSpec.FromString(body)
    except DecodeError:
        return TaskSpec()
