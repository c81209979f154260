"""The waker that the settings ask for."""

from contextlib import AbstractAsyncContextManager, nullcontext

import structlog

from folkmoot.server.config import Config
from folkmoot.server.store.databases import postgresql_url
from folkmoot.server.wakers import POLL_SECONDS, Waker
from folkmoot.server.wakers.local import LocalWaker


def choose(
    config: Config, log: structlog.typing.FilteringBoundLogger
) -> tuple[Waker, AbstractAsyncContextManager[object]]:
    """Return the waker, and the context in which it works; raise INVALID_FIELD if something is not installed."""
    kind = config.waker or ("postgres" if config.database else "local")
    if kind == "local":
        return LocalWaker(POLL_SECONDS if config.database else None), nullcontext()
    if kind == "postgres":
        from folkmoot.server.wakers.postgres import PostgresWaker

        by_database = PostgresWaker(postgresql_url(config.database), log)
        return by_database, by_database.running()
    from folkmoot.server.wakers.amqp import AmqpWaker

    by_broker = AmqpWaker(kind, log)
    return by_broker, by_broker.running()
