"""The link: acknowledges what is journaled and nothing else, gives signs of life, notices silence, and never gives up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from folkmoot.node.link import attachment as link_module
from folkmoot.node.link.attachment import Gone, Link, _ExchangeWire, _StreamWire
from folkmoot.node.link.connection import Connection
from folkmoot.transport import ServerAddress
from folkmoot.transport.limits import MESSAGE_BYTES
from folkmoot.trust import FolkmootError, NodeNotApproved
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import (
    Cancel,
    Drain,
    Heartbeat,
    Hello,
    LedgerHead,
    NodeFrame,
    PeerMessage,
    Resync,
    RunUpdate,
    ServerFrame,
    Welcome,
)
from folkmoot.v1.task_service_pb2 import AttachRequest, ExchangeRequest, ExchangeResponse


@dataclass
class FakeWire:
    """One session: what the server sends is put in, what the node sent is looked at."""

    sent: list[NodeFrame] = field(default_factory=list)
    incoming: "asyncio.Queue[ServerFrame | Exception]" = field(default_factory=asyncio.Queue)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, frames: Sequence[NodeFrame]) -> None:
        self.sent += [NodeFrame.FromString(frame.SerializeToString()) for frame in frames]
        self.news.set()

    async def receive(self) -> Sequence[ServerFrame]:
        items = [await self.incoming.get()]
        while not self.incoming.empty():
            items.append(self.incoming.get_nowait())
        if isinstance(items[0], Exception):
            raise items[0]
        return [item for item in items if isinstance(item, ServerFrame)]

    def give(self, *frames: ServerFrame) -> None:
        for frame in frames:
            self.incoming.put_nowait(frame)

    def welcome(self, **changes: Any) -> None:
        welcome = Welcome(**({"protocol": 1} | changes))
        welcome.heartbeat_interval.FromMilliseconds(20)
        self.give(ServerFrame(welcome=welcome))

    async def until(self, holds: Callable[[list[NodeFrame]], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds(self.sent):
                self.news.clear()
                await self.news.wait()


@dataclass
class FakeStation:
    """Takes what the link hands over; a delivery is journaled when `journal` is set."""

    acknowledged: int = 0
    delivered: list[int] = field(default_factory=list)
    told: list[str | None] = field(default_factory=list)
    again: list[NodeFrame] = field(default_factory=list)
    journal: asyncio.Event = field(default_factory=asyncio.Event)
    refusal: FolkmootError | None = None
    turned_away_by: list[FolkmootError] = field(default_factory=list)
    proven: FolkmootError | None = None

    async def hello(self) -> NodeFrame:
        return NodeFrame(acknowledged=self.acknowledged, hello=Hello(node_id="node"))

    async def welcome(self, welcome: Welcome) -> Sequence[NodeFrame]:
        return self.again

    async def deliver(self, frames: Sequence[ServerFrame]) -> int:
        if self.refusal:
            raise self.refusal
        await self.journal.wait()
        self.delivered += [frame.sequence for frame in frames]
        self.acknowledged = frames[-1].sequence
        return self.acknowledged

    async def tell(self, frame: ServerFrame) -> None:
        self.told.append(frame.WhichOneof("frame"))

    async def turned_away(self, refusal: FolkmootError) -> None:
        self.turned_away_by.append(refusal)
        if self.proven:
            raise self.proven


@dataclass
class Scene:
    """A link that runs, with the sessions that it opens."""

    link: Link
    station: FakeStation
    opened: "asyncio.Queue[FakeWire]"
    running: "asyncio.Task[None]"

    async def session(self) -> FakeWire:
        async with asyncio.timeout(10):
            wire = await self.opened.get()
            await wire.until(bool)
        return wire

    async def attached(self) -> FakeWire:
        wire = await self.session()
        wire.welcome()
        async with asyncio.timeout(10):
            await self.link.attached()
        return wire


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    opened: asyncio.Queue[FakeWire] = asyncio.Queue()

    @asynccontextmanager
    async def open_wire(connection: Connection) -> AsyncIterator[FakeWire]:
        wire = FakeWire()
        opened.put_nowait(wire)
        yield wire

    monkeypatch.setattr(link_module, "stream_wire", open_wire)
    monkeypatch.setattr(link_module, "pause_seconds", lambda attempt: 0.0)
    connection = Connection(ServerAddress("localhost:1", insecure=True), lambda nonce: None)  # type: ignore[arg-type,return-value]
    connection._has_token.set()
    link, station = Link(connection, wire="stream"), FakeStation()
    station.journal.set()
    running = asyncio.create_task(link.run(station))
    yield Scene(link, station, opened, running)
    link.stop()
    await asyncio.wait({running}, timeout=10)
    assert running.done()
    if station.proven is None:
        running.result()
    await connection.close()


def delivery(sequence: int) -> ServerFrame:
    return ServerFrame(sequence=sequence, cancel=Cancel(run_id=str(sequence)))


def unavailable() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "cut")


async def test_a_session_begins_with_hello_and_what_is_acknowledged(scene: Scene):
    wire = await scene.session()
    assert wire.sent[0].HasField("hello")
    assert not scene.link.is_attached


async def test_a_delivery_is_acknowledged_after_it_is_journaled_and_not_before(scene: Scene):
    wire = await scene.attached()
    scene.station.journal.clear()
    wire.give(delivery(1), delivery(2))
    scene.link.send(NodeFrame(run_update=RunUpdate(run_id="x")))
    await asyncio.sleep(0)
    assert all(frame.acknowledged == 0 for frame in wire.sent)
    scene.station.journal.set()
    await wire.until(lambda sent: sent[-1].acknowledged == 2)
    assert scene.station.delivered == [1, 2]


async def test_every_frame_carries_the_acknowledgement(scene: Scene):
    wire = await scene.attached()
    wire.give(delivery(1))
    await wire.until(lambda sent: sent[-1].acknowledged == 1)
    scene.link.send(NodeFrame(run_update=RunUpdate(run_id="x")))
    await wire.until(lambda sent: sent[-1].HasField("run_update") or sent[-2].HasField("run_update"))
    assert next(frame for frame in wire.sent if frame.HasField("run_update")).acknowledged == 1


async def test_it_gives_signs_of_life_when_there_is_nothing_to_say(scene: Scene):
    wire = await scene.attached()

    async def answer() -> None:
        while True:
            wire.give(ServerFrame(heartbeat=Heartbeat()))
            await asyncio.sleep(0.005)

    answering = asyncio.create_task(answer())
    await wire.until(lambda sent: sum(frame.HasField("heartbeat") for frame in sent) >= 3)
    answering.cancel()


async def test_a_silent_server_is_left_for_a_new_session(scene: Scene):
    await scene.attached()
    again = await scene.session()
    assert again.sent[0].HasField("hello")


async def test_after_a_cut_it_attaches_again_with_what_it_has_acknowledged(scene: Scene):
    wire = await scene.attached()
    wire.give(delivery(1))
    await wire.until(lambda sent: sent[-1].acknowledged == 1)
    wire.incoming.put_nowait(unavailable())
    again = await scene.session()
    assert again.sent[0].acknowledged == 1


@pytest.mark.parametrize("end", [ServerFrame(drain=Drain()), Gone("ended")], ids=["drain", "end of stream"])
async def test_a_server_that_says_goodbye_is_attached_to_anew(scene: Scene, end: Any):
    wire = await scene.attached()
    wire.incoming.put_nowait(end)
    await scene.attached()


async def test_unaccepted_messages_go_first_in_a_new_session(scene: Scene):
    scene.station.again = [NodeFrame(peer_message=PeerMessage(sequence=7))]
    wire = await scene.attached()
    await wire.until(lambda sent: len(sent) > 1)
    assert wire.sent[1].peer_message.sequence == 7


async def test_what_is_sent_without_a_session_is_dropped(scene: Scene):
    wire = await scene.session()
    scene.link.send(NodeFrame(run_update=RunUpdate(run_id="old")))
    wire.welcome()
    await wire.until(lambda sent: len(sent) > 1)
    assert not any(frame.HasField("run_update") for frame in wire.sent)


async def test_what_cant_be_decided_now_is_not_acknowledged_and_comes_again(scene: Scene):
    wire = await scene.attached()
    scene.station.refusal = FolkmootError(ErrorReason.ERROR_REASON_SHUTTING_DOWN, "the ledger can't be fetched")
    wire.give(delivery(1))
    again = await scene.session()
    assert all(frame.acknowledged == 0 for frame in (*wire.sent, *again.sent))
    scene.station.refusal = None
    again.welcome()
    again.give(delivery(1))
    await again.until(lambda sent: sent[-1].acknowledged == 1)


async def test_a_delivery_before_welcome_is_a_violation(scene: Scene):
    wire = await scene.session()
    wire.give(delivery(1))
    await scene.session()
    assert scene.station.delivered == []


async def test_another_version_of_the_protocol_is_not_spoken(scene: Scene):
    wire = await scene.session()
    wire.welcome(protocol=2)
    await scene.session()
    assert not scene.link.is_attached


async def test_a_server_restored_from_a_backup_counts_anew(scene: Scene):
    scene.station.acknowledged = 9
    wire = await scene.attached()
    wire.give(ServerFrame(resync=Resync(last_sequence=4)), ServerFrame(ledger_head=LedgerHead()))
    await wire.until(lambda sent: sent[-1].acknowledged == 4 if len(sent) > 1 else False)
    assert scene.station.told == ["resync", "ledger_head"]


async def test_a_server_that_counts_anew_hears_at_once_that_the_node_does_too(scene: Scene):
    """It sends nothing that runs wait for until then: a sign of life is many seconds away."""
    wire = await scene.session()
    welcome = Welcome(protocol=1)
    welcome.heartbeat_interval.FromSeconds(3600)
    wire.give(ServerFrame(welcome=welcome), ServerFrame(resync=Resync(last_sequence=4)))
    await wire.until(lambda sent: len(sent) > 1 and sent[-1].acknowledged == 4)


async def test_a_replaced_session_waits_much_longer_and_says_why(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    replaced = FolkmootError(ErrorReason.ERROR_REASON_SESSION_REPLACED, "a newer stream")
    cut = FolkmootError(ErrorReason.ERROR_REASON_SHUTTING_DOWN, "cut")
    monkeypatch.setattr(link_module, "pause_seconds", lambda attempt: 1.0)
    waits = [scene.link._explain(error, 1, repeated=False) for error in (replaced, cut)]
    assert waits[0] > 3 * waits[1]


async def test_a_server_that_merely_claims_that_the_node_was_revoked_is_tried_again(scene: Scene):
    wire = await scene.attached()
    wire.incoming.put_nowait(NodeNotApproved("you were revoked"))
    again = await scene.attached()
    assert again is not wire
    assert [str(each) for each in scene.station.turned_away_by] == ["you were revoked"]


async def test_a_proven_end_of_the_nodes_admission_ends_its_link(scene: Scene):
    wire = await scene.attached()
    scene.station.proven = NodeNotApproved("the ledger says so")
    wire.incoming.put_nowait(NodeNotApproved("you were revoked"))
    with pytest.raises(NodeNotApproved, match="the ledger says so"):
        await scene.running


async def test_stop_says_goodbye(scene: Scene):
    wire = await scene.attached()
    scene.link.stop()
    await wire.until(lambda sent: sent[-1].HasField("bye"))


async def test_waiting_for_frames_with_a_timeout_does_not_cancel_the_stream():
    """A timeout around `call.read()` cancels the whole call; so nobody but its own task ever waits on the call."""
    arrived: asyncio.Queue[ServerFrame | Exception] = asyncio.Queue()
    wire = _StreamWire(None, arrived)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wire.receive(), 0.001)
    arrived.put_nowait(ServerFrame(heartbeat=Heartbeat()))
    arrived.put_nowait(unavailable())
    assert len(await wire.receive()) == 1
    with pytest.raises(grpc.aio.AioRpcError):
        await wire.receive()


class Server:
    """Takes what either wire sends, as long as a call is no larger than a server reads."""

    def __init__(self) -> None:
        self.tasks = self
        self.sizes_bytes: list[int] = []
        self.sequences: list[int] = []
        self.waits: list[int] = []

    def metadata(self) -> None: ...

    async def Exchange(self, request: ExchangeRequest, **_: object) -> ExchangeResponse:
        self.waits.append(request.wait_milliseconds)
        self._take(request, request.frames)
        return ExchangeResponse()

    async def write(self, request: AttachRequest) -> None:
        self._take(request, [request.frame, *request.more])

    def _take(self, request: ExchangeRequest | AttachRequest, frames: Sequence[NodeFrame]) -> None:
        self.sizes_bytes.append(request.ByteSize())
        self.sequences += [frame.peer_message.sequence for frame in frames]


LARGE = [NodeFrame(peer_message=PeerMessage(sequence=number, envelope=bytes(250_000))) for number in range(1, 41)]
"""More than a server reads in one message."""


async def test_large_messages_go_in_as_many_calls_as_they_need():
    server = Server()
    wire = _ExchangeWire(server)  # type: ignore[arg-type]
    await wire.send(LARGE)
    while wire.pending:
        await wire.receive()
    assert server.sequences == list(range(1, 41))
    assert max(server.sizes_bytes) <= MESSAGE_BYTES
    assert server.waits[-1] > 0 == max(server.waits[:-1]), "only the last one waits for something to come"


async def test_large_messages_go_in_as_many_pieces_of_a_stream_as_they_need():
    server = Server()
    await _StreamWire(server, asyncio.Queue()).send(LARGE)  # type: ignore[arg-type]
    assert server.sequences == list(range(1, 41))
    assert max(server.sizes_bytes) <= MESSAGE_BYTES


async def test_small_messages_travel_together():
    server = Server()
    small = [NodeFrame(peer_message=PeerMessage(sequence=number)) for number in range(1, 101)]
    await _StreamWire(server, asyncio.Queue()).send(small)  # type: ignore[arg-type]
    assert (len(server.sizes_bytes), server.sequences) == (1, list(range(1, 101)))
