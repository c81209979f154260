"""Both forms of a node's link, as a node sees them: frames go up, frames come down."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import grpc.aio

from folkmoot.v1 import link_pb2 as link
from folkmoot.v1.link_pb2 import NodeFrame, ServerFrame
from folkmoot.v1.task_pb2 import RunState
from folkmoot.v1.task_service_pb2 import AttachRequest, ExchangeRequest
from tests.builders import World
from tests.integration.harness import Metadata, Server

PATIENCE_SECONDS = 20.0
BOOT_ID = "01890000-0000-7000-8000-000000000001"


class Link(Protocol):
    """A node's end of its link. `acknowledged` rides on every frame that goes up."""

    acknowledged: int
    session_id: str

    async def send(self, *frames: NodeFrame) -> None: ...
    async def receive(self) -> ServerFrame: ...
    async def cut(self) -> None: ...


class Stream:
    """Attach."""

    def __init__(self, tasks: Any, metadata: Metadata) -> None:
        self.acknowledged = 0
        self.session_id = ""
        self._call = tasks.Attach(metadata=metadata)
        self._read: deque[ServerFrame] = deque()

    async def send(self, *frames: NodeFrame) -> None:
        for frame in frames:
            frame.acknowledged = self.acknowledged
        with suppress(asyncio.InvalidStateError):  # the server has ended it; `receive` says why
            await self._call.write(AttachRequest(frame=frames[0], more=frames[1:]))

    async def receive(self) -> ServerFrame:
        while not self._read:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await self._call.read()
            if not hasattr(answer, "frame"):
                raise EOFError("the server has ended the stream")
            self._read += [frame for frame in (answer.frame, *answer.more) if not frame.HasField("heartbeat")]
        return self._read.popleft()

    async def cut(self) -> None:
        self._call.cancel()


class Poll:
    """Exchange."""

    def __init__(self, tasks: Any, metadata: Metadata) -> None:
        self.acknowledged = 0
        self._tasks = tasks
        self._metadata = metadata
        self.session_id = ""
        self._received: deque[ServerFrame] = deque()
        self._seen = 0

    async def send(self, *frames: NodeFrame) -> None:
        await self._exchange(frames, wait_milliseconds=0)

    async def receive(self) -> ServerFrame:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._received:
                await self._exchange([NodeFrame(heartbeat=link.Heartbeat())], wait_milliseconds=2000)
        return self._received.popleft()

    async def cut(self) -> None:
        self.session_id = ""

    async def _exchange(self, frames: Sequence[NodeFrame], wait_milliseconds: int) -> None:
        for frame in frames:
            frame.acknowledged = self.acknowledged
        answer = await self._tasks.Exchange(
            ExchangeRequest(session_id=self.session_id, frames=frames, wait_milliseconds=wait_milliseconds),
            metadata=self._metadata,
        )
        for frame in answer.frames:
            if frame.HasField("welcome"):
                self.session_id = frame.welcome.session_id
            if frame.HasField("resync"):
                self._seen = frame.resync.last_sequence
            if frame.sequence and frame.sequence <= self._seen:
                continue  # told again, because it was not acknowledged yet
            self._seen = max(self._seen, frame.sequence)
            self._received.append(frame)


def hello(world: World, node_id: str, *, held: Sequence[tuple[str, str]] = (), **changes: Any) -> NodeFrame:
    """Return a Hello; `held` are pairs of run id and state."""
    wish: dict[str, Any] = {
        "node_id": node_id,
        "boot_id": BOOT_ID,
        "protocol_min": 1,
        "protocol_max": 1,
        "version": "0.1.0",
        "held_runs": [
            link.HeldRun(run_id=run_id, attempt=1, state=RunState.Value(f"RUN_STATE_{state}")) for run_id, state in held
        ],
        "ledger_position": world.state.position.message(),
    }
    return NodeFrame(hello=link.Hello(**(wish | changes)))


class Station:
    """A node that keeps what it was told and acknowledges it when the test says so."""

    def __init__(self, link_: Link) -> None:
        self.link = link_
        self.told: list[ServerFrame] = []

    async def next(self, kind: str) -> Any:
        """Return the next frame, which must be of that kind."""
        frame = await self.link.receive()
        assert frame.WhichOneof("frame") == kind, frame
        self.told.append(frame)
        return getattr(frame, kind)

    async def accept(self, kind: str = "assign") -> Any:
        """Return the next delivery, acknowledged."""
        told = await self.next(kind)
        await self.acknowledge()
        return told

    async def acknowledge(self) -> None:
        self.link.acknowledged = max(frame.sequence for frame in self.told)
        await self.send(heartbeat=link.Heartbeat())

    async def send(self, **frame: Any) -> None:
        await self.link.send(NodeFrame(**frame))

    async def leave(self) -> None:
        """Go away on purpose; return when the server knows."""
        await self.send(bye=link.Bye())
        with suppress(EOFError, grpc.aio.AioRpcError):  # the stream's end; a session that is no more
            while True:
                await self.link.receive()


@asynccontextmanager
async def attached(
    server: Server,
    world: World,
    organization: str,
    *,
    form: type[Any] = Stream,
    node: str = "",
    acknowledged: int = 0,
    held: Sequence[tuple[str, str]] = (),
    **changes: Any,
) -> AsyncIterator[Station]:
    """Attach a node; it is welcome. `changes` are of its Hello."""
    name = node or f"{organization.lower()}-1"
    metadata = await server.node_metadata(world, organization, name)
    station = Station(form(server.tasks, metadata))
    station.link.acknowledged = acknowledged
    await station.link.send(hello(world, world[organization].nodes[name].fingerprint, held=held, **changes))
    await station.next("welcome")
    station.told.clear()
    try:
        yield station
    finally:
        await station.link.cut()
