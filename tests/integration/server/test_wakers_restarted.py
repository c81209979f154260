"""What carries wake-ups goes away while instances work: they look by themselves meanwhile, and are woken again by themselves after."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.server.conftest import Hub
from tests.integration.server.links import Station, attached
from tests.integration.server.places import first_instance
from tests.integration.server.sealed import task
from tests.integration.server.test_wakers import BROKER_PORT, wired
from tests.polling import until
from tests.postgresql import Cluster
from tests.rabbitmq import broker

pytestmark = pytest.mark.needs_postgres


@pytest.fixture
def database(tmp_path: Path, postgresql: Cluster) -> str:
    return postgresql.url(str(tmp_path))


class Pair:
    """Two instances; a node is attached to the second one."""

    def __init__(self, here: Hub, there: Hub, beta: Station) -> None:
        self.hubs, self.beta = (here, there), beta

    async def told(self) -> None:
        """Make a task at the first instance, and have the node told of it at the second one."""
        here, _ = self.hubs
        sealed = task(here.lung, ("Beta",))
        await here.create(sealed)
        assert (await self.beta.accept()).run_id == sealed.run_id("Beta")

    async def wakes(self) -> None:
        """Have the second instance woken by the first one, once both are connected."""
        await until(self.are_connected)
        here, there = (hub.server.running.core.waker for hub in self.hubs)
        woken: list[str] = []
        with there.listen("task:somebody's", lambda: woken.append("there")):
            here.wake(["task:somebody's"])
            await until(lambda: woken == ["there"])

    def are_connected(self) -> bool:
        return all(hub.server.running.core.waker.is_connected for hub in self.hubs)

    def are_cut_off(self) -> bool:
        return not any(hub.server.running.core.waker.is_connected for hub in self.hubs)


@asynccontextmanager
async def pair(data: Path, database: str, waker: str) -> AsyncIterator[Pair]:
    settings: dict[str, Any] = {"waker": waker}
    async with (
        first_instance(data, database, **settings) as place,
        place.instance(**settings) as there,
        attached(there.server, there.lung, "Beta") as beta,
    ):
        yield Pair(place.here, there, beta)


@pytest.mark.needs_rabbitmq
async def test_a_broker_that_is_cut_off_for_a_while_costs_seconds_and_nothing_else(
    tmp_path: Path, database: str
) -> None:
    async with (
        wired(BROKER_PORT) as wire,
        pair(tmp_path / "data", database, f"amqp://guest:guest@127.0.0.1:{wire.port}/") as two,
    ):
        await two.wakes()
        wire.cut()
        await until(two.are_cut_off)
        await two.told()
        wire.mend()
        await two.wakes()
        await two.told()


@pytest.mark.nightly
@pytest.mark.needs_rabbitmq
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_broker_that_is_restarted_costs_seconds_and_nothing_else(
    tmp_path: Path, database: str, how: signal.Signals
) -> None:
    with broker() as rabbitmq:
        async with pair(tmp_path / "data", database, rabbitmq.url) as two:
            await two.wakes()
            await asyncio.to_thread(rabbitmq.stop, how)
            await until(two.are_cut_off)
            await two.told()
            await asyncio.to_thread(rabbitmq.start)
            await two.wakes()
            await two.told()


async def test_listening_connections_that_postgresql_ends_are_opened_again(
    tmp_path: Path, database: str, postgresql: Cluster
) -> None:
    async with pair(tmp_path / "data", database, "postgres") as two:
        await two.wakes()
        ended = postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{postgresql.name_of(database)}' AND query LIKE 'LISTEN%'"
        )
        assert len(ended) == len(two.hubs)
        await two.told()
        await two.wakes()
        await two.told()
