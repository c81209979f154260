"""TaskService: tasks and runs, how they are made, watched and ended, and the links of nodes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import grpc.aio
from sqlalchemy import Connection

from folkmoot.server import context, pages
from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core, wait_for
from folkmoot.server.nodes import checks
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.nodes.frames import taken_together
from folkmoot.server.nodes.link import LinkSession
from folkmoot.server.store import endings, new_tasks, searches, views
from folkmoot.server.store.links import Link
from folkmoot.server.store.new_tasks import Begun, Wanted
from folkmoot.server.store.removal_rows import Deleted
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import commits, creation, deletion
from folkmoot.server.tasks.deletion import Removals
from folkmoot.server.wakers import task_topic
from folkmoot.transport.batches import batches
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.timeouts import HEARTBEAT_SECONDS
from folkmoot.transport.tracing import run_span, task_span
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.link_pb2 import NodeFrame
from folkmoot.v1.task_pb2 import Run, Task, TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2_grpc import TaskServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]

LOG_LINES_AT_ONCE = 16
LOOK_AGAIN_SECONDS = 5.0
"""How long a stream goes on without another look at whether its reader may see what it tells."""


class TaskService(TaskServiceServicer):
    """Stores and forwards; it can read none of it."""

    def __init__(self, core: Core, dispatch: Dispatch, removals: Removals) -> None:
        self._core = core
        self._dispatch = dispatch
        self._removals = removals
        self._create = dispatch.joint(self._store)

    # ---- tasks -----------------------------------------------------------------------------------------------------

    async def CreateTask(self, request: pb.CreateTaskRequest, _rpc: Context) -> pb.CreateTaskResponse:
        caller, now = context.caller(), self._core.clock()
        state = await self._core.ledgers.state_for_caller(creation.genesis_of(request.chain), or_former=True)
        new = creation.check(request, caller=caller, state=state, now=now)
        context.is_about(task_span(new.spec.job_id, new.spec.task_id))
        data = {"task_id": new.spec.task_id, "digest": new.verified.digest.hex()}
        event = events.prepare(intent="task.create", data=data, now=now, genesis=state.genesis)
        task, runs = await self._create(Wanted(new, event))
        failpoint("server.task.committed")
        return pb.CreateTaskResponse(task=task, runs=runs)

    def _store(self, connection: Connection, touched: Touched, wanted: Sequence[Wanted]) -> list[Begun]:
        begun = new_tasks.store(connection, wanted, touched, self._core.quota)
        failpoint("server.task.stored")
        return begun

    async def CheckTask(self, request: pb.CheckTaskRequest, _rpc: Context) -> pb.CheckTaskResponse:
        caller, now = context.caller(), self._core.clock()
        self._dispatch.checks.allow(caller)
        state = await self._core.ledgers.state_for_caller(creation.genesis_of(request.chain), or_former=True)
        new = creation.check_question(request, caller=caller, state=state, now=now)
        record = events.prepare(
            intent="task.check", data={"digest": new.verified.digest.hex()}, now=now, genesis=state.genesis
        )

        def work(connection: Connection) -> Mapping[str, Link]:
            new_tasks.check_above(connection, new)
            record(connection)
            return checks.whom_to_ask(connection, new.spec)

        chosen = await self._core.store.write(work)
        sessions = {each: self._dispatch.session_of(link) for each, link in chosen.items()}
        nodes = {each: (chosen[each].node_id, session) for each, session in sessions.items() if session is not None}
        return pb.CheckTaskResponse(verdicts=await self._dispatch.checks.ask(new, nodes))

    async def GetTask(self, request: pb.GetTaskRequest, _rpc: Context) -> pb.GetTaskResponse:
        caller = context.caller()

        def work(connection: Connection) -> pb.GetTaskResponse:
            row = views.find_task(connection, caller, request.task_id)
            task, runs = views.with_runs(connection, caller, row)
            return pb.GetTaskResponse(task=task, chain=TaskChain.FromString(row.chain), runs=runs)

        return await self._core.store.read(work)

    async def ListTasks(self, request: pb.ListTasksRequest, _rpc: Context) -> pb.ListTasksResponse:
        caller, size = context.caller(), pages.size(request.page_size)
        after = pages.position("tasks", request.page_token, int)

        def work(connection: Connection) -> pb.ListTasksResponse:
            wanted = searches.of_tasks(connection, request)
            if after:
                wanted.append(task_table.c.position < after[0])
            rows = views.tasks_page(connection, caller, *wanted, most=size + 1)
            tasks = views.task_messages(connection, rows[:size])
            return pb.ListTasksResponse(tasks=tasks, next_page_token=_next_page("tasks", rows, size))

        return await self._core.store.read(work)

    async def CancelTask(self, request: pb.CancelTaskRequest, _rpc: Context) -> pb.CancelTaskResponse:
        caller, now, task_id = context.caller(), self._core.clock(), request.task_id
        record = events.prepare(intent="task.cancel", data={"task_id": task_id}, now=now)

        def work(connection: Connection, touched: Touched) -> tuple[Task, list[Run]]:
            row = views.find_task(connection, caller, task_id, views.DELETE)
            if caller.kind == options.CALLER_NODE:
                spec = TaskSpec.FromString(TaskChain.FromString(row.chain).specs[-1].body)
                new_tasks.held_run(connection, spec.parent, caller)
            endings.cancel_tree(connection, task_id, now=now, touched=touched)
            record(connection)
            return views.task_and_runs(connection, caller, task_id)

        task, runs = await self._dispatch.write(work)
        failpoint("server.cancellation.committed")
        return pb.CancelTaskResponse(task=task, runs=runs)

    async def DeleteTask(self, request: pb.DeleteTaskRequest, _rpc: Context) -> pb.DeleteTaskResponse:
        caller, now, task_id, quota = context.caller(), self._core.clock(), request.task_id, self._core.quota
        author = events.author(now=now)

        def work(connection: Connection, touched: Touched) -> list[str]:
            gone = deletion.delete_task(connection, caller, task_id, now=now, quota=quota, touched=touched)
            if gone:
                author("task.delete", {"task_id": task_id, "deleted_tasks": len(gone)})(connection)
            failpoint("server.deletion.stored")
            return gone

        gone = await self._dispatch.write(work)
        self._removals.hurry()
        return pb.DeleteTaskResponse(deleted_tasks=len(gone))

    async def DeletePayloads(self, request: pb.DeletePayloadsRequest, _rpc: Context) -> pb.DeletePayloadsResponse:
        caller, now, task_id, quota = context.caller(), self._core.clock(), request.task_id, self._core.quota
        author = events.author(now=now)

        def work(connection: Connection) -> Deleted:
            gone = deletion.delete_payloads(connection, caller, task_id, request.kinds, now=now, quota=quota)
            data = {"task_id": task_id, "envelopes": gone.envelopes, "size_bytes": gone.size_bytes}
            author("payload.delete", data)(connection)
            return gone

        gone = await self._core.store.write(work)
        self._removals.hurry()
        return pb.DeletePayloadsResponse(deleted=gone.envelopes, deleted_bytes=gone.size_bytes)

    async def WatchTask(self, request: pb.WatchTaskRequest, _rpc: Context) -> AsyncIterator[pb.WatchTaskResponse]:
        caller, task_id, revision = context.caller(), request.task_id, request.after_revision
        seen = _Seen(self._core, lambda connection: views.find_task(connection, caller, task_id))
        await seen.look()
        stirred = asyncio.Event()
        with self._dispatch.waker.listen(task_topic(task_id), stirred.set):
            while True:
                stirred.clear()
                changes = await self._core.store.read(
                    lambda connection: views.changes(connection, caller, task_id, revision)  # noqa: B023
                )
                if changes.runs:
                    await seen.look_again()
                for run, envelope in changes.runs:
                    self._dispatch.fetched.count(caller.organization_id, len(envelope))
                    yield pb.WatchTaskResponse(run=run, result_envelope=envelope)
                    revision = run.revision
                if changes.ended:
                    return
                if not changes.more:
                    await wait_for(
                        stirred,
                        draining=self._core.draining,
                        at_most_seconds=self._core.waker.poll_seconds,
                    )

    # ---- runs ------------------------------------------------------------------------------------------------------

    async def GetRun(self, request: pb.GetRunRequest, _rpc: Context) -> pb.GetRunResponse:
        caller = context.caller()

        def work(connection: Connection) -> pb.GetRunResponse:
            row = views.find_run(connection, caller, request.run_id)
            (run,) = views.run_messages(connection, caller, [row])
            envelopes = views.result_envelopes(connection, caller, [row])
            return pb.GetRunResponse(run=run, result_envelope=envelopes.get(run.run_id, b""))

        answer = await self._core.store.read(work)
        self._dispatch.fetched.count(caller.organization_id, len(answer.result_envelope))
        return answer

    async def ListRuns(self, request: pb.ListRunsRequest, _rpc: Context) -> pb.ListRunsResponse:
        caller, size = context.caller(), pages.size(request.page_size)
        after = pages.position("runs", request.page_token, int)

        def work(connection: Connection) -> pb.ListRunsResponse:
            wanted = searches.of_runs(connection, request)
            if after:
                wanted.append(run_table.c.position < after[0])
            rows = views.runs_page(connection, caller, *wanted, most=size + 1)
            runs = views.run_messages(connection, caller, rows[:size])
            return pb.ListRunsResponse(runs=runs, next_page_token=_next_page("runs", rows, size))

        return await self._core.store.read(work)

    async def WatchRunLog(self, request: pb.WatchRunLogRequest, _rpc: Context) -> AsyncIterator[pb.WatchRunLogResponse]:
        caller, run_id, position = context.caller(), request.run_id, request.after_position
        seen = _Seen(self._core, lambda connection: views.find_run(connection, caller, run_id))
        row = await seen.look()
        if not views.receives(caller, row):
            raise views.run_not_found(run_id)
        stirred = asyncio.Event()
        with self._dispatch.waker.listen(task_topic(row.task_id), stirred.set):
            while True:
                stirred.clear()
                lines, ended = await self._core.store.read(
                    lambda connection: views.log_lines(connection, run_id, position, most=LOG_LINES_AT_ONCE)  # noqa: B023
                )
                if lines:
                    await seen.look_again()
                for line in lines:
                    yield line
                    position = line.position
                if not lines:
                    if ended:
                        return
                    await wait_for(
                        stirred,
                        draining=self._core.draining,
                        at_most_seconds=self._core.waker.poll_seconds,
                    )

    async def CommitRun(self, request: pb.CommitRunRequest, _rpc: Context) -> pb.CommitRunResponse:
        caller, now, run_id = context.caller(), self._core.clock(), commits.run_id_of(request.receipt)
        chain = await self._core.store.read(lambda connection: commits.find_chain(connection, caller, run_id))
        state = await self._core.ledgers.state(caller.genesis)
        ending = commits.check(request, chain, caller=caller, state=state, now=now)
        context.is_about(run_span(ending.job_id, run_id, ending.receipt.attempt))
        data = {"run_id": run_id, "outcome": ending.outcome, "result_digest": ending.receipt.result_digest.hex()}
        record = events.prepare(intent="run.commit", data=data, now=now, genesis=caller.genesis)

        def work(connection: Connection, touched: Touched) -> Run:
            if commits.store(connection, ending, caller, touched, self._core.quota):
                record(connection)
            failpoint("server.commit.stored")
            return views.run(connection, caller, run_id)

        run = await self._dispatch.write(work)
        failpoint("server.commit.committed")
        return pb.CommitRunResponse(run=run)

    # ---- links -----------------------------------------------------------------------------------------------------

    async def Attach(self, request: AsyncIterator[pb.AttachRequest], rpc: Context) -> AsyncIterator[pb.AttachResponse]:
        session = self._dispatch.open(context.caller())
        # This generator is not closed at once when its node is gone; the stubs take the callback for a class of theirs.
        rpc.add_done_callback(lambda _rpc: session.end())  # type: ignore[arg-type]
        listening = asyncio.create_task(session.listen(_node_frames(request)))
        try:
            while (frames := await session.next_frames(HEARTBEAT_SECONDS)) or not session.over:
                for first, *more in batches(frames or session.idle()):
                    yield pb.AttachResponse(frame=first, more=more)
                    failpoint("server.delivery.sent")
        finally:
            listening.cancel()
            session.end()

    async def Exchange(self, request: pb.ExchangeRequest, _rpc: Context) -> pb.ExchangeResponse:
        session = self._session(context.caller(), request.session_id)
        async with session.turn:
            try:
                for frames in taken_together(request.frames):
                    await session.handle(frames)
            except Exception as error:
                session.end(error)
                raise
            session.rewind()
            due = await session.next_frames(request.wait_milliseconds / 1000)
        return pb.ExchangeResponse(frames=due)

    def _session(self, caller: Caller, session_id: str) -> LinkSession:
        return self._dispatch.find(caller, session_id) if session_id else self._dispatch.open(caller)


class _Seen:
    """Whether a watcher may see still what he watches: streams outlast memberships. `find` raises if he may not."""

    def __init__(self, core: Core, find: Callable[[Connection], AnyRow]) -> None:
        self._core = core
        self._find = find
        self._at = 0.0

    async def look(self) -> AnyRow:
        """Return the row."""
        self._at = time.monotonic()
        return await self._core.store.read(self._find)

    async def look_again(self) -> None:
        """Look again if the last time was some seconds ago."""
        if time.monotonic() - self._at >= LOOK_AGAIN_SECONDS:
            await self.look()


async def _node_frames(requests: AsyncIterator[pb.AttachRequest]) -> AsyncIterator[Sequence[NodeFrame]]:
    async for request in requests:
        yield [request.frame, *request.more]


def _next_page(name: str, rows: Sequence[AnyRow], size: int) -> str:
    return pages.token(name, rows[size - 1].position) if len(rows) > size else ""
