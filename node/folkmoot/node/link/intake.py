"""What the server hands over, turned into journal entries: nothing is believed that is not proven.

An Assign is judged against the station's own ledger and policy; accepted, refused or not to be decided yet, that is journaled, and only
then acknowledged. A Cancel is noted. A message is believed if a node of the sibling's organization sealed it for its place. All
deliveries that came together are journaled in one step.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

import structlog

from folkmoot.node.execution.outcomes import refused
from folkmoot.node.journal import dataframe_records, decision_records, message_records, records
from folkmoot.node.journal.decision_records import HELD_BY_PERSON
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.policy.judgement import Judgement, judge, record_of, refuse, within_quotas
from folkmoot.node.proxy.message_envelopes import check_message
from folkmoot.node.station import Station
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import BytesSource, EnvelopeRejected, FolkmootError, TrustError, VerifiedTask, inspect
from folkmoot.trust.encoding import is_uuid
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign, Cancel, DropDataframes, PeerMessage, ServerFrame
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest
from folkmoot.v1.task_pb2 import RunState

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

    def waits(self, run_id: str) -> bool:
        """Whether a run is here that could not be decided yet."""

    def message_arrived(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        """A message for a run has been journaled; what it says, if it was opened."""


class Intake:
    """Takes deliveries in."""

    def __init__(self, station: Station, runs: Runs) -> None:
        self._station = station
        self._runs = runs
        self._judged: dict[str, Judgement] = {}
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
        failpoint("node.delivery.received")
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
        failpoint("node.delivery.journaled")
        self._acknowledged = last
        for act in afterwards:
            act()
        return last

    async def _change(self, frame: ServerFrame) -> Change | None:
        match frame.WhichOneof("frame"):
            case "assign":
                return await self._assign(frame.assign)
            case "cancel":
                return self._cancel(frame.cancel)
            case "peer_message":
                return await self._message(frame.peer_message)
            case "drop_dataframes":
                return self._drop(frame.drop_dataframes)
            case kind:
                log.warning("link.delivery_unknown", kind=kind, sequence=frame.sequence)
                return None

    # ---- assignments ----

    async def _assign(self, assign: Assign) -> Change:
        judged = await judge(self._station, record_of(assign, self._station.now()))
        self._judged[assign.run_id] = judged
        failpoint("node.run.judged")
        inline = _inline(judged.record, assign.input_envelope)

        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            record = self._stand(connection, judged, inline)
            return lambda: self._take_up(record, inline if record is judged.record else (b"", b""))

        return change

    def _take_up(self, record: RunRecord, inline: tuple[bytes, bytes]) -> None:
        if all(inline):
            self._station.envelopes.remember(*inline)
        self._runs.take_up(record)

    def _stand(self, connection: sqlite3.Connection, judged: Judgement, inline: tuple[bytes, bytes]) -> RunRecord:
        """Let the judgement stand, unless the run is known: a repeat is answered with what stands, nothing runs twice.

        A later attempt begins where the earlier ones were refused here, or were given to another node, and count no more. What a
        person here has said of those counts for it, too.
        """
        for known in records.attempts_of(connection, judged.record.run_id):
            if known.attempt == judged.record.attempt:
                return records.reopen_run(connection, known)
            judged = _following(connection, judged, known)
        judged = within_quotas(self._station, judged, connection)
        record = judged.record
        if judged.refusal is not None:
            record = refuse(self._station, judged)
        elif all(inline):
            records.put_envelope(connection, *inline)
        records.insert_run(connection, record)
        return record

    # ---- everything else ----

    def _cancel(self, cancel: Cancel) -> Change:
        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            if not cancel.attempt:
                records.cancel_run(connection, cancel.run_id)
            elif not records.fence_run(connection, cancel.run_id, cancel.attempt):
                return lambda: None
            return lambda: self._runs.cancel(cancel.run_id)

        return change

    def _drop(self, unwanted: DropDataframes) -> Change | None:
        """Forget dataframes in the same step as the delivery is journaled; their files go behind it, or at the next start."""
        if not is_uuid(unwanted.session_id):
            return None

        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            dataframe_records.drop(connection, unwanted.session_id, unwanted.name)
            return lambda: self._station.dataframes.drop_soon(unwanted.session_id, unwanted.name)

        return change

    async def _message(self, message: PeerMessage) -> Change | None:
        content = None
        if not self._waits(message.to_run_id):
            is_right, content = await self._check(message)
            if not is_right:
                return None

        def change(connection: sqlite3.Connection) -> Callable[[], None]:
            is_new = message_records.insert_incoming(connection, message)
            return lambda: self._runs.message_arrived(message, content if is_new else None)

        return change

    def _waits(self, run_id: str) -> bool:
        """Whether a run is not decided yet: what comes for it is kept, and checked when it is."""
        judged = self._judged.get(run_id)
        if judged is None:
            return self._runs.waits(run_id)
        return not judged.decided and self._runs.task_of(run_id) is None

    async def _check(self, message: PeerMessage) -> tuple[bool, SendMessageRequest | None]:
        """Whether a message is believed, and what it says; nothing, while the key is awaited that it is sealed to."""
        judged = self._judged.get(message.to_run_id)
        task = (judged.task if judged else None) or self._runs.task_of(message.to_run_id)
        if task is None or task.receiver(message.to_run_id).organization_id != self._station.organization_id:
            log.info("message.dropped", run_id=message.to_run_id, cause="the run is not under way here")
            return False, None
        try:
            return True, await check_message(self._station, task, message)
        except TrustError as error:
            cause = error.cause_text if isinstance(error, EnvelopeRejected) else error.message
            log.warning("message.rejected", run_id=message.to_run_id, sequence=message.sequence, cause=cause)
            return False, None


def _following(connection: sqlite3.Connection, judged: Judgement, former: RunRecord) -> Judgement:
    """A judgement of an attempt, as it is in the light of a former one of the same run."""
    declined = decision_records.declined(connection, former)
    if declined is not None:
        return replace(judged, refusal=refused(declined, "journal"))
    if former.state != RunState.RUN_STATE_REFUSED and former.cancelled != records.FENCED:
        return replace(judged, refusal=refused(ErrorReason.ERROR_REASON_RUN_CONFLICT, "journal"))
    if former.hold == HELD_BY_PERSON:
        return replace(judged, record=replace(judged.record, hold=HELD_BY_PERSON))
    return judged


def _apply(connection: sqlite3.Connection, changes: Sequence[Change], last: int) -> list[Callable[[], None]]:
    afterwards = [change(connection) for change in changes]
    records.acknowledge(connection, last)
    return afterwards


def _inline(record: RunRecord, envelope: bytes) -> tuple[bytes, bytes]:
    """An input that came along, under the name by which it is looked for; nothing, where there is none."""
    if record.decided or not envelope:
        return record.input_digest, envelope
    try:
        return inspect(BytesSource(envelope)).digest, envelope
    except EnvelopeRejected:
        return b"", b""
