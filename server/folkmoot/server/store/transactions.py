"""Transactions: a group of operations in one, run again after a conflict, looked up after a commit that is in doubt.

When one of a group fails, the group is rolled back and each is run alone, so that nobody pays for another's fault.
"""

import random
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import count

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from folkmoot.server.store.databases import Database, Trouble
from folkmoot.server.store.jobs import Job, Outcome, outcomes
from folkmoot.server.store.prepared import at_once
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

CONTENDED_SECONDS = 1.0
"""For how long writers take turns after a conflict."""
MOST_CONFLICTS = 20
"""How often a transaction is run again before its caller is told to come back."""
DATABASE_PATIENCE_SECONDS = 10.0
"""For how long a database that went away is waited for: a restart is shorter."""
LONGEST_PAUSE_SECONDS = 0.5
NAMES_FORGOTTEN_EVERY = 1000
"""So many groups of a writer's threads."""


class _Unknown(Exception):  # noqa: N818 -- an outcome, rather than an error
    """The database went away while it committed a transaction; by its name, what became of it can be asked."""

    def __init__(self, name: str, done: list[Outcome]) -> None:
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


class Writer:
    """Runs groups in transactions of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._turn = threading.Lock()
        self._contended_until = 0.0
        self._groups = count(1)

    def turn(self) -> AbstractContextManager[object]:
        """Wait for the turn of a thread if there were conflicts: what is queued meanwhile joins its group."""
        return self._turn if self._is_contended else nullcontext()

    @property
    def _is_contended(self) -> bool:
        return time.monotonic() < self._contended_until

    def run(self, group: list[Job]) -> list[Outcome]:
        """Run a group in one transaction, or each alone if one of them fails."""
        patience = _Patience()
        while True:
            try:
                return self._commit(group)
            except _Unknown as unknown:
                if self._was_committed(unknown, patience):
                    return unknown.done
                if patience.is_over:
                    return [Outcome(job, error=_unreachable(unknown)) for job in group]
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
                with self._database.migrating.begin() as connection:
                    return self._database.was_committed(connection, unknown.name)
            except DBAPIError as error:
                if self._database.trouble(error) is not Trouble.LOST:
                    raise
        return False

    def _give_up(self, group: list[Job], trouble: Trouble, error: BaseException) -> list[Outcome]:
        if trouble is Trouble.CONFLICT and len(group) > 1:
            return [outcome for job in group for outcome in self.run([job])]
        told = _unreachable(error) if trouble in (Trouble.CONFLICT, Trouble.LOST) else error
        return [Outcome(job, error=told) for job in group]

    def _commit(self, group: list[Job]) -> list[Outcome]:
        with self._database.writing.connect() as connection:
            transaction = connection.begin()
            try:
                if self._database.in_turn and self._is_contended:
                    connection.exec_driver_sql(self._database.in_turn)
                done = list(outcomes(connection, group))
            except BaseException as error:
                self._abandon(connection, error)
                raise
            name = None
            try:
                with at_once(connection):
                    name = self._database.name_transaction(connection)
                    transaction.commit()
            except DBAPIError as error:
                self._abandon(connection, error)
                if self._database.trouble(error) is Trouble.LOST and name is not None:
                    raise _Unknown(name, done) from error
                self._end(connection)
                raise
            self._forget_names(connection)
            return done

    def _forget_names(self, connection: Connection) -> None:
        """Every so many groups, remove the names of old ones. Where it fails, the next time is as good."""
        if next(self._groups) % NAMES_FORGOTTEN_EVERY == 0:
            with suppress(DBAPIError), connection.begin():
                self._database.forget_names(connection)

    @staticmethod
    def _end(connection: Connection) -> None:
        """End a transaction that failed to commit: the library takes it for over. If that fails, whoever is next will notice."""
        if not connection.invalidated:
            with suppress(connection.dialect.loaded_dbapi.Error):
                connection.connection.rollback()

    def _abandon(self, connection: Connection, error: BaseException) -> None:
        if self._database.trouble(error) is Trouble.LOST:
            connection.invalidate(error)


class Reader:
    """Runs groups on one snapshot each."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @staticmethod
    def turn() -> AbstractContextManager[object]:
        """Readers stand in nobody's way."""
        return nullcontext()

    def run(self, group: list[Job]) -> list[Outcome]:
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
                    return [Outcome(job, error=told) for job in group]

    def _look(self, group: list[Job]) -> list[Outcome]:
        with self._database.reading.connect() as connection, connection.begin():
            done = []
            for job in group:
                try:
                    done.append(Outcome(job, job.operation(connection)))
                except DBAPIError as error:  # the snapshot may be gone with it
                    if self._database.trouble(error) is Trouble.LOST:
                        connection.invalidate(error)
                    raise
                except BaseException as error:  # noqa: BLE001
                    done.append(Outcome(job, error=error))
            return done


def _unreachable(error: BaseException) -> FolkmootError:
    told = FolkmootError(
        errors_pb2.ERROR_REASON_DATABASE_UNREACHABLE,
        "The server's database is away or overloaded: whether this call took effect is not known. Repeat it as it is",
    )
    told.__cause__ = error
    return told
