"""The store: short functions on a database connection, run in threads, written in groups.

`await store.write(operation)` runs `operation(connection)` in a transaction in the one writer thread, which takes
whatever is queued into one transaction (a commit costs more than most operations) and never waits for more. When one of
a group fails, the group is rolled back and each is run alone, so that nobody pays for another's fault. Operations must
therefore be re-runnable and without side effects; what should happen after the commit goes into `then`.

`await store.read(operation)` runs in one of a few threads, on a snapshot that can't be written to.

A returned write is on disk: SQLite runs with a write-ahead log and `synchronous=FULL`.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

GROUP_SIZE = 64
READERS = 4
BUSY_MILLISECONDS = 10_000

T = TypeVar("T")
Operation = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Write:
    """An operation that waits for the writer thread, and where its outcome goes."""

    operation: Operation[Any]
    then: Callable[[Any], None] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of an operation: its value after the commit, or the error that undid it."""

    write: _Write
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Run the after-commit effect, then answer the caller, who may be gone by now."""
        if self.error is None and self.write.then is not None:
            self.write.then(self.value)
        if self.write.future.done():
            return
        if self.error is None:
            self.write.future.set_result(self.value)
        else:
            self.write.future.set_exception(self.error)


class Store:
    """A SQLite database with one writer thread and a few readers."""

    def __init__(self, path: Path) -> None:
        self._writers = _engine(path, begin="BEGIN IMMEDIATE", pool_size=1)
        self._readers = _engine(path, begin="BEGIN", pool_size=READERS, read_only=True)
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._writer = threading.Thread(target=self._write_groups, name="store-writer", daemon=True)
        self._writer.start()

    async def write(self, operation: Operation[T], *, then: Callable[[T], None] | None = None) -> T:
        """Run the operation in a transaction; return its value when it is durable.

        `then` is called with the value in the event loop, after the commit and before this returns; it is called even
        if the caller was cancelled meanwhile, because the commit stands. It must not raise.
        """
        loop = asyncio.get_running_loop()
        write = _Write(operation, then, loop, loop.create_future())
        self._queue.put(write)
        value: T = await write.future
        return value

    async def read(self, operation: Operation[T]) -> T:
        """Run the operation on a snapshot."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, operation)

    async def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        self._queue.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._pool.shutdown)
        self._readers.dispose()
        self._writers.dispose()

    def _read(self, operation: Operation[T]) -> T:
        with self._readers.connect() as connection:
            return operation(connection)

    def _write_groups(self) -> None:
        while (first := self._queue.get()) is not None:
            group, last = [first], False
            while len(group) < GROUP_SIZE and not last:
                try:
                    queued = self._queue.get_nowait()
                except queue.Empty:
                    break
                if queued is None:
                    last = True
                else:
                    group.append(queued)
            _tell(self._commit(group))
            if last:
                return

    def _commit(self, group: list[_Write]) -> list[_Outcome]:
        try:
            with self._writers.begin() as connection:
                done = [_Outcome(write, write.operation(connection)) for write in group]
        except BaseException as error:  # noqa: BLE001 -- whatever it is, its own caller gets it
            if len(group) == 1:
                return [_Outcome(group[0], error=error)]
            return [outcome for write in group for outcome in self._commit([write])]
        return done


def _tell(outcomes: list[_Outcome]) -> None:
    """Answer a group with one wake-up of each event loop."""
    for loop in {outcome.write.loop for outcome in outcomes}:
        mine = [outcome for outcome in outcomes if outcome.write.loop is loop]

        def tell(mine: list[_Outcome] = mine) -> None:
            for outcome in mine:
                outcome.tell()

        loop.call_soon_threadsafe(tell)


def _engine(path: Path, *, begin: str, pool_size: int, read_only: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=pool_size,
        max_overflow=0,
        # The driver must not open transactions by itself: it would do so too late, and not for every statement.
        connect_args={"isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
