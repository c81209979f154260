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
import queue
import random
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from folkmoot.server.store.databases import Database, Trouble
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

WRITE_GROUP = 64
READ_GROUP = 8
CONTENDED_SECONDS = 1.0
"""For how long writers take turns after a conflict."""
MOST_CONFLICTS = 20
"""How often a transaction is run again before its caller is told to come back."""
DATABASE_PATIENCE_SECONDS = 10.0
"""For how long a database that went away is waited for: a restart is shorter."""
LONGEST_PAUSE_SECONDS = 0.5

T = TypeVar("T")
Operation = Callable[[Connection], T]


@dataclass(frozen=True, slots=True)
class _Job:
    """An operation that waits for a thread, and where its outcome goes."""

    operation: Operation[Any]
    then: Callable[[Any], None] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    order: Hashable = None


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
    """A database with its writer threads and a few readers."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writing = _Lane("store-writer", _Writer(database), threads=database.writers, group=WRITE_GROUP)
        self._reading = _Lane("store-reader", _Reader(database), threads=database.readers, group=READ_GROUP)

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


# ---- threads -------------------------------------------------------------------------------------------------------


class _Lane:
    """Threads that take operations from one queue, in groups of what is there."""

    def __init__(self, name: str, worker: "_Writer | _Reader", *, threads: int, group: int) -> None:
        self._worker = worker
        self._group = group
        # One thread keeps the order of everything by itself.
        self._keeps_order = threads > 1
        self._behind: dict[Hashable, list[_Job]] = {}
        self._changing = threading.Lock()
        self._queue: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """How much waits for a thread."""
        return self._queue.qsize()

    def submit(
        self, operation: Operation[Any], then: Callable[[Any], None] | None, order: Hashable = None
    ) -> asyncio.Future[Any]:
        """Queue an operation; its outcome is told in the event loop that asks."""
        loop = asyncio.get_running_loop()
        job = _Job(operation, then, loop, loop.create_future(), order)
        if order is not None and self._keeps_order:
            with self._changing:
                if (behind := self._behind.get(order)) is not None:
                    behind.append(job)
                    return job.future
                self._behind[order] = []
        self._queue.put([job])
        return job.future

    async def close(self) -> None:
        """Finish what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        closing = False
        while not closing and (first := self._queue.get()) is not None:
            with self._worker.turn():
                group = list(first)
                while len(group) < self._group:
                    try:
                        jobs = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if jobs is None:
                        closing = True
                        break
                    group += jobs
                outcomes = self._worker.run(group)
            while outcomes:
                _tell(outcomes)
                outcomes = self._follow(outcomes, at_once=closing)

    def _follow(self, outcomes: list[_Outcome], *, at_once: bool) -> list[_Outcome]:
        """Let go on what waited for these: other threads take it, unless this one is the last."""
        if not self._keeps_order:
            return []
        done = {outcome.job.order for outcome in outcomes} - {None}
        following: list[_Job] = []
        with self._changing:
            for order in done:
                if behind := self._behind.pop(order, []):
                    self._behind[order] = []
                    following += behind
        if following and at_once:
            return self._worker.run(following)
        if following:
            self._queue.put(following)
        return []


def _tell(outcomes: list[_Outcome]) -> None:
    """Answer a group with one wake-up of each event loop."""
    for loop in {outcome.job.loop for outcome in outcomes}:
        mine = [outcome for outcome in outcomes if outcome.job.loop is loop]

        def tell(mine: list[_Outcome] = mine) -> None:
            for outcome in mine:
                outcome.tell()

        loop.call_soon_threadsafe(tell)


# ---- transactions --------------------------------------------------------------------------------------------------


class _Unknown(Exception):  # noqa: N818 -- an outcome, rather than an error
    """The database went away while it committed a transaction; by its name, what became of it can be asked."""

    def __init__(self, name: str, done: list[_Outcome]) -> None:
        super().__init__(name)
        self.name = name
        self.done = done


class _Patience:
    """How long a transaction is tried: so many conflicts, so long without a database."""

    def __init__(self) -> None:
        self._conflicts = 0
        self._doubts = 0
        self._lost = 0
        self._lost_since: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the database was waited for long enough."""
        return self._lost_since is not None and time.monotonic() - self._lost_since >= DATABASE_PATIENCE_SECONDS

    def goes_on(self, trouble: Trouble) -> bool:
        """Count one more failure; pause and tell whether to try again."""
        match trouble:
            case Trouble.CONFLICT:
                self._conflicts += 1
                _pause(self._conflicts)
                return self._conflicts <= MOST_CONFLICTS
            case Trouble.PERHAPS_CONFLICT:
                self._doubts += 1
                return self._doubts == 1
            case Trouble.LOST:
                self._lost += 1
                self._lost_since = self._lost_since or time.monotonic()
                _pause(self._lost)
                return not self.is_over
            case Trouble.FAULT:
                return False


def _pause(failures: int) -> None:
    """Wait a little, longer each time and not as long as others."""
    time.sleep(min(LONGEST_PAUSE_SECONDS, 0.002 * 2**failures) * random.random())  # noqa: S311 -- no secret


class _Writer:
    """Runs groups in transactions of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._contended_until = 0.0

    def turn(self) -> AbstractContextManager[object]:
        """Wait for the turn of a thread if there were conflicts: what is queued meanwhile joins its group."""
        return self._turn if self._is_contended else nullcontext()

    @property
    def _is_contended(self) -> bool:
        return time.monotonic() < self._contended_until

    def run(self, group: list[_Job]) -> list[_Outcome]:
        """Run a group in one transaction, or each alone if one of them fails."""
        patience = _Patience()
        while True:
            try:
                return self._commit(group)
            except _Unknown as unknown:
                if self._was_committed(unknown, patience):
                    return unknown.done
                if patience.is_over:
                    return [_Outcome(job, error=_unreachable(unknown)) for job in group]
            except BaseException as error:  # noqa: BLE001 -- whatever it is, its own caller gets it
                trouble = self._database.trouble(error)
                if trouble is Trouble.CONFLICT:
                    self._contended_until = time.monotonic() + CONTENDED_SECONDS
                if len(group) > 1 and trouble in (Trouble.FAULT, Trouble.PERHAPS_CONFLICT):
                    return [outcome for job in group for outcome in self.run([job])]
                if not patience.goes_on(trouble):
                    return self._give_up(group, trouble, error)

    def _was_committed(self, unknown: _Unknown, patience: _Patience) -> bool:
        """Tell whether the database has committed after all, as soon as it is there again; False if patience is over before that."""
        while patience.goes_on(Trouble.LOST):
            try:
                with self._database.reading.connect() as connection:
                    committed = self._database.was_committed(connection, unknown.name)
            except DBAPIError as error:
                if self._database.trouble(error) is not Trouble.LOST:
                    raise
            else:
                if committed is not None:
                    return committed
        return False

    def _give_up(self, group: list[_Job], trouble: Trouble, error: BaseException) -> list[_Outcome]:
        if trouble is Trouble.CONFLICT and len(group) > 1:
            return [outcome for job in group for outcome in self.run([job])]
        told = _unreachable(error) if trouble in (Trouble.CONFLICT, Trouble.LOST) else error
        return [_Outcome(job, error=told) for job in group]

    def _commit(self, group: list[_Job]) -> list[_Outcome]:
        with self._database.writing.connect() as connection:
            transaction = connection.begin()
            try:
                if self._database.in_turn and self._is_contended:
                    connection.exec_driver_sql(self._database.in_turn)
                done = [_Outcome(job, job.operation(connection)) for job in group]
                name = self._database.name_transaction(connection)
            except BaseException as error:
                self._abandon(connection, error)
                raise
            try:
                transaction.commit()
            except DBAPIError as error:
                self._abandon(connection, error)
                if self._database.trouble(error) is Trouble.LOST and name is not None:
                    raise _Unknown(name, done) from error
                raise
            return done

    def _abandon(self, connection: Connection, error: BaseException) -> None:
        if self._database.trouble(error) is Trouble.LOST:
            connection.invalidate(error)


class _Reader:
    """Runs groups on one snapshot each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def turn() -> AbstractContextManager[object]:
        """Readers stand in nobody's way."""
        return nullcontext()

    def run(self, group: list[_Job]) -> list[_Outcome]:
        """Run a group on one snapshot; a failing read spoils nobody else's."""
        patience = _Patience()
        while True:
            try:
                return self._look(group)
            except BaseException as error:  # noqa: BLE001
                trouble = self._database.trouble(error)
                if len(group) > 1 and trouble is not Trouble.LOST:
                    return [outcome for job in group for outcome in self.run([job])]
                if not patience.goes_on(trouble):
                    told = _unreachable(error) if trouble is Trouble.LOST else error
                    return [_Outcome(job, error=told) for job in group]

    def _look(self, group: list[_Job]) -> list[_Outcome]:
        with self._database.reading.connect() as connection, connection.begin():
            outcomes = []
            for job in group:
                try:
                    outcomes.append(_Outcome(job, job.operation(connection)))
                except DBAPIError as error:  # the snapshot may be gone with it
                    if self._database.trouble(error) is Trouble.LOST:
                        connection.invalidate(error)
                    raise
                except BaseException as error:  # noqa: BLE001
                    outcomes.append(_Outcome(job, error=error))
            return outcomes


def _unreachable(error: BaseException) -> FolkmootError:
    told = FolkmootError(
        errors_pb2.ERROR_REASON_DATABASE_UNREACHABLE,
        "The server's database is away or overloaded: whether this call took effect is not known. Repeat it as it is",
    )
    told.__cause__ = error
    return told
