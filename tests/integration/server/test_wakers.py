"""Wakers between instances of the server, on a real PostgreSQL and a real RabbitMQ: what carries them may break."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

import pytest
import structlog
from sqlalchemy.engine import make_url

from folkmoot.server.store import databases
from folkmoot.server.wakers import Waker, amqp
from folkmoot.server.wakers.amqp import AmqpWaker
from folkmoot.server.wakers.postgres import PostgresWaker
from folkmoot.server.wakers.remote import RemoteWaker
from tests.chaos.stage import Wire
from tests.polling import until
from tests.postgresql import Cluster
from tests.wakers import WakerConformance

BROKER_PORT = 5672
LOG = structlog.get_logger()


@asynccontextmanager
async def wired(port: int) -> AsyncIterator[Wire]:
    """A wire to a port of this machine."""
    wire = Wire(port)
    async with await asyncio.start_server(wire.connected, "127.0.0.1") as listening:
        wire.port = listening.sockets[0].getsockname()[1]
        yield wire
        wire.cut()


class RemoteConformance(WakerConformance):
    """What every waker between instances promises besides."""

    @pytest.fixture
    def port(self) -> int:
        """Where the carrier listens."""
        raise NotImplementedError

    @pytest.fixture
    async def wire(self, port: int) -> AsyncIterator[Wire]:
        async with wired(port) as wire:
            yield wire

    def make(self, port: int) -> RemoteWaker:
        """Return a waker whose carrier is at that port."""
        raise NotImplementedError

    @pytest.fixture
    async def waker(self, port: int) -> AsyncIterator[Waker]:
        waker = self.make(port)
        async with waker.running():
            yield waker

    @pytest.fixture
    async def elsewhere(self, wire: Wire) -> AsyncIterator[Waker]:
        """A waker of another instance, at the other end of a wire."""
        waker = self.make(wire.port)
        async with waker.running():
            yield waker

    @pytest.fixture
    def topic(self) -> str:
        return f"task:{uuid4()}"

    async def test_another_instance_is_woken(self, waker: Waker, elsewhere: Waker, topic: str) -> None:
        woken: list[str] = []
        with (
            elsewhere.listen(topic, partial(woken.append, "there")),
            waker.listen(topic, partial(woken.append, "here")),
        ):
            waker.wake([topic, "task:something else"])
            assert woken == ["here"]
            await until(lambda: woken == ["here", "there"])

    async def test_ones_own_wake_ups_do_not_come_back(self, waker: Waker, elsewhere: Waker, topic: str) -> None:
        woken: list[str] = []
        with (
            waker.listen(topic, partial(woken.append, "first")),
            waker.listen(f"{topic}/end", partial(woken.append, "end")),
            elsewhere.listen(topic, lambda: elsewhere.wake([f"{topic}/end"])),
        ):
            waker.wake([topic])
            await until(lambda: "end" in woken)
        assert woken == ["first", "end"]

    async def test_many_topics_at_once_all_arrive(self, waker: Waker, elsewhere: Waker, topic: str) -> None:
        woken: list[int] = []
        async with AsyncExitStack() as listening:
            for number in range(500):
                listening.enter_context(elsewhere.listen(f"{topic}/{number}", partial(woken.append, number)))
            waker.wake(f"{topic}/{number}" for number in range(500))
            await until(lambda: len(woken) == 500)
        assert sorted(woken) == list(range(500))

    async def test_a_carrier_that_broke_is_opened_again_and_wakes_whoever_listens(
        self, waker: Waker, elsewhere: Waker, wire: Wire, topic: str
    ) -> None:
        woken: list[str] = []
        with elsewhere.listen(topic, partial(woken.append, "there")):
            wire.cut()
            waker.wake([topic])  # lost
            wire.mend()
            await until(lambda: woken == ["there"])  # for what it may have missed
            waker.wake([topic])
            await until(lambda: woken == ["there", "there"])

    async def test_without_a_carrier_those_who_are_here_are_woken(self, wire: Wire, topic: str) -> None:
        wire.cut()
        woken: list[str] = []
        waker = self.make(wire.port)
        async with waker.running():
            with waker.listen(topic, partial(woken.append, "here")):
                waker.wake([topic])
                assert woken == ["here"]
                wire.mend()
                await until(lambda: len(woken) == 2)

    async def test_a_carrier_that_says_nothing_holds_up_no_start(
        self, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(amqp, "KEEPALIVE_ANSWER_SECONDS", 0.1)
        monkeypatch.setitem(databases.POSTGRES_CONNECTION, "connect_timeout", 2)  # its least
        woken: list[str] = []

        with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes connections, nobody answers
            waker = self.make(silent.getsockname()[1])
            async with waker.running():
                with waker.listen(topic, partial(woken.append, "here")):
                    waker.wake([topic])
        assert woken == ["here"]

    async def test_whoever_waits_looks_by_himself(self, waker: Waker) -> None:
        assert waker.poll_seconds is not None
        assert waker.poll_seconds <= 5


@pytest.mark.needs_postgres
class TestPostgresWaker(RemoteConformance):
    @pytest.fixture
    def port(self, postgresql: Cluster) -> int:
        return postgresql.port

    def make(self, port: int) -> RemoteWaker:
        return PostgresWaker(make_url(f"postgresql+psycopg://owner@127.0.0.1:{port}/postgres"), LOG)


@pytest.mark.needs_rabbitmq
class TestAmqpWaker(RemoteConformance):
    @pytest.fixture
    def port(self) -> int:
        return BROKER_PORT

    def make(self, port: int) -> RemoteWaker:
        return AmqpWaker(f"amqp://guest:guest@127.0.0.1:{port}/", LOG)
