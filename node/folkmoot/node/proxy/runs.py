"""A run as its algorithm sees it: the node's side of every call that comes through the proxy.

Promises: what `write_result` or `write_failure` returned from stands, whatever happens afterwards: it is sealed, on disk, and signed for
in a receipt. The first one stands; the same content again is answered the same, other content is refused. Everything that an algorithm
says is sealed to exactly the task's result receivers. Of a run that is held, nothing that its algorithm says leaves: its last word waits,
sealed a second time to the own organization, until a person has looked at it (`held`), and its log and progress are dropped.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from datetime import timedelta

import structlog

from folkmoot.node.execution.outcomes import COMPLETED, FAILED, Outcome
from folkmoot.node.execution.slots import Slot
from folkmoot.node.journal import decision_records, records
from folkmoot.node.journal.records import RunRecord, StoredEnvelope, moment
from folkmoot.node.link.reports import Reports
from folkmoot.node.people.held import end_run, must_be_looked_at, require_room
from folkmoot.node.policy.verdict import Refused
from folkmoot.node.proxy.inputs import RunInput
from folkmoot.node.proxy.measured import Measured, digest_of
from folkmoot.node.proxy.messages import Messages
from folkmoot.node.proxy.result_envelopes import seal_failure, seal_result
from folkmoot.node.proxy.results import pieces
from folkmoot.node.proxy.run_dataframes import RunDataframes
from folkmoot.node.proxy.subtasks import Subtasks
from folkmoot.node.station import Station
from folkmoot.node.storage.egress import Departure
from folkmoot.node.traces import CallTraces
from folkmoot.node.waiting import Gate
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.failures import FAILURE_CONTENT_TYPE
from folkmoot.trust import FolkmootError, VerifiedTask, digest, timestamp
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame
from folkmoot.v1.proxy_service_pb2 import (
    Failure,
    Folder,
    GetContextResponse,
    LogLines,
    Peer,
    ReceiveMessagesResponse,
    ReceiveUntil,
    RunResult,
    SendMessageRequest,
    SubtaskHead,
)
from folkmoot.v1.task_pb2 import Isolation, WaitReason

log = structlog.get_logger()


class Run:
    """One run at this station; implements `ports.RunPort`."""

    def __init__(
        self,
        station: Station,
        record: RunRecord,
        task: VerifiedTask,
        *,
        isolation: Isolation.ValueType,
        send: Callable[[NodeFrame], None],
    ) -> None:
        self.station = station
        self.record = record
        self.task = task
        self.closing = ExitStack()
        self.ended = asyncio.Event()
        self.unwanted = asyncio.Event()
        self.input: RunInput | None = None
        self.scratch_path = ""
        self.folders: tuple[Folder, ...] = ()
        self.dataframes = RunDataframes(station, self)
        pool = station.central_slots if task.spec.grant.subtask_depth else station.slots
        self.slot = Slot(pool, task.spec.task_id)
        self.reports = Reports(station, self, send)
        self.messages = Messages(station, self, send)
        self._subtasks = Subtasks(station, self)
        self._calls = CallTraces(station.tracer)
        self._isolation = isolation
        self.ending = asyncio.Lock()
        self._leaving = Gate()
        self._ends = False

    # ---- what it is ----

    @property
    def run_name(self) -> str:
        """See RunPort."""
        return self.record.run_name

    @property
    def labels(self) -> tuple[str, ...]:
        """See RunPort."""
        return (*self.task.spec.labels, *self.task.spec.session.dataframes)

    @property
    def minimum_rows(self) -> int:
        """See RunPort."""
        return self.record.minimum_rows

    def called(self, method: str, *, began_at: float, failed: str) -> None:
        """See RunPort."""
        self._calls.record(self.record, method, began_at=began_at, failed=failed)

    @property
    def function(self) -> str:
        """What of the image is called."""
        return self._input().head.function

    @property
    def result_receivers(self) -> tuple[str, ...]:
        """Who may read what it says."""
        return tuple(self.task.spec.result_receivers)

    @property
    def held(self) -> bool:
        """Whether a person looks at what it says before it leaves."""
        return bool(self.record.hold)

    def hold(self) -> None:
        """A person at the station wants to look at what it says before it leaves. Raises NOT_WAITING when that is too late."""
        if self._ends:
            raise FolkmootError(ErrorReason.ERROR_REASON_NOT_WAITING, "the run's result is leaving: it can't be held")
        self.record = dataclasses.replace(self.record, hold=decision_records.HELD_BY_PERSON)

    def require_allowed(self) -> None:
        """Raise FolkmootError if the run has ended, or the policy in force does not allow what it is any more."""
        self._require_open()
        function = self.input.head.function if self.input else None
        signers = (
            self.station.signatures.signers(self.task.spec.image) if self.station.policy_file.signer_keys else None
        )
        decision = self.station.decide(self.task, function=function, image_signers=signers, reads=self.dataframes.read)
        if isinstance(decision, Refused):
            raise FolkmootError(decision.reason, f"the node's policy does not allow it any more: {decision.rule}")

    def _require_open(self) -> None:
        if self.record.stands or self._leaving.closed:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_TASK_ENDED,
                "the run has ended, and its receipt says what has left the station: nothing more leaves",
            )

    # ---- what it is given ----

    async def context(self) -> GetContextResponse:
        """See RunPort."""
        spec, state, given = self.task.spec, self.station.state, self._input()
        began = moment(self.record.started_at_us)
        return GetContextResponse(
            task_id=spec.task_id,
            job_id=spec.job_id,
            run_id=self.record.run_id,
            attempt=self.record.attempt,
            organization=self._peer(self.station.organization_id),
            members=sorted((self._peer(each) for each in state.members), key=lambda peer: peer.name),
            siblings=[self._peer(receiver.organization_id) for receiver in spec.receivers],
            initiator=self._peer(spec.initiator.organization_id),
            input=given.head,
            attachments_offset=given.attachments_offset,
            labels=spec.labels,
            depends_on=[dependency.task_id for dependency in spec.depends_on],
            resources=spec.resources,
            grant=spec.grant,
            scratch_path=self.scratch_path,
            minimum_rows=self.record.minimum_rows,
            folders=self.folders,
            module=spec.image.process.module,
            dataframes=spec.session.dataframes,
            leaves_dataframe=spec.session.leaves,
            deadline=timestamp(began + timedelta(seconds=self.record.run_time_seconds)),
        )

    async def read_input(self, offset: int) -> AsyncGenerator[bytes, None]:
        """See RunPort."""
        opened = self._input().opened
        if offset > opened.total_length:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_INVALID_FIELD, f"the input has {opened.total_length} bytes, not {offset}"
            )
        async for piece in pieces(opened, offset):
            yield piece

    def _input(self) -> RunInput:
        if self.input is None:
            raise FolkmootError(ErrorReason.ERROR_REASON_INPUT_REJECTED, "the run has no input")
        return self.input

    def _peer(self, organization_id: str) -> Peer:
        return Peer(organization_id=organization_id, name=self.station.state.organization_name(organization_id))

    # ---- what others have to do with it ----

    def read_dependency(self, task_id: str) -> AsyncGenerator[RunResult | bytes, None]:
        """See RunPort."""
        return self._subtasks.read_dependency(task_id)

    async def create_subtask(self, head: SubtaskHead, content: AsyncIterator[bytes]) -> str:
        """See RunPort."""
        return await self._subtasks.create(head, content)

    def watch_subtask(self, task_id: str, after_revision: int) -> AsyncGenerator[RunResult | bytes, None]:
        """See RunPort."""
        return self._subtasks.watch(task_id, after_revision)

    async def cancel_subtask(self, task_id: str) -> None:
        """See RunPort."""
        await self._subtasks.cancel(task_id)

    async def send_message(self, request: SendMessageRequest) -> None:
        """See RunPort."""
        await self.messages.send(request)

    async def send_messages(self, requests: Sequence[SendMessageRequest]) -> int:
        """See RunPort."""
        return await self.messages.send_some(requests)

    async def take_messages(self, cursors: Mapping[str, int]) -> list[ReceiveMessagesResponse]:
        """See RunPort."""
        return await self.messages.take(cursors)

    def receive_messages(
        self, cursors: Mapping[str, int], *, until: ReceiveUntil.ValueType = ReceiveUntil.RECEIVE_UNTIL_UNSPECIFIED
    ) -> AsyncGenerator[ReceiveMessagesResponse, None]:
        """See RunPort."""
        return self.messages.receive(cursors, until=until)

    @asynccontextmanager
    async def waiting_for_others(self) -> AsyncGenerator[None, None]:
        """Lend the slot while the run waits for subtasks or siblings, and take one again before it goes on."""
        async with self.slot.lent(), self.reports.waiting(WaitReason.WAIT_REASON_OTHERS):
            yield

    # ---- what it says ----

    async def report_progress(self, fraction: float, text: str) -> None:
        """See RunPort."""
        await self.reports.progress(fraction, text)

    async def log(self, lines: LogLines) -> None:
        """See RunPort."""
        await self.reports.log(lines)

    async def count_report(self, departure: Departure, **counters: int) -> None:
        """Keep how far log or progress has come, and let an envelope leave."""
        self.record = record = dataclasses.replace(self.record, **counters)  # type: ignore[arg-type]
        self.left(departure.size_bytes)
        try:
            await self.station.journal.transact(lambda db: records.count_reports(db, record, departure))
        except FolkmootError:  # It does not fit into the quota.
            self.left(-departure.size_bytes)
            raise

    @asynccontextmanager
    async def leaving(self) -> AsyncGenerator[None, None]:
        """Journal something that leaves, before the run's end does; raise FolkmootError where that stands already."""
        self._require_open()
        async with self._leaving.passing():
            yield

    def left(self, bytes_out: int) -> None:
        """So many sealed bytes have left, and are counted in the journal."""
        self.record = dataclasses.replace(self.record, bytes_out=self.record.bytes_out + bytes_out)

    # ---- how it ends ----

    async def write_result(self, content_type: str, content: AsyncIterator[bytes]) -> None:
        """See RunPort."""
        measured = Measured(content, content_type, self.record.result_limit_bytes)
        async with self.ending:
            if self.record.stands:
                async for _ in measured:
                    pass
            else:
                stored, look = await seal_result(self, aiter(measured), content_type)
                failpoint("node.result.sealed")
                await require_room(self.station, self.record, stored)
                try:
                    await self._end(COMPLETED, stored, measured.digest, look, measured.size_bytes)
                except FolkmootError:  # No room any more: it is written again, and sealed anew.
                    for envelope in filter(None, (stored, look)):
                        self.station.envelopes.forget(envelope.digest)
                    raise
            self._require_written(measured.digest)

    async def write_dataframe(self, content: AsyncIterator[bytes]) -> int:
        """See RunPort."""
        return await self.dataframes.write(content)

    async def write_failure(self, message: str, reason: int) -> None:
        """See RunPort."""
        failure = Failure(message=message, reason=ErrorReason.ValueType(reason))
        content_digest = digest_of(FAILURE_CONTENT_TYPE, digest(failure.SerializeToString(deterministic=True)))
        async with self.ending:
            if not self.record.stands:
                await self._end_with(FAILED, failure, content_digest)
            self._require_written(content_digest)

    async def end(self, outcome: Outcome) -> RunRecord:
        """Let the run end without a word of the algorithm; if it had the last word already, that stands."""
        async with self.ending:
            if self.record.stands:
                return self.record
            if outcome.text:
                await self._end_with(outcome, Failure(message=outcome.text, reason=outcome.text_reason), b"")
            else:
                await self._end(outcome, None, b"")
            return self.record

    async def _end_with(self, outcome: Outcome, failure: Failure, content_digest: bytes) -> None:
        """End with what is said of a failure."""
        stored = seal_failure(self, failure, self.result_receivers)
        look = seal_failure(self, failure, (self.station.organization_id,)) if self.held else None
        await self._end(outcome, stored, content_digest, look, failure.ByteSize())

    async def _end(
        self,
        outcome: Outcome,
        stored: StoredEnvelope | None,
        content_digest: bytes,
        look: StoredEnvelope | None = None,
        held_bytes: int = 0,
    ) -> None:
        """Let an end stand together with what it names; of a held run only until a person has looked at it."""
        await self.reports.close()
        await self._leaving.close()
        ending = dataclasses.replace(
            self.record,
            content_digest=content_digest,
            result_digest=stored.digest if stored else b"",
            result_size_bytes=stored.size_bytes if stored else 0,
        )
        if must_be_looked_at(self.record, outcome, self._isolation):
            if outcome == COMPLETED and look is None:
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_SHUTTING_DOWN,
                    "a person at the station wants to look at the result, which was on its way: write it again",
                )
            holding = dataclasses.replace(
                ending,
                held_state=outcome.state,
                held_exit_class=outcome.exit_class,
                held_bytes=held_bytes,
                look_digest=look.digest if look else b"",
            )
            envelopes = tuple(each for each in (stored, look) if each)
            self.record = await self.station.journal.transact(
                lambda db: decision_records.hold_run(db, holding, envelopes)
            )
            failpoint("node.result.held")
        else:
            self._ends = True
            try:
                isolation = self._isolation
                self.record = await end_run(self.station, ending, self.task, outcome, isolation=isolation, new=stored)
            finally:
                self._ends = False
        failpoint("node.result.journaled")
        self.ended.set()

    def _require_written(self, content_digest: bytes) -> None:
        if self.record.content_digest != content_digest:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_RESULT_WRITTEN, "the run has ended otherwise before, and that stands"
            )
