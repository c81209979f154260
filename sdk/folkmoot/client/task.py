"""A task's handle: its results as they arrive, why it waits, its logs, how to cancel it.

The handle holds the verified task: what was asked, of whom, with which runs. The server only tells how far each is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal, Unpack

from folkmoot.client.approvals import Approval, approvals_of
from folkmoot.client.connection import Connection
from folkmoot.client.logs import LogLine, run_log
from folkmoot.client.names import name_of
from folkmoot.client.opening import as_proven, progress_of, result_of
from folkmoot.client.progress import nothing, shown
from folkmoot.client.repeating import Changes, asked_before
from folkmoot.client.results import Proof, Result, RunState, run_state
from folkmoot.client.session import is_away
from folkmoot.client.submission import Submission
from folkmoot.client.waiting import Why, why
from folkmoot.transport import RemoteError
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import OrganizationNotFound, State, VerifiedTask
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_service_pb2 import (
    CancelTaskRequest,
    DeletePayloadsRequest,
    DeleteTaskRequest,
    GetTaskRequest,
    GetTaskResponse,
    PayloadKind,
    WatchTaskRequest,
)


class TaskState(StrEnum):
    """States of a task, derived from its runs."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


def task_state(value: int) -> TaskState:
    """The contract's state as ours."""
    return TaskState(task_pb2.TaskState.Name(task_pb2.TaskState.ValueType(value)).removeprefix("TASK_STATE_"))


@dataclass(frozen=True)
class Deleted:
    """What has gone from the server, as it tells it."""

    envelopes: int
    size_bytes: int


@dataclass(frozen=True)
class RunStatus:
    """How far one organization's run is."""

    organization: str
    organization_id: str
    run_id: str
    node_id: str
    """The node that has it, as the server tells it."""
    attempt: int
    state: RunState
    proven: Proof
    """Whether the node signed that it ended so; a state in between is always the server's word."""
    fraction: float
    """How far the algorithm is, 0 to 1, as the server tells it."""
    progress: str
    """What it last said of that; sealed to the result's receivers and verified, empty if there is nothing to read."""
    approvals: tuple[Approval, ...]
    """What people at its station decided about it, signed by its node; known when it has ended."""


class AsyncTask:
    """A task that exists. Made by `tasks.create` and `tasks.get`.

    A server that has lost the task, because it was restored from a backup, gets it again from the handle that `tasks.create` gave,
    whatever is asked of that: see `submission`. One from `tasks.get` has nothing to give, and raises TASK_NOT_FOUND then.
    """

    def __init__(self, connection: Connection, task: VerifiedTask, submission: Submission | None = None) -> None:
        self._connection = connection
        self._task = task
        self._submission = submission
        self._results: dict[str, Result] = {}

    @property
    def id(self) -> str:
        """The task's id."""
        return self._task.spec.task_id

    @property
    def job_id(self) -> str:
        """The job: the id of its first task."""
        return self._task.spec.job_id

    @property
    def digest(self) -> bytes:
        """SHA-256 of what was signed: what later tasks of the job refer to."""
        return self._task.digest

    @property
    def name(self) -> str:
        """A few words for people."""
        return self._task.spec.name

    @property
    def spec(self) -> task_pb2.TaskSpec:
        """All that was signed."""
        return self._task.spec

    @property
    async def state(self) -> TaskState:
        """How the task stands, as the server tells it."""
        return task_state((await self._get()).task.state)

    @property
    async def runs(self) -> tuple[RunStatus, ...]:
        """How far each organization is: proven for a run that has ended, as the server tells it before."""
        ledger = await self._connection.state()
        return tuple([await self._status(ledger, run) for run in await self._own_runs()])

    async def _status(self, ledger: State, told: task_pb2.Run) -> RunStatus:
        run, proven = await as_proven(self._connection, self._task, told)
        return RunStatus(
            organization=self._organization(ledger, run),
            organization_id=self._task.receiver(run.run_id).organization_id,
            run_id=run.run_id,
            node_id=run.node_id,
            attempt=run.attempt,
            state=run_state(run.state),
            proven=proven,
            fraction=run.fraction,
            progress=await progress_of(self._connection, self._task, run),
            approvals=await approvals_of(self._connection, self._task, told),
        )

    async def results(self) -> AsyncIterator[Result]:
        """Yield each organization's result when it has ended, over restarts of the server and cuts, for as long as it takes.

        Raises FolkmootError only for what concerns the whole task; how a run ended, and whether its result was accepted, is in
        its Result.
        """
        for result in list(self._results.values()):
            yield result
        async for run, envelope in self._changes():
            if run_state(run.state).ended:
                yield await self._result(run, envelope)

    async def wait(self, *, progress: bool = True) -> list[Result]:
        """Wait until all runs have ended; gives the results in the order of `organizations`. Shows progress on a terminal."""
        runs = [receiver.run_id for receiver in self._task.spec.receivers]
        fractions = dict.fromkeys(runs, 0.0) | dict.fromkeys(self._results, 1.0)
        notes: dict[str, str] = {}
        ledger = await self._connection.state()
        with shown(self.name or self.id, len(runs)) if progress else nullcontext(nothing) as show:
            show(sum(fractions.values()), "")
            async for run, envelope in self._changes():
                ended = run_state(run.state).ended
                if ended:
                    await self._result(run, envelope)
                fractions[run.run_id] = 1.0 if ended else min(run.fraction, 1.0)
                notes[run.run_id] = await self._note(ledger, run)
                show(sum(fractions.values()), "; ".join(filter(None, notes.values())))
        return [self._results[run_id] for run_id in runs]

    async def why(self) -> list[Why]:
        """Say for each run that is not completed what it waits for, as the server tells it, or how it ended, proven if it is."""
        ledger = await self._connection.state()
        reasons = [await self._why(ledger, run) for run in await self._own_runs()]
        return [reason for reason in reasons if reason is not None]

    async def _why(self, ledger: State, told: task_pb2.Run) -> Why | None:
        run, proven = await as_proven(self._connection, self._task, told)
        return why(self._organization(ledger, run), run, now=datetime.now(UTC), proven=proven)

    async def repeat(self, /, **changes: Unpack[Changes]) -> "AsyncTask":
        """Make the task again, with what `tasks.create` takes where it is to be different: a new task, signed and sealed anew.

        Image, function, arguments, organizations and all else are those of this one. Its arguments can be had if its input was sealed to
        the own organization; otherwise `function` and `arguments` have to be given. Raises what `tasks.create` raises.
        """
        from folkmoot.client.tasks import AsyncTasks

        return await AsyncTasks(self._connection).create(**await asked_before(self._connection, self._task, changes))

    async def cancel(self) -> None:
        """Cancel the task and all below it; runs that have ended stay as they are."""
        session = self._connection.session
        await session.call(session.tasks.CancelTask, CancelTaskRequest(task_id=self.id))

    async def delete(self) -> None:
        """Delete the task, which has ended, with all below it: runs, receipts, logs, payloads. Export a proof before if one is wanted.

        Raises TASK_NOT_ENDED, HAS_DEPENDENTS while later tasks depend on it.
        """
        session = self._connection.session
        await session.call(session.tasks.DeleteTask, DeleteTaskRequest(task_id=self.id))
        self._submission = None  # what was deleted is not given back to the server

    async def delete_payloads(self, *kinds: Literal["input", "result", "log"]) -> Deleted:
        """Delete what is sealed of the task, which has ended, and of all below it; of certain kinds, or all. Specs and receipts stay.

        Raises TASK_NOT_ENDED.
        """
        session = self._connection.session
        named = [PayloadKind.Value(f"PAYLOAD_KIND_{kind.upper()}") for kind in dict.fromkeys(kinds)]
        request = DeletePayloadsRequest(task_id=self.id, kinds=named)
        answer = await session.call(session.tasks.DeletePayloads, request)
        return Deleted(answer.deleted, answer.deleted_bytes)

    async def logs(self, organization: str, *, follow: bool = False) -> AsyncIterator[LogLine]:
        """Stream what the algorithm logged at an organization: as far as it is there, or, if followed, until the run ends."""
        member = await self._connection.member(organization)
        for receiver in self._task.spec.receivers:
            if receiver.organization_id == member.organization_id:
                async for line in run_log(self._connection, self._task, receiver.run_id, member.name, follow=follow):
                    yield line
                return
        raise OrganizationNotFound(f"The task {self.id} is not for {member.name}.")

    async def _note(self, ledger: State, run: task_pb2.Run) -> str:
        """What is to be said of a run while others are waited for: how it ended, what it waits for, what it says itself."""
        organization = self._organization(ledger, run)
        reason = await self._why(ledger, run)
        if reason is not None and (reason.reason or reason.state.ended):
            return str(reason)
        text = await progress_of(self._connection, self._task, run)
        return f"{organization}: {text}" if text else ""

    # ---- what the server tells, held against what was signed -------------------------------------------------------

    async def _get(self) -> GetTaskResponse:
        session, request = self._connection.session, GetTaskRequest(task_id=self.id)
        try:
            return await session.call(session.tasks.GetTask, request)
        except RemoteError as error:
            await self._submit_again(error)
        return await session.call(session.tasks.GetTask, request)

    async def _submit_again(self, error: RemoteError) -> None:
        """Give the task to a server that says that there is none; raise anything else, and this too if there is nothing to give."""
        if self._submission is None or error.reason != ErrorReason.ERROR_REASON_TASK_NOT_FOUND:
            raise error
        await self._submission.hand_over_again(self._connection, self.id)

    async def _own_runs(self) -> list[task_pb2.Run]:
        told = {run.run_id: run for run in (await self._get()).runs}
        return [told[one.run_id] for one in self._task.spec.receivers if one.run_id in told]

    async def _changes(self) -> AsyncIterator[tuple[task_pb2.Run, bytes]]:
        """Runs as they change, with the envelopes that come along, until all have ended. Runs that were not asked for don't count."""
        session = self._connection.session
        waiting = {receiver.run_id for receiver in self._task.spec.receivers} - self._results.keys()
        revision, endings, lost = 0, 0, False

        async def request() -> WatchTaskRequest:
            nonlocal revision
            if revision and (await self._get()).task.revision < revision:
                revision = 0  # The server was restored from a backup, and counts from there.
            return WatchTaskRequest(task_id=self.id, after_revision=revision)

        while waiting:
            try:
                async for change in session.follow(session.tasks.WatchTask, request):
                    revision = change.run.revision
                    if change.run.run_id not in waiting:
                        continue
                    endings, lost = 0, False
                    if run_state(change.run.state).ended:
                        waiting.remove(change.run.run_id)
                    yield change.run, change.result_envelope
            except RemoteError as error:
                if lost:  # It got the task again, and has shown nothing of it: that would go on for ever.
                    raise
                await self._submit_again(error)
                revision, lost = 0, True
                continue
            if waiting:  # It ended too early: the server restarts, or has told something else in place of an end.
                endings, revision = endings + 1, 0
                await asyncio.sleep(pause_seconds(endings))

    async def _result(self, run: task_pb2.Run, envelope: bytes) -> Result:
        """Make and keep a run's result; a server that is away just now is waited for."""
        attempt = 0
        while True:
            try:
                self._results[run.run_id] = await result_of(self._connection, self._task, run, envelope)
                return self._results[run.run_id]
            except RemoteError as error:
                if not is_away(error):
                    raise
                attempt += 1
                await asyncio.sleep(pause_seconds(attempt))

    def _organization(self, ledger: State, run: task_pb2.Run) -> str:
        return name_of(ledger, self._task.receiver(run.run_id).organization_id)
