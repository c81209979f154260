"""ProxyService: what an algorithm can reach, on its run's own socket, and nothing else.

Each run has its own server on its own socket, so the socket is the identity. Handlers are thin: the contract's field rules
and the limits of `limiter` first, then one call of the run's port, then the answer. What the port refuses is answered with
its reason; anything else is our fault, stands in the node's log, and tells the algorithm nothing.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import structlog
from google.protobuf.message import Message

from folkmoot.node.data.tables import table_not_found
from folkmoot.node.proxy.limiter import Limiter
from folkmoot.node.proxy.ports import RunPort, Tables
from folkmoot.node.proxy.sockets import prepare_folder
from folkmoot.transport.limits import FRAME_BYTES, INLINE_BYTES, MESSAGE_BYTES
from folkmoot.transport.requests import ReadsAll, check, check_readable
from folkmoot.transport.status import abort
from folkmoot.transport.validation import invalid, validate
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceServicer, add_ProxyServiceServicer_to_server

OPEN_CALLS = 2000
CONNECTIONS = 64
"""Of one run: each takes a descriptor of the node's, and an algorithm has more to spare than the node."""

HANDSHAKE_MILLISECONDS = 10_000
CLOSE_SECONDS = 5.0
LOG_LINES = 1000

_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MILLISECONDS),
)

_log = structlog.get_logger("folkmoot.node.proxy.service")
_Context = grpc.aio.ServicerContext[Any, Any]
_Frame = TypeVar("_Frame", pb.WriteResultRequest, pb.WriteDataframeRequest, pb.CreateSubtaskRequest)
_Written = TypeVar("_Written", pb.WriteResultRequest, pb.WriteDataframeRequest)
_Item = TypeVar("_Item")
_Assignment = asyncio.Future[tuple[RunPort, Tables]]


class Proxy:
    """Serves ProxyService, one socket per run; implements `ports.ProxyPort`."""

    def __init__(self) -> None:
        self._served: dict[str, tuple[grpc.aio.Server, ProxyServicer]] = {}
        self._waiting: dict[str, _Assignment] = {}

    async def open(self, port: RunPort, tables: Tables, directory: Path) -> None:
        """Serve a run. If a warm worker waits behind the socket, its run is this one."""
        assignment = self._waiting.pop(directory.name, None)
        if assignment is None:
            await self.reserve(directory)
            assignment = self._waiting.pop(directory.name)
        assignment.set_result((port, tables))
        if port.labels:
            tables.expect_reads()

    async def reserve(self, directory: Path) -> None:
        """Bind a socket for a run that is not known yet: calls wait until `open` names it."""
        await self.close(directory.name)
        path = prepare_folder(directory)
        assignment: _Assignment = asyncio.get_running_loop().create_future()
        server = grpc.aio.server(interceptors=(ReadsAll(),), options=_OPTIONS, maximum_concurrent_rpcs=OPEN_CALLS)
        servicer = ProxyServicer(assignment, directory.name)
        add_ProxyServiceServicer_to_server(servicer, server)
        server.add_insecure_port(f"unix:{path}")
        await server.start()
        path.chmod(0o666)
        self._served[directory.name] = server, servicer
        self._waiting[directory.name] = assignment

    async def close(self, run_name: str) -> None:
        """Unbind a run's socket, and see its calls end with all that they had open.

        The run's folder stays: a container that survives this process still has it mounted.
        """
        if assignment := self._waiting.pop(run_name, None):
            assignment.cancel()
        if run_name in self._served:
            server, servicer = self._served.pop(run_name)
            await server.stop(grace=None)
            with suppress(TimeoutError):
                await asyncio.wait_for(servicer.idle.wait(), CLOSE_SECONDS)


class ProxyServicer(ProxyServiceServicer):
    """The calls of one run."""

    def __init__(self, assignment: _Assignment, run_name: str) -> None:
        self._assignment = assignment
        self._run_name = run_name
        self._refusals: Counter[tuple[str, str]] = Counter()
        self._limiter = Limiter(time.monotonic)
        self._open_calls = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def GetContext(self, request: pb.GetContextRequest, context: _Context) -> pb.GetContextResponse:
        async with self._call("GetContext", context, request) as (port, _):
            answer = await port.context()
            _log.info("run.context_given", run_id=answer.run_id, toolkit=request.toolkit)
            return answer

    async def ReadInput(self, request: pb.ReadInputRequest, context: _Context) -> AsyncIterator[pb.ReadInputResponse]:
        async with (
            self._call("ReadInput", context, request) as (port, _),
            _closing(port.read_input(request.offset)) as frames,
        ):
            async for data in frames:
                yield pb.ReadInputResponse(data=data)

    async def ListTables(self, request: pb.ListTablesRequest, context: _Context) -> pb.ListTablesResponse:
        async with self._call("ListTables", context, request) as (port, tables):
            return pb.ListTablesResponse(tables=await tables.list_tables(port.labels))

    async def ReadTable(self, request: pb.ReadTableRequest, context: _Context) -> AsyncIterator[pb.ReadTableResponse]:
        async with self._call("ReadTable", context, request) as (port, tables):
            if request.label not in port.labels:
                raise table_not_found(request.label, port.labels)
            async with _closing(tables.read(request, minimum_rows=port.minimum_rows)) as frames:
                async for data in frames:
                    yield pb.ReadTableResponse(data=data)

    async def Query(self, request: pb.QueryRequest, context: _Context) -> AsyncIterator[pb.QueryResponse]:
        async with self._call("Query", context, request) as (port, tables):
            if request.label not in port.labels:
                raise table_not_found(request.label, port.labels)
            async with _closing(tables.query(request, minimum_rows=port.minimum_rows)) as frames:
                async for data in frames:
                    yield pb.QueryResponse(data=data)

    async def ReadDependency(
        self, request: pb.ReadDependencyRequest, context: _Context
    ) -> AsyncIterator[pb.ReadDependencyResponse]:
        async with (
            self._call("ReadDependency", context, request) as (port, _),
            _closing(port.read_dependency(request.task_id)) as frames,
        ):
            async for frame in frames:
                if isinstance(frame, bytes):
                    yield pb.ReadDependencyResponse(data=frame)
                else:
                    yield pb.ReadDependencyResponse(run=frame)

    async def CreateSubtask(
        self, request_iterator: AsyncIterator[pb.CreateSubtaskRequest], context: _Context
    ) -> pb.CreateSubtaskResponse:
        async with self._call("CreateSubtask", context) as (port, _):
            frames = _readable(request_iterator)
            head = (await _first(frames, "head")).head
            content = _subtask_content(frames, sum(part.size_bytes for part in head.inputs))
            return pb.CreateSubtaskResponse(task_id=await port.create_subtask(head, content))

    async def WatchSubtask(
        self, request: pb.WatchSubtaskRequest, context: _Context
    ) -> AsyncIterator[pb.WatchSubtaskResponse]:
        async with (
            self._call("WatchSubtask", context, request) as (port, _),
            _closing(port.watch_subtask(request.task_id, request.after_revision)) as frames,
        ):
            async for frame in frames:
                if isinstance(frame, bytes):
                    yield pb.WatchSubtaskResponse(data=frame)
                else:
                    yield pb.WatchSubtaskResponse(run=frame)

    async def CancelSubtask(self, request: pb.CancelSubtaskRequest, context: _Context) -> pb.CancelSubtaskResponse:
        async with self._call("CancelSubtask", context, request) as (port, _):
            await port.cancel_subtask(request.task_id)
            return pb.CancelSubtaskResponse()

    async def SendMessage(self, request: pb.SendMessageRequest, context: _Context) -> pb.SendMessageResponse:
        async with self._call("SendMessage", context, request) as (port, _):
            await port.send_message(request)
            return pb.SendMessageResponse()

    async def SendMessages(self, request: pb.SendMessagesRequest, context: _Context) -> pb.SendMessagesResponse:
        async with self._call("SendMessages", context, request) as (port, _):
            if len(request.messages) > 1 and request.ByteSize() > FRAME_BYTES:
                raise _too_large(f"at most {FRAME_BYTES} bytes of messages in one call")
            return pb.SendMessagesResponse(journaled=await port.send_messages(request.messages))

    async def TakeMessages(self, request: pb.TakeMessagesRequest, context: _Context) -> pb.TakeMessagesResponse:
        async with self._call("TakeMessages", context, request) as (port, _):
            cursors = {cursor.organization_id: cursor.after_sequence for cursor in request.cursors}
            return pb.TakeMessagesResponse(messages=await port.take_messages(cursors))

    async def ReceiveMessages(
        self, request: pb.ReceiveMessagesRequest, context: _Context
    ) -> AsyncIterator[pb.ReceiveMessagesResponse]:
        async with self._call("ReceiveMessages", context, request) as (port, _):
            cursors = {cursor.organization_id: cursor.after_sequence for cursor in request.cursors}
            async with _closing(port.receive_messages(cursors, until=request.until)) as messages:
                async for message in messages:
                    yield message

    async def WriteResult(
        self, request_iterator: AsyncIterator[pb.WriteResultRequest], context: _Context
    ) -> pb.WriteResultResponse:
        async with self._call("WriteResult", context) as (port, _):
            frames = _readable(request_iterator)
            head = (await _first(frames, "head")).head
            await port.write_result(head.content_type, _digested(frames))
            return pb.WriteResultResponse()

    async def WriteDataframe(
        self, request_iterator: AsyncIterator[pb.WriteDataframeRequest], context: _Context
    ) -> pb.WriteDataframeResponse:
        async with self._call("WriteDataframe", context) as (port, _):
            content = _digested(_readable(request_iterator))
            return pb.WriteDataframeResponse(rows=await port.write_dataframe(content))

    async def WriteFailure(self, request: pb.WriteFailureRequest, context: _Context) -> pb.WriteFailureResponse:
        async with self._call("WriteFailure", context, request) as (port, _):
            await port.write_failure(request.message, request.reason)
            return pb.WriteFailureResponse()

    async def ReportProgress(self, request: pb.ReportProgressRequest, context: _Context) -> pb.ReportProgressResponse:
        async with self._call("ReportProgress", context, request) as (port, _):
            if not 0 <= request.fraction <= 1:
                raise invalid([("fraction", "must be between 0 and 1")])
            await port.report_progress(request.fraction, request.text)
            return pb.ReportProgressResponse()

    async def Log(self, request: pb.LogRequest, context: _Context) -> pb.LogResponse:
        async with self._call("Log", context, request) as (port, _):
            if len(request.log.lines) > LOG_LINES or request.ByteSize() > INLINE_BYTES:
                raise _too_large(f"at most {LOG_LINES} lines and {INLINE_BYTES} bytes of log in one call")
            await port.log(request.log)
            return pb.LogResponse()

    def _note(self, call: str, error: FolkmootError) -> None:
        """Log a refusal by its reason: the first, the tenth, the hundredth of a kind, so that refusals fill no log."""
        kind = call, ErrorReason.Name(ErrorReason.ValueType(error.reason or 0))
        self._refusals[kind] += 1
        if str(self._refusals[kind]).strip("0") == "1":
            _log.warning("proxy.refused", run=self._run_name, call=call, reason=kind[1], times=self._refusals[kind])

    @asynccontextmanager
    async def _call(
        self, name: str, context: _Context, request: Message | None = None
    ) -> AsyncIterator[tuple[RunPort, Tables]]:
        self._open_calls += 1
        self.idle.clear()
        began_at, failed = time.time(), ""
        try:
            with self._limiter.call(name) as wait_seconds:
                if wait_seconds:
                    await asyncio.sleep(wait_seconds)
                if request is not None:
                    check(request)
                yield await asyncio.shield(self._assignment)
        except FolkmootError as error:
            failed = error.reason_name
            self._note(name, error)
            await abort(context, error)
        except Exception:  # noqa: BLE001 - whatever it is, the algorithm is not told
            failed = "INTERNAL"
            _log.exception("proxy.call_failed", call=name)
            await abort(context, FolkmootError(ErrorReason.ERROR_REASON_INTERNAL, "the node's log says what happened"))
        finally:
            if self._assignment.done() and not self._assignment.cancelled():
                self._assignment.result()[0].called(name, began_at=began_at, failed=failed)
            self._open_calls -= 1
            if not self._open_calls:
                self.idle.set()


async def _readable(requests: AsyncIterator[_Frame]) -> AsyncIterator[_Frame]:
    """Give the messages of a stream; what is not one is the algorithm's fault, not the node's."""
    async for request in requests:
        check_readable(request)
        yield request


async def _first(requests: AsyncIterator[_Frame], kind: str) -> _Frame:
    """Return the message that opens a stream, checked by its field rules."""
    async for request in requests:
        if request.WhichOneof("frame") != kind:
            break
        validate(request)
        return request
    raise _broken(f"the first message must be the {kind}")


async def _digested(requests: AsyncIterator[_Written]) -> AsyncIterator[bytes]:
    """Give the bytes of a result, or a dataframe; raise unless the digest of exactly these bytes ends the stream."""
    seen = hashlib.sha256()
    async for request in requests:
        match request.WhichOneof("frame"):
            case "data":
                seen.update(request.data)
                yield _bounded(request.data)
            case "digest" if request.digest == seen.digest():
                return
            case "digest":
                raise FolkmootError(ErrorReason.ERROR_REASON_MALFORMED, "the digest is not that of the bytes that came")
            case _:
                raise _broken("first come bytes, and then the digest")
    raise _broken("the stream ended without its digest: nothing was written")


async def _subtask_content(requests: AsyncIterator[pb.CreateSubtaskRequest], size_bytes: int) -> AsyncIterator[bytes]:
    """Give the bytes of a subtask's inputs; raise unless they are as many as the head says."""
    missing_bytes = size_bytes
    async for request in requests:
        if request.WhichOneof("frame") != "data":
            raise _broken("after the head come bytes, and nothing else")
        missing_bytes -= len(request.data)
        if missing_bytes < 0:
            break
        yield _bounded(request.data)
    if missing_bytes:
        raise _broken(f"the head says {size_bytes} bytes, but {size_bytes - missing_bytes} came")


def _bounded(data: bytes) -> bytes:
    if len(data) > FRAME_BYTES:
        raise _too_large(f"a message carries at most {FRAME_BYTES} bytes")
    return data


@asynccontextmanager
async def _closing(frames: AsyncIterator[_Item]) -> AsyncIterator[AsyncIterator[_Item]]:
    """End a port's stream when its call ends, not when it is collected as garbage."""
    try:
        yield frames
    finally:
        if isinstance(frames, AsyncGenerator):
            await frames.aclose()


def _broken(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION, text)


def _too_large(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)
