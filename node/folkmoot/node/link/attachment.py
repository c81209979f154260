"""The link to the server: attach, take deliveries, acknowledge them when they are journaled, send what has to be sent, attach again.

The protocol stands in link.proto. Two wires carry the same frames: a stream (Attach) and, for sites whose proxies end streams, unary
calls (Exchange). What is in the way is logged once and tried again with growing, jittered pauses; a link gives up only when it is proven
that the node's admission has ended.

Trap: a timeout around `call.read()` would cancel the whole stream. A task of its own reads into a queue; only the queue is timed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import grpc.aio
import structlog

from folkmoot.node.link.connection import Connection
from folkmoot.node.waiting import cancelled, first_of
from folkmoot.transport import error_from_rpc, timeouts
from folkmoot.transport.batches import batches
from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.storage import DiskFull
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Bye, Heartbeat, NodeFrame, ServerFrame, Welcome
from folkmoot.v1.task_service_pb2 import AttachRequest, AttachResponse, ExchangeRequest

PROTOCOL = 1
SILENT_INTERVALS = 3
MAX_BATCH = 100
EXCHANGE_WAIT_MILLISECONDS = 1000
FAREWELL_SECONDS = 1.0
MOST_WAITING = 256
"""Frames that may wait to be sent. What runs tell beyond that is dropped: an algorithm writes logs faster than a slow line takes them."""

TURNED_AWAY = (ErrorReason.ERROR_REASON_NODE_NOT_APPROVED, ErrorReason.ERROR_REASON_NOT_A_MEMBER)

REPLACED_PAUSES = 6
"""Where another process uses the node's key, the two would throw each other out for ever: wait this many pauses each time."""

DISK_FULL_ATTEMPT = 6
"""A node that can't journal what it is given attaches as rarely as one that has tried so often: each time leaves a trace at the server."""

log = structlog.get_logger()


class Receiver(Protocol):
    """What a link hands its frames to."""

    async def hello(self) -> NodeFrame:
        """The first frame of a session, with what is acknowledged."""

    async def welcome(self, welcome: Welcome) -> Sequence[NodeFrame]:
        """A session has begun; return what has to be sent again."""

    async def deliver(self, frames: Sequence[ServerFrame]) -> int:
        """Journal deliveries, some of which may have come before; return up to which one everything is journaled."""

    async def tell(self, frame: ServerFrame) -> None:
        """Take any other frame; must not take long."""

    async def turned_away(self, refusal: FolkmootError) -> None:
        """The server says that the node does not belong here; raise NodeNotApproved if that is proven."""


class Wire(Protocol):
    """Carries frames in one session. Raises AioRpcError, or Gone when the server ends the session."""

    async def send(self, frames: Sequence[NodeFrame]) -> None:
        """Send frames."""

    async def receive(self) -> Sequence[ServerFrame]:
        """Wait for frames; there may be none."""


class Gone(Exception):  # noqa: N818 - says what is the case
    """The other side is silent, or ends the session on purpose."""


class Link:
    """A node's link. `run` it until `stop`; `send` what is worth sending now; `attached` waits for a session."""

    def __init__(self, connection: Connection, *, wire: str) -> None:
        self._connection = connection
        self._open_wire = stream_wire if wire == "stream" else exchange_wire
        self._outgoing: asyncio.Queue[NodeFrame] = asyncio.Queue()
        self._is_attached = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended_sessions = 0
        self.failures = 0
        """Sessions that broke, or could not begin."""

    @property
    def sessions(self) -> int:
        """Sessions that have begun."""
        return self._ended_sessions + self._is_attached.is_set()

    @property
    def is_attached(self) -> bool:
        """Whether there is a session now."""
        return self._is_attached.is_set()

    async def attached(self) -> None:
        """Wait until there is a session."""
        await self._is_attached.wait()

    def send(self, frame: NodeFrame) -> None:
        """Send a frame in the present session; without one it is dropped: the next session begins with what counts."""
        if self._is_attached.is_set() and (self._outgoing.qsize() < MOST_WAITING or not frame.HasField("run_update")):
            self._outgoing.put_nowait(frame)

    def stop(self) -> None:
        """Say goodbye and end `run`."""
        self._stopping.set()

    async def run(self, receiver: Receiver) -> None:
        """Keep a session until `stop`."""
        attempt, told = 0, ""
        while not self._stopping.is_set():
            try:
                await self._session(receiver)
                continue
            except grpc.aio.AioRpcError as rpc_error:
                error: FolkmootError | Gone = error_from_rpc(rpc_error, server=self._connection.address.target)
            except (FolkmootError, Gone) as refusal:
                error = refusal
            except Exception:
                # One server can send what nobody foresees; the node goes on, and with it its other collaborations.
                log.exception("node.link_fault")
                error = Gone("the server sent what can't be taken in")
            self.failures += 1
            self._ended_sessions += self._is_attached.is_set()
            attempt = 1 if self._is_attached.is_set() else attempt + 1
            self._is_attached.clear()
            if isinstance(error, FolkmootError) and error.reason in TURNED_AWAY:
                await receiver.turned_away(error)
            pause = self._explain(error, attempt, repeated=str(error) == told)
            told = str(error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _explain(self, error: FolkmootError | Gone, attempt: int, *, repeated: bool) -> float:
        """Say once what is in the way, and return how long to wait."""
        reason = error.reason if isinstance(error, FolkmootError) else ErrorReason.ERROR_REASON_UNSPECIFIED
        tell = log.debug if repeated else log.warning
        if reason == ErrorReason.ERROR_REASON_SESSION_REPLACED:
            tell("node.session_replaced", detail="another process uses this node's key: stop one of the two")
            return REPLACED_PAUSES * pause_seconds(attempt + REPLACED_PAUSES)
        if reason == ErrorReason.ERROR_REASON_TOKEN_INVALID:
            self._connection.refuse_token()
        tell("node.link_ended", detail=str(error))
        return pause_seconds(DISK_FULL_ATTEMPT if isinstance(error, DiskFull) else attempt)

    async def _session(self, receiver: Receiver) -> None:
        """One session, from Hello to its end. Returns when the link is to stop; raises what ends it otherwise."""
        await first_of(self._connection.authenticated(), self._stopping.wait())
        if self._stopping.is_set():
            return
        hello = await receiver.hello()
        self._outgoing = asyncio.Queue()
        async with self._open_wire(self._connection) as wire:
            await _Session(wire, receiver, self._outgoing, self._is_attached, hello.acknowledged).run(
                hello, self._stopping
            )


class _Session:
    """One session on one wire: whoever of the two sides has something gets its turn."""

    def __init__(
        self,
        wire: Wire,
        receiver: Receiver,
        outgoing: asyncio.Queue[NodeFrame],
        is_attached: asyncio.Event,
        acknowledged: int,
    ) -> None:
        self._wire = wire
        self._receiver = receiver
        self._outgoing = outgoing
        self._is_attached = is_attached
        self._acknowledged = acknowledged
        self._interval_seconds = timeouts.HEARTBEAT_SECONDS
        self._loop = asyncio.get_running_loop()
        self._heard = self._said = self._loop.time()

    async def run(self, hello: NodeFrame, stopping: asyncio.Event) -> None:
        """Say hello, then take turns until the link is to stop."""
        await self._wire.send([hello])
        stop = asyncio.create_task(stopping.wait())
        receiving = asyncio.create_task(self._receive())
        sending = asyncio.create_task(self._outgoing.get())
        try:
            while not stop.done():
                due = min(self._said + self._interval_seconds, self._heard + SILENT_INTERVALS * self._interval_seconds)
                timeout = max(0.0, due - self._loop.time())
                await asyncio.wait({stop, receiving, sending}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if receiving.done():
                    await self._take(receiving.result())
                    receiving = asyncio.create_task(self._receive())
                if sending.done():
                    await self._say(sending.result())
                    sending = asyncio.create_task(self._outgoing.get())
                await self._show_life()
            await self._say(NodeFrame(bye=Bye()))
        finally:
            await cancelled(stop, receiving, sending)

    async def _receive(self) -> Sequence[ServerFrame]:
        return await self._wire.receive()

    async def _show_life(self) -> None:
        now = self._loop.time()
        if now - self._heard >= SILENT_INTERVALS * self._interval_seconds:
            raise Gone("the server is silent")
        if now - self._said >= self._interval_seconds:
            await self._say(NodeFrame(heartbeat=Heartbeat()))

    async def _say(self, *frames: NodeFrame) -> None:
        """Send frames, with all that waits behind them; each carries the acknowledgement."""
        batch = list(frames)
        while len(batch) < MAX_BATCH and not self._outgoing.empty():
            batch.append(self._outgoing.get_nowait())
        for frame in batch:
            frame.acknowledged = self._acknowledged
        self._said = self._loop.time()
        await self._wire.send(batch)

    async def _take(self, frames: Sequence[ServerFrame]) -> None:
        """Take frames in order; deliveries that came together are journaled together and acknowledged at once."""
        self._heard = self._loop.time()
        deliveries = []
        for frame in frames:
            if frame.sequence:
                deliveries.append(frame)
            else:
                await self._control(frame)
        if deliveries:
            if not self._is_attached.is_set():
                raise _violation("a delivery came before Welcome")
            self._acknowledged = await self._receiver.deliver(deliveries)
            await self._say(NodeFrame(heartbeat=Heartbeat()))
            failpoint("node.delivery.acknowledged")

    async def _control(self, frame: ServerFrame) -> None:
        match frame.WhichOneof("frame"):
            case "welcome":
                await self._welcome(frame.welcome)
            case "drain":
                raise Gone("the server shuts down")
            case "heartbeat":
                pass
            case "resync":
                self._acknowledged = frame.resync.last_sequence
                await self._receiver.tell(frame)
                # The server sends no deliveries before it hears that the node counts as it does.
                await self._say(NodeFrame(heartbeat=Heartbeat()))
            case _:
                await self._receiver.tell(frame)

    async def _welcome(self, welcome: Welcome) -> None:
        if welcome.protocol != PROTOCOL:
            raise _violation(f"the server speaks version {welcome.protocol}, this node {PROTOCOL}")
        interval = welcome.heartbeat_interval.ToMilliseconds() / 1000
        self._interval_seconds = interval or timeouts.HEARTBEAT_SECONDS
        again = await self._receiver.welcome(welcome)
        self._is_attached.set()
        log.info("node.attached", epoch=welcome.session_epoch, resume_from=welcome.resume_from)
        if again:
            await self._say(*again)


def _violation(what: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION, what)


# ---- the two wires -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def stream_wire(connection: Connection) -> AsyncIterator[Wire]:
    """A session as one stream."""
    call = connection.tasks.Attach(metadata=connection.metadata())
    arrived: asyncio.Queue[ServerFrame | Exception] = asyncio.Queue(MAX_BATCH)  # a server that sends faster has to wait

    async def read() -> None:
        try:
            async for response in call:
                for frame in (response.frame, *response.more):
                    await arrived.put(frame)
            await arrived.put(Gone("the server ended the session"))
        except grpc.aio.AioRpcError as error:
            await arrived.put(error)

    reader = asyncio.create_task(read())
    try:
        yield _StreamWire(call, arrived)
        await call.done_writing()
        await asyncio.wait({reader}, timeout=FAREWELL_SECONDS)
    finally:
        call.cancel()
        await cancelled(reader)


class _StreamWire:
    def __init__(
        self,
        call: "grpc.aio.StreamStreamCall[AttachRequest, AttachResponse]",
        arrived: "asyncio.Queue[ServerFrame | Exception]",
    ) -> None:
        self._call = call
        self._arrived = arrived

    async def send(self, frames: Sequence[NodeFrame]) -> None:
        with suppress(asyncio.InvalidStateError):  # The stream has ended: `receive` says why.
            for first, *more in batches(frames):
                await self._call.write(AttachRequest(frame=first, more=more))

    async def receive(self) -> Sequence[ServerFrame]:
        frames = []
        item = await self._arrived.get()
        while isinstance(item, ServerFrame):
            frames.append(item)
            if len(frames) == MAX_BATCH or self._arrived.empty():
                return frames
            item = self._arrived.get_nowait()
        if not frames:
            raise item
        self._arrived.put_nowait(item)
        return frames


@asynccontextmanager
async def exchange_wire(connection: Connection) -> AsyncIterator[Wire]:
    """A session as unary calls, one at a time."""
    wire = _ExchangeWire(connection)
    yield wire
    with suppress(grpc.aio.AioRpcError):
        while wire.pending:
            await wire.receive()


class _ExchangeWire:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session_id = ""
        self.pending: list[NodeFrame] = []

    async def send(self, frames: Sequence[NodeFrame]) -> None:
        self.pending += frames

    async def receive(self) -> Sequence[ServerFrame]:
        frames = next(batches(self.pending), [])
        self.pending = self.pending[len(frames) :]
        wait_milliseconds = 0 if self.pending else EXCHANGE_WAIT_MILLISECONDS
        response = await self._connection.tasks.Exchange(
            ExchangeRequest(session_id=self._session_id, frames=frames, wait_milliseconds=wait_milliseconds),
            metadata=self._connection.metadata(),
            timeout=timeouts.CALL_SECONDS,
        )
        for frame in response.frames:
            if frame.HasField("welcome"):
                self._session_id = frame.welcome.session_id
        return response.frames
