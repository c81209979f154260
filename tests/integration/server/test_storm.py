"""A storm: all nodes come back at once after a restart. They are back, each once, and nobody else waits for that."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from sqlalchemy import Connection, func, select

from folkmoot.server.store.tables import events
from folkmoot.transport.channel import CHANNEL_OPTIONS
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub
from tests.builders import World, world
from tests.integration.harness import Metadata, Server, User, server, utc_now
from tests.integration.server.links import PATIENCE_SECONDS, Station, Stream, hello
from tests.polling import until

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
QUESTIONS = 10


async def crowd(s: Server, lung: World, beta: User, number: int) -> dict[str, Metadata]:
    """Have the ledger admit so many nodes of Beta, which prove their keys; return with what each calls."""
    names = [f"crowd-{index}" for index in range(number)]
    for name in names:
        lung.add_node("Beta", name)
        await s.append(lung.entries[-1], beta)
    return {name: await s.node_metadata(lung, "Beta", name) for name in names}


async def come_back(s: Server, lung: World, name: str, metadata: Metadata) -> tuple[grpc.aio.Channel, int]:
    """Attach on a connection of one's own; return it when welcome, with the session's number."""
    trusted = grpc.ssl_channel_credentials(s.running.certificate_authority)
    channel = grpc.aio.secure_channel(s.running.address, trusted, options=[*CHANNEL_OPTIONS, OWN_CONNECTION])
    station = Station(Stream(TaskServiceStub(channel), metadata))
    await station.link.send(hello(lung, lung["Beta"].nodes[name].fingerprint))
    return channel, (await station.next("welcome")).session_epoch


async def all_come_back(s: Server, lung: World, nodes: dict[str, Metadata]) -> set[int]:
    """Have all of them attach at once, and hang up; return the numbers of their sessions."""
    back = await asyncio.gather(*(come_back(s, lung, name, metadata) for name, metadata in nodes.items()))
    await asyncio.gather(*(channel.close() for channel, _ in back))
    return {epoch for _, epoch in back}


async def recorded(s: Server, intent: str) -> int:
    """Return how many events there are of a kind."""
    counted = select(func.count()).where(events.c.intent == intent)
    return await s.running.core.store.read(lambda connection: connection.scalar(counted) or 0)


@asynccontextmanager
async def writing_held_up(s: Server) -> AsyncIterator[None]:
    """Have the only writer stand still as long as this context lasts: whatever is to be written waits in its queue."""
    standing, go_on = threading.Event(), threading.Event()

    def stand(_connection: Connection) -> None:
        standing.set()
        go_on.wait()

    held = asyncio.ensure_future(s.running.core.store.write(stand))
    try:
        await until(standing.is_set)
        yield
    finally:
        go_on.set()
        await held


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the one with one writer, behind which all would wait
@pytest.mark.parametrize("number", [50, pytest.param(1000, marks=pytest.mark.nightly)])
async def test_nodes_that_come_back_all_at_once_are_back_while_users_are_answered(tmp_path: Path, number: int) -> None:
    lung = world(nodes=False, now=utc_now())
    async with server(tmp_path / "data", calls_per_second=0.0) as before:
        admins = await before.publish(lung)
        nodes = await crowd(before, lung, admins["Beta"], number)
        assert await all_come_back(before, lung, nodes) == {1}
        proofs = await recorded(before, "node.authenticate")
    async with server(tmp_path / "data", calls_per_second=0.0) as s:
        async with writing_held_up(s):
            storm = asyncio.ensure_future(all_come_back(s, lung, nodes))
            await until(lambda: s.running.core.store.queued["write"] >= number, "all nodes are at the door")
            async with asyncio.timeout(PATIENCE_SECONDS):
                for _ in range(QUESTIONS):
                    await s.tasks.ListTasks(pb.ListTasksRequest(), metadata=admins["Alpha"].metadata)
            assert not storm.done(), "users were answered before the nodes were"
        assert await storm == {2}, "each has gone on where it was, once"
        assert await recorded(s, "node.attach") == 2 * number
        assert await recorded(s, "node.authenticate") == proofs, "their tokens were good still"
