"""Messages between siblings: whoever does not read is waited for, nothing piles up, nothing is lost, and order stays."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import func, select

from folkmoot.node.proxy import messages
from folkmoot.server.store import reports
from folkmoot.server.store.task_tables import peer_messages
from folkmoot.v1 import proxy_service_pb2 as pb
from tests.integration.client.conftest import Hub
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_faults import ask
from tests.polling import until

NUMBER = 40


async def stored(hub: Hub) -> int:
    counting = select(func.count()).select_from(peer_messages)
    return await hub.server.running.core.store.read(lambda connection: connection.scalar(counting) or 0)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Bounds that are soon reached; gives how many messages may lie at the server."""
    monkeypatch.setattr(reports, "MOST_UNREAD", 8)
    monkeypatch.setattr(messages, "MOST_UNACCEPTED", 4)
    monkeypatch.setattr(messages, "TOLD_EVERY", 2)
    return 8 + 4


@pytest.mark.parametrize("reader", ["awake", "not started yet"])
async def test_a_sibling_that_does_not_read_fills_no_disk(hub: Hub, stations: Stations, few: int, reader: str):
    may_read, sent = asyncio.Event(), 0

    async def talk(algorithm: Algorithm) -> None:
        nonlocal sent
        if algorithm.context.organization.name == "Beta":
            for number in range(NUMBER):
                await algorithm.send("Gamma", number)
                sent = number + 1
            await algorithm.result(NUMBER)
            return
        await may_read.wait()
        read: list[int] = []
        while len(read) < NUMBER:
            cursor = pb.MessageCursor(organization_id=algorithm.address("Beta"), after_sequence=len(read))
            request = pb.ReceiveMessagesRequest(cursors=[cursor], until=pb.RECEIVE_UNTIL_IDLE)
            read += [int(message.content) async for message in algorithm.stub.ReceiveMessages(request)]
        await algorithm.result(read)

    engine = Engine({"answer": talk})
    async with stations.station("Beta", engine=engine), AsyncExitStack() as gamma:
        if reader == "awake":
            await gamma.enter_async_context(stations.station("Gamma", engine=engine))
        task = await ask(hub, "Beta", "Gamma", messages=True)
        await until(lambda: sent == few - 1, "the sender is held")
        assert await stored(hub) <= few
        may_read.set()
        if reader == "not started yet":
            await gamma.enter_async_context(stations.station("Gamma", engine=engine))
        results = await asyncio.wait_for(task.wait(progress=False), 40)
        assert {each.organization: each.value for each in results} == {"Beta": NUMBER, "Gamma": list(range(NUMBER))}
        assert await stored(hub) == 0, "nobody reads them any more"
    await engine.close()


async def test_messages_that_travel_together_stay_in_order_and_within_the_same_bounds(
    hub: Hub, stations: Stations, few: int
):
    may_read, sent = asyncio.Event(), 0

    async def talk(algorithm: Algorithm) -> None:
        nonlocal sent
        if algorithm.context.organization.name == "Beta":
            address = algorithm.address("Gamma")
            left = [
                pb.SendMessageRequest(organization_id=address, sequence=n + 1, content=b"%d" % n) for n in range(NUMBER)
            ]
            while left:
                answer = await algorithm.stub.SendMessages(pb.SendMessagesRequest(messages=left))
                left = left[answer.journaled :]
                sent = NUMBER - len(left)
            await algorithm.result(NUMBER)
            return
        await may_read.wait()
        read: list[int] = []
        while len(read) < NUMBER:
            cursor = pb.MessageCursor(organization_id=algorithm.address("Beta"), after_sequence=len(read))
            answer = await algorithm.stub.TakeMessages(pb.TakeMessagesRequest(cursors=[cursor]))
            read += [int(message.content) for message in answer.messages]
        await algorithm.result(read)

    engine = Engine({"answer": talk})
    async with stations.station("Beta", engine=engine), stations.station("Gamma", engine=engine):
        task = await ask(hub, "Beta", "Gamma", messages=True)
        await until(lambda: sent >= few - messages.MOST_UNACCEPTED, "the sender is held")
        assert sent <= few
        assert await stored(hub) <= few
        may_read.set()
        results = await asyncio.wait_for(task.wait(progress=False), 40)
        assert {each.organization: each.value for each in results} == {"Beta": NUMBER, "Gamma": list(range(NUMBER))}
    await engine.close()
