"""Wake-ups by PostgreSQL's LISTEN and NOTIFY: nothing but the database is needed.

Both have connections of their own. Topics are notified after their transaction, not in it: a transaction that notifies
commits alone in the whole database.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from sqlalchemy.engine import URL

from folkmoot.server.store.databases import POSTGRES_CONNECTION
from folkmoot.server.wakers.remote import RemoteWaker

CHANNEL = "folkmoot"
_NOTIFY = "SELECT pg_notify(%s, topic) FROM unnest(%s::text[]) AS topic"


class PostgresWaker(RemoteWaker):
    """Carries topics by the database that the server works on."""

    def __init__(self, url: URL, log: structlog.typing.FilteringBoundLogger) -> None:
        super().__init__(log)
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["_Notifications"]:
        """Connect twice: to listen, and to notify."""
        from psycopg import AsyncConnection

        async with (
            await AsyncConnection.connect(self._url, autocommit=True, **POSTGRES_CONNECTION) as listening,
            await AsyncConnection.connect(self._url, autocommit=True, **POSTGRES_CONNECTION) as notifying,
        ):
            await listening.execute(f"LISTEN {CHANNEL}")
            yield _Notifications(listening, notifying)


class _Notifications:
    """The two connections."""

    def __init__(self, listening: Any, notifying: Any) -> None:
        self._listening = listening
        self._notifying = notifying
        self._own = notifying.info.backend_pid

    async def send(self, topics: Sequence[str]) -> None:
        await self._notifying.execute(_NOTIFY, (CHANNEL, list(topics)))

    async def receive(self) -> AsyncIterator[Sequence[str]]:
        async for notification in self._listening.notifies():
            if notification.pid != self._own:
                yield [notification.payload]
