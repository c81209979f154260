"""Two instances in processes of their own behind haproxy, replaced one after the other by SIGTERM while they work.

Clients and the node know one address. Each task is there once, each run was delivered once, and no stop took by force.
"""

import asyncio
import dataclasses
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from tests.integration.harness import Server
from tests.integration.node.data.servers import free_port
from tests.integration.server.conftest import Hub
from tests.integration.server.places import Place, first_instance
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_instances import take
from tests.polling import until
from tests.postgresql import Cluster

pytestmark = [pytest.mark.needs_postgres, pytest.mark.needs_haproxy]

BALANCER = """
defaults
    mode tcp
    timeout connect 1s
    timeout client 3m
    timeout server 3m
    retries 10
    option redispatch 1
frontend folkmoot
    bind 127.0.0.1:{port}
    default_backend servers
backend servers
    balance roundrobin
    server one 127.0.0.1:{one} check inter 200ms
    server two 127.0.0.1:{two} check inter 200ms
"""


@asynccontextmanager
async def balancer(folder: Path, one: int, two: int) -> AsyncIterator[str]:
    """Give the one address of two."""
    port = free_port()
    (folder / "haproxy.cfg").write_text(BALANCER.format(port=port, one=one, two=two))
    process = await asyncio.create_subprocess_exec("haproxy", "-q", "-db", "-f", str(folder / "haproxy.cfg"))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


async def test_instances_that_are_replaced_one_after_the_other_lose_and_double_nothing(
    tmp_path: Path, postgresql: Cluster
) -> None:
    url, ports = postgresql.url(str(tmp_path)), (free_port(), free_port())
    async with AsyncExitStack() as stack:
        place = await stack.enter_async_context(first_instance(tmp_path / "data", url))

        async def start(port: int) -> asyncio.subprocess.Process:
            return (await stack.enter_async_context(place.process(f"127.0.0.1:{port}")))[1]

        processes = list(await asyncio.gather(*map(start, ports)))
        address = await stack.enter_async_context(balancer(tmp_path, *ports))
        wanted = [task(place.lung, ("Beta",)) for _ in range(60)]
        waiting: list[SealedTask] = list(wanted)
        delivered: list[str] = []
        there = behind(place, address)
        stack.push_async_callback(there.server.channel.close)
        taking = asyncio.create_task(take(place, [there, there], delivered, len(wanted)))
        clients = [asyncio.create_task(client(place, address, waiting)) for _ in range(4)]
        for number, port in enumerate(ports):
            await until(lambda: len(waiting) <= 45 - 20 * number)  # noqa: B023
            processes[number].send_signal(signal.SIGTERM)
            assert await processes[number].wait() == 0
            processes[number] = await start(port)
        await asyncio.gather(*clients)
        await taking
        assert sorted(delivered) == sorted(each.run_id("Beta") for each in wanted)
        stored = postgresql.execute("SELECT count(*), count(DISTINCT task_id) FROM tasks", postgresql.name_of(url))
        assert stored == [(len(wanted), len(wanted))]
        made = [event for event in await place.here.server.events("task.create") if event.outcome == "ok"]
        assert len(made) == len(wanted)


def behind(place: Place, address: str) -> Hub:
    """Return the hub as it is reached by that address, over a connection of its own."""
    running = dataclasses.replace(place.here.server.running, address=address)
    return place.hub(Server(running))


async def client(place: Place, address: str, waiting: list[SealedTask]) -> None:
    """Create tasks, over a new connection now and then; what was not answered is sent again as it is."""
    while waiting:
        hub = behind(place, address)
        for sealed in [waiting.pop() for _ in range(min(3, len(waiting)))]:
            while True:
                try:
                    await hub.create(sealed)
                    break
                except grpc.aio.AioRpcError as error:
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        raise
        await hub.server.channel.close()
