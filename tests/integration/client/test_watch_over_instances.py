"""Who watches events behind a balancer: the instance goes away, the connection breaks, and no event is left out or told twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from folkmoot.client import AsyncServerClient, Event
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.integration.harness import PASSWORD, Server
from tests.integration.server.places import Place, first_instance
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres

INTENT = "organization.create"


@pytest.fixture
async def place(tmp_path: Path, postgresql: Cluster) -> AsyncIterator[Place]:
    async with first_instance(tmp_path / "data", postgresql.url(str(tmp_path))) as place:
        yield place


def port(server: Server) -> int:
    return int(server.running.address.rpartition(":")[2])


async def operator(place: Place, address: str) -> AsyncServerClient:
    """A client of who runs the server."""
    root = await place.here.server.root()
    return AsyncServerClient(
        server=address,
        certificate_authority=place.data / "tls" / "ca.pem",
        username=root.username,
        password=PASSWORD,
    )


async def made(client: AsyncServerClient, *names: str) -> None:
    """One event for each."""
    for name in names:
        await client.organization_accounts.create(name)


async def told(watched: "asyncio.Queue[Event]", number: int) -> list[int]:
    async with asyncio.timeout(60):
        return [(await watched.get()).sequence for _ in range(number)]


async def test_a_watch_goes_on_elsewhere_when_its_instance_stops_and_when_its_connection_breaks(place: Place):
    here = place.here.server
    async with AsyncExitStack() as stack:
        leaving = await stack.enter_async_context(AsyncExitStack())
        there = (await leaving.enter_async_context(place.instance())).server
        balancer: FaultyProxy = await stack.enter_async_context(faulty_proxy(port(there)))
        writer = await stack.enter_async_context(await operator(place, here.running.address))
        watcher = await stack.enter_async_context(await operator(place, f"127.0.0.1:{balancer.port}"))
        watched: asyncio.Queue[Event] = asyncio.Queue()

        async def watch() -> None:
            async for event in watcher.events.watch(intent=INTENT, after=0):
                watched.put_nowait(event)

        watching = asyncio.create_task(watch())
        stack.callback(watching.cancel)
        await made(writer, "a", "b")
        before = [one.sequence async for one in writer.events.list(intent=INTENT)]
        seen = await told(watched, len(before))

        balancer.lead_to(port(here))
        await asyncio.gather(leaving.aclose(), made(writer, "c", "d", "e"))  # it drains, while others go on
        await made(writer, "f")
        seen += await told(watched, 4)

        balancer.cut()
        await made(writer, "g", "h")
        seen += await told(watched, 2)

        assert seen == [one.sequence async for one in writer.events.list(intent=INTENT)][::-1]
        assert watched.empty()
        assert not watching.done()
