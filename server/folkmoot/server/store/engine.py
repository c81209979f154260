"""The store: short functions on a database connection, run in threads, written in groups.

`await store.write(operation)` runs `operation(connection)` in a transaction in a writer thread, which takes whatever is
queued into one transaction (a commit costs more than most operations) and never waits for more. When one of a group
fails, the group is rolled back and each is run alone, so that nobody pays for another's fault. Operations must therefore
be re-runnable and without side effects; what should happen after the commit goes into `then`.

`await store.read(operation)` runs in one of a few threads, on a snapshot that can't be written to; reads that are queued
share one.

A returned write is on disk. On SQLite there is one writer: writes happen in the order in which they are asked for. On
PostgreSQL there are several, here and in other instances of the server: what must keep its order says so by `order`,
transactions that come between each other are run again, and after a conflict writers take turns for a while, because
groups that are run again and again are slower than groups that wait.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import TypeVar

from folkmoot.server.store.databases import Database
from folkmoot.server.store.jobs import Operation
from folkmoot.server.store.lanes import Lane
from folkmoot.server.store.transactions import Reader, Writer

WRITE_GROUP = 64
READ_GROUP = 8

T = TypeVar("T")


class Store:
    """A database with its writer threads and a few readers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = Lane("store-writer", Writer(database), threads=database.writers, group=WRITE_GROUP)
        self._reading = Lane("store-reader", Reader(database), threads=database.readers, group=READ_GROUP)

    @property
    def shared(self) -> bool:
        """Whether other instances of the server may write to the database: what is in memory may be behind."""
        return self._database.shared

    @property
    def queued(self) -> dict[str, int]:
        """How many groups of operations wait for a thread, by what they do."""
        return {"write": self._writing.queued, "read": self._reading.queued}

    async def write(
        self, operation: Operation[T], *, then: Callable[[T], None] | None = None, order: Hashable = None
    ) -> T:
        """Run the operation in a transaction; return its value when it is durable.

        `then` is called with the value in the event loop, after the commit and before this returns; it is called even
        if the caller was cancelled meanwhile, because the commit stands. It must not raise. Operations of the same
        `order` are run in the order of their calls.

        Raises DATABASE_UNREACHABLE when the database is away for long: it has happened or not, and the caller repeats
        his call.
        """
        value: T = await self._writing.submit(operation, then, order)
        return value

    async def read(self, operation: Operation[T]) -> T:
        """Run the operation on a snapshot; raise DATABASE_UNREACHABLE."""
        value: T = await self._reading.submit(operation, None)
        return value

    async def migrate(self, operation: Operation[T]) -> T:
        """Run an operation that changes tables, once no other instance does such a thing."""

        def alone() -> T:
            with self._database.migrating.begin() as connection:
                self._database.before_migration(connection)
                return operation(connection)

        return await asyncio.to_thread(alone)

    async def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        await self._writing.close()
        await self._reading.close()
        self._database.writing.dispose()
        self._database.reading.dispose()
