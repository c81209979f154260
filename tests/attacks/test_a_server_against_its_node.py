"""A lying server, as a node sees it: no frame and no token ends the node's process, which may serve other collaborations too."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from folkmoot.node.journal import message_records, records
from folkmoot.node.link.attachment import stream_wire
from folkmoot.node.link.connection import Connection
from folkmoot.node.proxy.inputs import open_input
from folkmoot.transport import ServerAddress
from folkmoot.trust import EnvelopeRejected, FolkmootError, timestamp, verify_task
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeResponse
from folkmoot.v1.link_pb2 import Accepted, NodeFrame, PeerMessage, Resync, RunUpdate, ServerFrame
from folkmoot.v1.task_service_pb2 import AttachResponse
from tests.builders import World
from tests.unit.node.assignments import assign
from tests.unit.node.conftest import MakeStation, lung, make_station
from tests.unit.node.test_link import Scene, scene

__all__ = ["lung", "make_station", "scene"]

HUGE = 2**64 - 1


@pytest.mark.parametrize(
    "frame",
    [ServerFrame(resync=Resync(last_sequence=HUGE)), ServerFrame(accepted=Accepted(sequence=HUGE))],
    ids=["resync", "accepted"],
)
async def test_a_number_that_no_journal_can_keep_costs_a_session_and_not_the_node(
    scene: Scene, make_station: MakeStation, frame: ServerFrame
):
    station = make_station()
    wire = await scene.attached()

    async def tell(given: ServerFrame) -> None:
        if given.HasField("resync"):
            await station.journal.transact(lambda db: records.acknowledge(db, given.resync.last_sequence))
        await station.journal.transact(lambda db: message_records.accept_outgoing(db, [given.accepted]))

    scene.station.tell = tell  # type: ignore[method-assign, assignment]
    with pytest.raises(OverflowError):  # what the link has to live with
        await tell(frame)
    wire.give(frame)
    again = await scene.session()
    assert again.sent[0].HasField("hello")


async def test_a_token_that_ends_at_no_time_of_any_calendar_is_no_token():
    connection = Connection(ServerAddress("localhost:1", insecure=True), lambda nonce: None)  # type: ignore[arg-type,return-value]
    answer = AuthenticateNodeResponse(access_token="token")
    answer.access_expires_at.seconds = 2**62

    async def authenticate() -> AuthenticateNodeResponse:
        return answer

    connection._authenticate = authenticate  # type: ignore[method-assign]
    with pytest.raises(FolkmootError):  # which `run` reports and tries again
        await connection.authenticate()
    answer.access_expires_at.CopyFrom(timestamp(datetime.now(UTC) + timedelta(minutes=15)))
    assert await connection.authenticate() > 0
    await connection.close()


async def test_logs_that_a_slow_line_can_not_take_do_not_pile_up_in_memory(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
):
    await scene.attached()
    for _ in range(10_000):  # nobody takes them meanwhile
        scene.link.send(NodeFrame(run_update=RunUpdate(log_envelopes=[bytes(1000)])))
    scene.link.send(NodeFrame(peer_message=PeerMessage(sequence=1)))
    waiting = scene.link._outgoing
    assert waiting.qsize() < 300
    assert any(
        waiting.get_nowait().HasField("peer_message") for _ in range(waiting.qsize())
    )  # those are bounded elsewhere


async def test_frames_that_come_faster_than_they_are_taken_in_do_not_pile_up_in_memory():
    flood = Flood()
    async with stream_wire(flood) as wire:  # type: ignore[arg-type]
        for _ in range(1000):  # nobody takes them meanwhile
            await asyncio.sleep(0)
        assert flood.sent < 300
        assert await wire.receive()
        assert flood.cancelled is False
    assert flood.cancelled


async def test_a_download_without_end_fills_no_disk(lung: World, make_station: MakeStation):
    frame = assign(lung)
    station = make_station(connection=Endless())
    task = verify_task(frame.assign.chain, lung.state, now=None)
    with ExitStack() as closing, pytest.raises(EnvelopeRejected):
        await open_input(station, task, closing)
    assert list((station.directory / "inbox").iterdir()) == []


class Flood:
    """A connection to a server that never stops telling, and the one call that is made over it."""

    def __init__(self) -> None:
        self.sent, self.cancelled = 0, False
        self.tasks = self

    def metadata(self) -> tuple[()]:
        return ()

    def Attach(self, *, metadata: object) -> "Flood":
        return self

    async def __aiter__(self) -> AsyncIterator[AttachResponse]:
        while True:
            self.sent += 1
            yield AttachResponse(frame=ServerFrame(resync=Resync(last_sequence=1)))
            await asyncio.sleep(0)

    async def done_writing(self) -> None: ...

    def cancel(self) -> None:
        self.cancelled = True


class Endless:
    """A connection to a server that never stops sending."""

    async def download(self, digest: bytes) -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(1000)
        raise AssertionError("nobody stopped the server")

    async def close(self) -> None: ...
