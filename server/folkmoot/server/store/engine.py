"""The store: short functions on a database connection, run in threads, written in groups.

`await store.write(operation)` runs `operation(connection)` in a transaction in the one writer thread, which takes
whatever is queued into one transaction (a commit costs more than most operations) and never waits for more. When one of
a group fails, the group is rolled back and each is run alone, so that nobody pays for another's fault. Operations must
therefore be re-runnable and without side effects; what should happen after the commit goes into `then`.

`await store.read(operation)` runs in one of a few threads, on a snapshot that can't be written to; reads that are queued
share one.

A returned write is on disk: SQLite runs with a write-ahead log and `synchronous=FULL`.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event

WRITE_GROUP = 64
READ_GROUP = 8
READERS = 2  # more would fight for the interpreter with the event loop
BUSY_MILLISECONDS = 10_000

T = TypeVar("T")
Operation = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Job:
    """An operation that waits for a thread, and where its outcome goes."""

    operation: Operation[Any]
    then: Callable[[Any], None] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of an operation: its value when its transaction is over, or the error that undid it."""

    job: _Job
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Run the after-commit effect, then answer the caller, who may be gone by now."""
        if self.error is None and self.job.then is not None:
            self.job.then(self.value)
        if self.job.future.done():
            return
        if self.error is None:
            self.job.future.set_result(self.value)
        else:
            self.job.future.set_exception(self.error)


class Store:
    """A SQLite database with one writer thread and a few readers."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)  # what SQLite puts beside it has its mode, whoever made the folder
        path.chmod(0o600)
        writing = _engine(path, begin="BEGIN IMMEDIATE", connections=1)
        reading = _engine(path, begin="BEGIN", connections=READERS, read_only=True)
        self._writing = _Lane("store-writer", writing, _write, threads=1, group=WRITE_GROUP)
        self._reading = _Lane("store-reader", reading, _read, threads=READERS, group=READ_GROUP)

    async def write(self, operation: Operation[T], *, then: Callable[[T], None] | None = None) -> T:
        """Run the operation in a transaction; return its value when it is durable.

        `then` is called with the value in the event loop, after the commit and before this returns; it is called even
        if the caller was cancelled meanwhile, because the commit stands. It must not raise.
        """
        value: T = await self._writing.submit(operation, then)
        return value

    async def read(self, operation: Operation[T]) -> T:
        """Run the operation on a snapshot."""
        value: T = await self._reading.submit(operation, None)
        return value

    async def close(self) -> None:
        """Finish what is queued, then let go of the database."""
        await self._writing.close()
        await self._reading.close()


class _Lane:
    """Threads that take operations from one queue, in groups of what is there."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        work: Callable[[Engine, list[_Job]], list[_Outcome]],
        *,
        threads: int,
        group: int,
    ) -> None:
        self._engine = engine
        self._work = work
        self._group = group
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, operation: Operation[Any], then: Callable[[Any], None] | None) -> asyncio.Future[Any]:
        """Queue an operation; its outcome is told in the event loop that asks."""
        loop = asyncio.get_running_loop()
        job = _Job(operation, then, loop, loop.create_future())
        self._queue.put(job)
        return job.future

    async def close(self) -> None:
        """Finish what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._engine.dispose()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, closing = [first], False
            while len(group) < self._group and not closing:
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    closing = True
                else:
                    group.append(job)
            _tell(self._work(self._engine, group))
            if closing:
                return


def _write(engine: Engine, group: list[_Job]) -> list[_Outcome]:
    """Run a group in one transaction, or each alone if one of them fails."""
    try:
        with engine.begin() as connection:
            done = [_Outcome(job, job.operation(connection)) for job in group]
    except BaseException as error:  # noqa: BLE001 -- whatever it is, its own caller gets it
        if len(group) == 1:
            return [_Outcome(group[0], error=error)]
        return [outcome for job in group for outcome in _write(engine, [job])]
    return done


def _read(engine: Engine, group: list[_Job]) -> list[_Outcome]:
    """Run a group on one snapshot; a failing read spoils nobody else's."""
    try:
        with engine.begin() as connection:
            return [_attempt(job, connection) for job in group]
    except BaseException as error:  # noqa: BLE001
        return [_Outcome(job, error=error) for job in group]


def _attempt(job: _Job, connection: Connection) -> _Outcome:
    try:
        return _Outcome(job, job.operation(connection))
    except BaseException as error:  # noqa: BLE001
        return _Outcome(job, error=error)


def _tell(outcomes: list[_Outcome]) -> None:
    """Answer a group with one wake-up of each event loop."""
    for loop in {outcome.job.loop for outcome in outcomes}:
        mine = [outcome for outcome in outcomes if outcome.job.loop is loop]

        def tell(mine: list[_Outcome] = mine) -> None:
            for outcome in mine:
                outcome.tell()

        loop.call_soon_threadsafe(tell)


def _engine(path: Path, *, begin: str, connections: int, read_only: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        paramstyle="named",  # what Prepared hands over
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
