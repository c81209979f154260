"""The databases that a store works on, and what their errors mean.

SQLite: one file, one writer, nobody else. PostgreSQL: several writers, in several instances of the server, each
transaction SERIALIZABLE: what two of them do at once is as if one had come after the other, or one of them fails and is
run again. Reads are of one moment and can't write, in both.

Libraries of PostgreSQL are imported when a server is told to use it, and never else.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from folkmoot.transport.timeouts import KEEPALIVE_ANSWER_SECONDS, KEEPALIVE_SECONDS
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

SQLITE_READERS = 2  # more would fight for the interpreter with the event loop
SQLITE_BUSY_MILLISECONDS = 10_000
POSTGRES_WRITERS = 4
POSTGRES_READERS = 4
POSTGRES_PAUSE_SECONDS = 20
"""How long a transaction may do nothing: one of an instance that was paused must not hold up the others."""
POSTGRES_CONNECTION: dict[str, Any] = {
    "application_name": "folkmoot",
    "connect_timeout": int(KEEPALIVE_ANSWER_SECONDS),
    "keepalives_idle": int(KEEPALIVE_SECONDS),
    "keepalives_interval": int(KEEPALIVE_ANSWER_SECONDS),
    "keepalives_count": 1,
    "tcp_user_timeout": int(1000 * (KEEPALIVE_SECONDS + KEEPALIVE_ANSWER_SECONDS)),
}
"""A connection that was cut without a word is noticed as one to a server is."""
NAMES_SECONDS = 3600.0
"""For how long a transaction's name is kept: much longer than anybody waits for a database, and than clocks differ."""
SCHEMES = ("postgresql", "postgres")

_CONFLICTS = ("40001", "40P01")  # serialization failure, deadlock
_LOST_CLASSES = ("08", "57P")  # connection exceptions; the server was told to stop, has crashed, or starts
_LOST = ("25P03", "53300")  # the transaction paused for too long; too many connections


class Trouble(Enum):
    """What the error of a transaction means for it."""

    FAULT = auto()
    """It would fail again."""
    CONFLICT = auto()
    """Somebody else's transaction came between; run it again."""
    PERHAPS_CONFLICT = auto()
    """A row is there already: perhaps since a moment ago. Run it again once, and it sees the row."""
    LOST = auto()
    """The database went away, and the transaction with it; connect, and run it again."""


@dataclass(frozen=True, slots=True)
class Database:
    """How to work on a database."""

    writing: Engine
    reading: Engine
    migrating: Engine
    """One that sees what was committed while it waited for its turn."""
    writers: int
    readers: int
    shared: bool
    """Whether other instances of the server may use it, too."""
    trouble: Callable[[BaseException], Trouble]
    before_migration: Callable[[Connection], None]
    """Wait until nobody else migrates; called as the first of a transaction."""
    name_transaction: Callable[[Connection], str | None] = lambda _connection: None
    """Leave a name in a transaction that has written something, by which to ask what became of it; None: it is never in doubt."""
    was_committed: Callable[[Connection, str], bool] = lambda _connection, _name: False
    """Whether a transaction of that name was committed; if not, it never will be. Waits while it goes on."""
    forget_names: Callable[[Connection], None] = lambda _connection: None
    """Remove the names of transactions that nobody asks about any more."""
    in_turn: str = ""
    """The statement that lets a transaction wait for its turn among those that have met conflicts."""


def connect(url: str, path: Path) -> Database:
    """Return the database of a URL, or of the SQLite file if there is none; raise INVALID_FIELD."""
    return postgresql(url) if url else sqlite(path)


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def sqlite(path: Path) -> Database:
    """Return the database of a file, which is made if it is not there."""
    path.touch(mode=0o600)  # what SQLite puts beside it has its mode, whoever made the folder
    path.chmod(0o600)
    writing = _sqlite_engine(path, begin="BEGIN IMMEDIATE", connections=1)
    return Database(
        writing=writing,
        migrating=writing,
        reading=_sqlite_engine(path, begin="BEGIN", connections=SQLITE_READERS, read_only=True),
        writers=1,
        readers=SQLITE_READERS,
        shared=False,
        trouble=lambda _error: Trouble.FAULT,
        before_migration=lambda _connection: None,
    )


def _sqlite_engine(path: Path, *, begin: str, connections: int, read_only: bool = False) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        paramstyle="named",  # what Prepared hands over
        # The driver must not open transactions by itself: it would do so too late, and not for every statement.
        connect_args={"isolation_level": None, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_MILLISECONDS}")
        if read_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


# ---- PostgreSQL ------------------------------------------------------------------------------------------------------


def postgresql(url: str) -> Database:
    """Return the database of a URL such as postgresql://user@host/name; raise INVALID_FIELD."""
    target = postgresql_url(url)
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # it warns of conflicts, which are run again
    writing = _postgresql_engine(target, "SERIALIZABLE", connections=POSTGRES_WRITERS)
    return Database(
        writing=writing,
        migrating=writing.execution_options(isolation_level="READ COMMITTED"),
        reading=_postgresql_engine(target, "REPEATABLE READ", connections=POSTGRES_READERS, read_only=True),
        writers=POSTGRES_WRITERS,
        readers=POSTGRES_READERS,
        shared=True,
        trouble=_postgresql_trouble,
        before_migration=_postgresql_migrates_alone,
        name_transaction=_postgresql_transaction,
        was_committed=_postgresql_was_committed,
        forget_names=_postgresql_forget_names,
        # Not an advisory lock: asking for one is a query, and would fix what the transaction sees before it has its turn.
        in_turn="LOCK TABLE write_turns IN EXCLUSIVE MODE",
    )


def postgresql_url(url: str) -> URL:
    """Return what a URL of the setting `database` names; raise INVALID_FIELD, never repeating the URL: it may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in SCHEMES:
        raise _invalid("this is not postgresql://user@host/name; leave it empty for SQLite in the data folder")
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise _invalid("PostgreSQL needs more to be installed: pip install 'folkmoot[server-postgres]'") from error
    return parsed.set(drivername="postgresql+psycopg")


def _postgresql_engine(url: URL, isolation: Any, *, connections: int, read_only: bool = False) -> Engine:
    settings = f"-c idle_in_transaction_session_timeout={int(POSTGRES_PAUSE_SECONDS)}s"
    engine = create_engine(
        url,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # errors are logged: what was to be stored is none of the log's business
        isolation_level=isolation,
        connect_args={"options": settings, **POSTGRES_CONNECTION},
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.read_only = read_only

    return engine


def _postgresql_trouble(error: BaseException) -> Trouble:
    cause = error if isinstance(error, DBAPIError) else error.__cause__
    if isinstance(cause, IntegrityError):
        return Trouble.PERHAPS_CONFLICT
    if not isinstance(cause, DBAPIError):
        return Trouble.FAULT
    state = getattr(cause.orig, "sqlstate", None)
    if state in _CONFLICTS:
        return Trouble.CONFLICT
    # The driver's own words for a connection that broke have no state.
    broken = state is None and type(cause.orig).__name__ == "OperationalError"
    if cause.connection_invalidated or broken or state in _LOST or (state or "").startswith(_LOST_CLASSES):
        return Trouble.LOST
    return Trouble.FAULT


def _postgresql_transaction(connection: Connection) -> str:
    # Not the transaction's number: a database that crashed gives the numbers of what it lost again.
    name = token_hex(16)
    named = "INSERT INTO commits (name, at) SELECT %(name)s, %(at)s WHERE pg_current_xact_id_if_assigned() IS NOT NULL"
    connection.exec_driver_sql(named, {"name": name, "at": _microseconds()})
    return name


def _postgresql_was_committed(connection: Connection, name: str) -> bool:
    claim = "INSERT INTO commits (name, at) VALUES (%(name)s, %(at)s) ON CONFLICT DO NOTHING"
    return connection.exec_driver_sql(claim, {"name": name, "at": _microseconds()}).rowcount == 0


def _postgresql_forget_names(connection: Connection) -> None:
    before = _microseconds() - int(NAMES_SECONDS * 1_000_000)
    connection.exec_driver_sql("DELETE FROM commits WHERE at < %(before)s", {"before": before})


def _microseconds() -> int:
    return time.time_ns() // 1000


def _postgresql_migrates_alone(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('folkmoot migrates'))")


def _invalid(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"database: {text}", violations=(("database", text),))
