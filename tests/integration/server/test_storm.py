"""A storm: all nodes come back at once after a restart. They are back, and nobody else is kept waiting."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio
import pytest

from folkmoot.transport.channel import CHANNEL_OPTIONS
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub
from tests.builders import World, world
from tests.integration.harness import Metadata, Server, User, server, utc_now
from tests.integration.server.links import Station, Stream, hello

OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)
NODES_FOR_EACH_ANSWER = 50
"""Who asks waits for so many nodes at most; where he had to stand behind them, it would be all of them."""


async def crowd(s: Server, lung: World, beta: User, number: int) -> dict[str, Metadata]:
    """Have the ledger admit so many nodes of Beta, which prove their keys; return with what each calls."""
    names = [f"crowd-{index}" for index in range(number)]
    for name in names:
        lung.add_node("Beta", name)
        await s.append(lung.entries[-1], beta)
    return {name: await s.node_metadata(lung, "Beta", name) for name in names}


class Storm:
    """What happens, in the order in which it happens."""

    def __init__(self, s: Server, lung: World) -> None:
        self.order: list[str] = []
        self.over = asyncio.Event()
        self._server = s
        self._lung = lung
        self._channels: list[grpc.aio.Channel] = []

    async def attach(self, name: str, metadata: Metadata) -> tuple[Station, int]:
        """Come back on a connection of one's own; return when welcome, with the session's number."""
        trusted = grpc.ssl_channel_credentials(self._server.running.certificate_authority)
        options = [*CHANNEL_OPTIONS, OWN_CONNECTION]
        channel = grpc.aio.secure_channel(self._server.running.address, trusted, options=options)
        self._channels.append(channel)
        station = Station(Stream(TaskServiceStub(channel), metadata))
        await station.link.send(hello(self._lung, self._lung["Beta"].nodes[name].fingerprint))
        epoch: int = (await station.next("welcome")).session_epoch
        self.order.append("welcome")
        return station, epoch

    async def ask(self, metadata: Metadata) -> None:
        """Read lists as a user does, one call after the other, as long as the storm lasts."""
        while not self.over.is_set():
            await self._server.tasks.ListTasks(pb.ListTasksRequest(), metadata=metadata)
            self.order.append("answer")

    async def rage(self, nodes: dict[str, Metadata]) -> Sequence[tuple[Station, int]]:
        """Have all nodes attach at once."""
        try:
            return await asyncio.gather(*(self.attach(name, metadata) for name, metadata in nodes.items()))
        finally:
            self.over.set()

    async def end(self) -> None:
        """Hang up."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


@pytest.mark.parametrize("number", [100, pytest.param(1000, marks=pytest.mark.nightly)])
async def test_nodes_that_come_back_all_at_once_are_back_while_users_are_answered(tmp_path: Path, number: int) -> None:
    lung = world(nodes=False, now=utc_now())
    async with server(tmp_path / "data", calls_per_second=0.0) as before:
        admins = await before.publish(lung)
        nodes = await crowd(before, lung, admins["Beta"], number)
        first = Storm(before, lung)
        assert {epoch for _, epoch in await first.rage(nodes)} == {1}
    await first.end()
    async with server(tmp_path / "data", calls_per_second=0.0) as s:
        storm = Storm(s, lung)
        asking = asyncio.ensure_future(storm.ask(admins["Alpha"].metadata))
        stations = await storm.rage(nodes)
        await asking
        assert {epoch for _, epoch in stations} == {2}  # each has gone on where it was
        welcomes = [index for index, what in enumerate(storm.order) if what == "welcome"]
        assert storm.order[welcomes[0] : welcomes[-1]].count("answer") >= number // NODES_FOR_EACH_ANSWER
        await storm.end()
