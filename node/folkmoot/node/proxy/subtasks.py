"""Subtasks: tasks that a run creates at its node, in the name of the organization on whose node it runs.

Creating one is egress: it needs the signed grant and the policy's word. Its inputs are sealed as they come in, its spec is signed with
the node's key, and all of it is journaled under (run, key) before the server hears of it: the same key again is the same subtask, also
after a restart. Results are believed as `results` says.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing
from typing import TypeVar

from folkmoot.node.journal import subtask_records
from folkmoot.node.journal.records import StoredEnvelope
from folkmoot.node.journal.subtask_records import SubtaskRecord
from folkmoot.node.policy.granted import as_granted, bare_grant
from folkmoot.node.proxy.portions import Portions
from folkmoot.node.proxy.results import read_result, watch_ends
from folkmoot.node.proxy.sender import Sender
from folkmoot.node.station import Station
from folkmoot.node.trust.sightings import in_task, require_no_contradiction
from folkmoot.transport import INLINE_BYTES, timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.tracing import record_task
from folkmoot.trust import (
    EnvelopeRejected,
    FolkmootError,
    TaskAheadOfLedger,
    TaskNotProven,
    VerifiedTask,
    sign_subtask,
    timestamp,
    uuid7,
    verify_task,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import RunResult, SubtaskHead
from folkmoot.v1.task_pb2 import Dependency, Initiator, Parent, Receiver, SessionUse, TaskChain, TaskInputRef, TaskSpec
from folkmoot.v1.task_service_pb2 import (
    CancelTaskRequest,
    CreateTaskRequest,
    GetRunRequest,
    GetTaskRequest,
    WatchTaskResponse,
)

_Result = TypeVar("_Result")

INPUT_CONTENT_TYPE = "application/vnd.folkmoot.input"
INLINE_TOTAL_BYTES = 8 * INLINE_BYTES
"""What a CreateTask carries of inputs, of the 4 MiB that a message may have."""


class Subtasks:
    """The subtasks of one run, and the tasks that its own depends on."""

    def __init__(self, station: Station, run: Sender) -> None:
        self._station = station
        self._run = run
        self._creating = asyncio.Lock()
        self._verified: dict[str, VerifiedTask] = {}

    async def create(self, head: SubtaskHead, content: AsyncIterator[bytes]) -> str:
        """Create a subtask, once per key; return its id when the server has it."""
        async with self._creating:
            portions = Portions(content)
            run = self._run.record
            known = await self._transact(lambda db: subtask_records.subtask_by_key(db, run, head.key))
            if known is None:
                self._require_granted(head)
                known = await self._make(head, portions)
            elif known.request_digest != await portions.request_digest(head):
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_REPEAT_DIFFERS, f"the key {head.key!r} names another subtask of this run"
                )
            await self._send(known)
            return known.task_id

    async def watch(self, task_id: str, after_revision: int) -> AsyncGenerator[RunResult | bytes, None]:
        """Stream results of a subtask as its runs end."""
        task = await self._own(task_id)
        async with aclosing(self._ends(task, after_revision)) as ends:
            while True:
                async with self._run.waiting_for_others():
                    end = await anext(ends, None)
                if end is None:
                    return
                async with aclosing(read_result(self._station, task, end.run, end.result_envelope)) as frames:
                    async for frame in frames:
                        yield frame

    async def _ends(self, task: VerifiedTask, after_revision: int) -> AsyncGenerator[WatchTaskResponse, None]:
        """Stream the ends of a subtask's runs. A server that has lost it, since it was restored from a backup, gets it again.

        The task above it may have to come back first, from whoever made that: until then this waits.
        """
        told: set[str] = set()
        attempt = 0
        while True:
            try:
                if attempt:
                    await self._send_again(task.spec.task_id)
                async with aclosing(watch_ends(self._station, task, after_revision)) as ends:
                    async for end in ends:
                        if end.run.run_id not in told:
                            told.add(end.run.run_id)
                            yield end
            except FolkmootError as error:
                if error.reason != ErrorReason.ERROR_REASON_TASK_NOT_FOUND:
                    raise
            else:
                return
            attempt += 1
            await asyncio.sleep(pause_seconds(attempt))

    async def cancel(self, task_id: str) -> None:
        """Cancel a subtask."""
        await self._own(task_id)
        connection = self._station.connection
        request = CancelTaskRequest(task_id=task_id)
        await connection.call(
            lambda: connection.tasks.CancelTask(request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS)
        )

    async def read_dependency(self, task_id: str) -> AsyncGenerator[RunResult | bytes, None]:
        """Stream what a task that this one depends on gave to this organization."""
        task = await self._dependency(task_id)
        if self._station.organization_id not in task.spec.result_receivers:
            return
        connection = self._station.connection
        for receiver in task.spec.receivers:
            request = GetRunRequest(run_id=receiver.run_id)
            answer = await connection.call(
                lambda request=request: connection.tasks.GetRun(  # type: ignore[misc]
                    request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
                )
            )
            if answer.run.run_id != receiver.run_id:
                raise EnvelopeRejected(f"the server gave the run {answer.run.run_id} in place of {receiver.run_id}")
            async with aclosing(read_result(self._station, task, answer.run, answer.result_envelope)) as frames:
                async for frame in frames:
                    yield frame

    # ---- creating ----

    def _require_granted(self, head: SubtaskHead) -> None:
        grant = self._run.task.spec.grant
        if not grant.subtask_depth:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED,
                "the task was created without the right to create subtasks",
            )
        self._run.require_allowed()
        size_bytes, most = sum(portion.size_bytes for portion in head.inputs), self._run.record.result_limit_bytes
        if size_bytes > most:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_TOO_LARGE,
                f"the inputs have {size_bytes} bytes; what leaves at once has at most {most} by the node's policy, as a result has",
            )
        for organization_id in (*head.organization_ids, *head.result_receivers):
            self._station.state.member(organization_id)

    async def _make(self, head: SubtaskHead, portions: Portions) -> SubtaskRecord:
        """Seal the inputs, sign the spec, verify it as receivers will, journal it."""
        run, number = self._run.record, self._run.task.spec.grant.subtask_number
        task_id = uuid7(self._station.now(), self._station.random)
        with ExitStack() as dropping:
            stored = [
                await self._seal_input(task_id, portion.organization_ids or head.organization_ids, content, dropping)
                for portion, content in portions.cut(head.inputs)
            ]
            spec = await self._spec(head, task_id, _references(head, stored))
            chain = run.task_chain()
            chain.specs.append(sign_subtask(spec, self._station.node_key))
            task = self._verify(chain)
            record = SubtaskRecord(
                key=head.key,
                task_id=task_id,
                request_digest=await portions.request_digest(head),
                chain=chain.SerializeToString(),
                inputs=b"".join(envelope.digest for envelope in stored),
                created=0,
            )
            dropping_refused = dropping.pop_all()
        departures = [
            self._station.departure(
                EnvelopeKind.ENVELOPE_KIND_INPUT,
                envelope.digest,
                envelope.size_bytes,
                portion.organization_ids or head.organization_ids,
            )
            for portion, envelope in zip(head.inputs, stored, strict=True)
        ]
        try:
            async with self._run.leaving():
                await self._transact(
                    lambda db: subtask_records.insert_subtask(db, run, record, stored, departures, granted=number)
                )
                failpoint("node.subtask.journaled")
                self._run.left(sum(envelope.size_bytes for envelope in stored))
        except FolkmootError:
            dropping_refused.close()
            raise
        self._verified[task_id] = task
        return record

    async def _seal_input(
        self, task_id: str, organization_ids: Iterable[str], content: AsyncIterator[bytes], dropping: ExitStack
    ) -> StoredEnvelope:
        """Seal an input, which `dropping` forgets: nothing of a subtask that is refused stays on the disk."""
        sealing = self._station.sealing(self._input_context(task_id), tuple(organization_ids))
        envelope = await self._station.envelopes.seal(content, sealing)
        dropping.callback(self._station.envelopes.forget, envelope.digest)
        return envelope

    def _verify(self, chain: TaskChain) -> VerifiedTask:
        try:
            return verify_task(chain, self._station.state, now=self._station.now())
        except TaskNotProven as error:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED, error.message, metadata=error.metadata
            ) from error

    def _input_context(self, task_id: str) -> EnvelopeContext:
        context = self._station.context(
            EnvelopeKind.ENVELOPE_KIND_INPUT, self._run.record, content_type=INPUT_CONTENT_TYPE
        )
        context.task_id = task_id
        for field in ("task_digest", "run_id", "attempt"):
            context.ClearField(field)
        return context

    async def _spec(self, head: SubtaskHead, task_id: str, inputs: list[TaskInputRef]) -> TaskSpec:
        station, record, parent = self._station, self._run.record, self._run.task
        now = station.now()
        return TaskSpec(
            version=1,
            genesis=station.state.genesis,
            task_id=task_id,
            job_id=parent.spec.job_id,
            name=head.name,
            initiator=Initiator(organization_id=station.organization_id),
            parent=Parent(
                task_id=record.task_id, task_digest=parent.digest, run_id=record.run_id, attempt=record.attempt
            ),
            study=parent.spec.study,
            image=as_granted([head.image], parent.spec)[0] if head.HasField("image") else parent.spec.image,
            inputs=inputs,
            receivers=[
                Receiver(organization_id=organization_id, run_id=uuid7(now, station.random))
                for organization_id in head.organization_ids
            ],
            result_receivers=head.result_receivers or (station.organization_id,),
            depends_on=[
                Dependency(task_id=each, task_digest=(await self._own(each)).digest) for each in head.depends_on
            ],
            labels=head.labels,
            scratch=head.scratch,
            session=_session(head, parent.spec.session.session_id),
            resources=head.resources if head.HasField("resources") else None,
            max_attempts=parent.spec.max_attempts,
            grant=bare_grant(head.grant, parent.spec) if head.HasField("grant") else None,
            purpose=parent.spec.purpose,
            created_at=timestamp(now),
            expires_at=parent.spec.expires_at,
            ledger_position=station.state.position.message(),
        )

    async def _send(self, record: SubtaskRecord) -> None:
        """Bring a journaled subtask to the server, as often as it takes."""
        if not record.created:
            await self._create(record)

    async def _send_again(self, task_id: str) -> None:
        """Bring a subtask once more to a server that has lost it."""
        run = self._run.record
        record = await self._transact(lambda db: subtask_records.subtask_by_task(db, run, task_id))
        if record is not None:
            await self._create(record)

    async def _create(self, record: SubtaskRecord) -> None:
        station = self._station
        began_at = station.now().timestamp()
        request = CreateTaskRequest(chain=TaskChain.FromString(record.chain))
        inline_bytes = 0
        with ExitStack() as closing:
            for input_digest in record.input_digests:
                source = await station.envelopes.open(input_digest, closing)
                if source is None:
                    raise FileNotFoundError(input_digest.hex())
                inline_bytes += source.size_bytes
                if source.size_bytes <= INLINE_BYTES and inline_bytes <= INLINE_TOTAL_BYTES:
                    request.envelopes.append(source.read_at(0, source.size_bytes))
                else:
                    await station.connection.upload(source, input_digest)
        connection = station.connection
        await connection.call(
            lambda: connection.tasks.CreateTask(request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS)
        )
        failpoint("node.subtask.created")
        if station.tracer is not None:
            record_task(station.tracer, TaskSpec.FromString(request.chain.specs[-1].body), began_at=began_at)
        await self._transact(lambda db: subtask_records.subtask_created(db, record.task_id))

    # ---- finding ----

    async def _transact(self, change: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await self._station.journal.transact(change)

    async def _own(self, task_id: str) -> VerifiedTask:
        """A subtask of this run, which the server has."""
        if task_id not in self._verified:
            run = self._run.record
            record = await self._transact(lambda db: subtask_records.subtask_by_task(db, run, task_id))
            if record is None:
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_TASK_NOT_FOUND, f"the task {task_id} is not a subtask of this run"
                )
            await self._send(record)
            self._verified[task_id] = verify_task(TaskChain.FromString(record.chain), self._station.state, now=None)
        return self._verified[task_id]

    async def _dependency(self, task_id: str) -> VerifiedTask:
        """A task that this one depends on: exactly the one that the spec names, of the same job."""
        spec = self._run.task.spec
        digests = {each.task_id: each.task_digest for each in spec.depends_on}
        if task_id not in digests:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_TASK_NOT_FOUND, f"this task does not depend on the task {task_id}"
            )
        connection = self._station.connection
        answer = await connection.call(
            lambda: connection.tasks.GetTask(
                GetTaskRequest(task_id=task_id), metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
            )
        )
        try:
            task = verify_task(answer.chain, self._station.state, now=None)
        except TaskAheadOfLedger:
            await self._station.catch_up()
            task = verify_task(answer.chain, self._station.state, now=None)
        except TaskNotProven:
            require_no_contradiction(self._station, in_task(answer.chain, self._station.state))
            raise
        if task.digest != digests[task_id] or task.spec.job_id != spec.job_id:
            raise TaskNotProven(f"the server gave another task than the dependency {task_id}")
        return task


def _session(head: SubtaskHead, session_id: str) -> SessionUse | None:
    """What a subtask does with its parent's session."""
    if not head.dataframes and not head.leaves_dataframe:
        return None
    return SessionUse(session_id=session_id, dataframes=head.dataframes, leaves=head.leaves_dataframe)


def _references(head: SubtaskHead, stored: Sequence[StoredEnvelope]) -> list[TaskInputRef]:
    """The inputs as the spec names them."""
    return [
        TaskInputRef(
            organization_ids=portion.organization_ids, envelope_digest=envelope.digest, size_bytes=envelope.size_bytes
        )
        for portion, envelope in zip(head.inputs, stored, strict=True)
    ]
