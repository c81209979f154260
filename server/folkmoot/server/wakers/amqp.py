"""Wake-ups by RabbitMQ, or another broker that speaks AMQP 0-9-1.

Every instance has a queue of its own at one fanout exchange; the queue is gone with its connection. Nothing is kept on the
broker's disk: what is lost was a hint.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import structlog

from folkmoot.server.wakers.remote import RemoteWaker
from folkmoot.transport.timeouts import KEEPALIVE_ANSWER_SECONDS, KEEPALIVE_SECONDS
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

EXCHANGE = "folkmoot"


class AmqpWaker(RemoteWaker):
    """Carries topics by a broker."""

    def __init__(self, url: str, log: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__(log)
        try:
            import aio_pika  # noqa: F401
        except ImportError as error:
            text = "waker: a broker needs more to be installed: pip install 'folkmoot[amqp]'"
            raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("waker", text),)) from error
        self._url = url
        self._name = uuid4().hex

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["_Exchange"]:
        """Connect, with a queue of its own."""
        import aio_pika
        from aio_pika.connection import make_url

        connection = aio_pika.Connection(make_url(self._url, heartbeat=int(KEEPALIVE_SECONDS)))
        async with connection:  # also one that never came about is to be closed
            await connection.connect(timeout=KEEPALIVE_ANSWER_SECONDS)
            channel = await connection.channel(publisher_confirms=False)
            exchange = await channel.declare_exchange(EXCHANGE, aio_pika.ExchangeType.FANOUT)
            queue = await channel.declare_queue(exclusive=True, auto_delete=True)
            await queue.bind(exchange)
            yield _Exchange(exchange, queue, self._name)


class _Exchange:
    """An open channel."""

    def __init__(self, exchange: Any, queue: Any, name: str) -> None:
        self._exchange = exchange
        self._queue = queue
        self._name = name

    async def send(self, topics: Sequence[str]) -> None:
        from aio_pika import Message

        await self._exchange.publish(Message("\n".join(topics).encode(), app_id=self._name), routing_key="")

    async def receive(self) -> AsyncIterator[Sequence[str]]:
        async with self._queue.iterator(no_ack=True) as messages:
            async for message in messages:
                if message.app_id != self._name:
                    yield message.body.decode(errors="replace").split("\n")
