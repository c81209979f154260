"""`folkmoot server migrate`: migrations by hand, forwards and back, or only their SQL."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, String, cast, column, func, inspect, select, table

from folkmoot.server.config import Config
from folkmoot.server.operation import data_folder
from folkmoot.server.store import databases, instance_rows, migrate
from folkmoot.server.store.databases import Database
from folkmoot.server.store.instance_tables import instances
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

SIGN_OF_LIFE_SECONDS = 3.0
"""Within so long a server that works on the database has shown that it is alive."""
_EMPTY = ("", "0", "false", "[]", "{}")
"""What migrations give to rows that were there before: nobody loses that."""


def migrated(config: Config, *, to: str, down: bool, dry_run: bool) -> tuple[str | None, str, list[str]]:
    """Bring the database to a number (empty: the newest); return where it was, where it is, and what was executed.

    A dry run executes everything, so that it shows what would really happen to this database, and undoes it. With SQLite a
    running server is in the way. With PostgreSQL the calls of others wait until this is over, and the way back is refused
    while there are any. All of it is one transaction: what is killed has changed nothing.
    """
    target = to or migrate.newest()
    with _opened(config) as database:
        if down and not dry_run:
            _refuse_company(database)
        with database.migrating.connect() as connection:
            transaction = connection.begin()
            database.before_migration(connection)
            before = migrate.present(connection)
            with migrate.told(connection) as statements:
                _move(connection, target, down=down)
            (transaction.rollback if dry_run else transaction.commit)()
    return before, target, statements


def losses(config: Config, to: str) -> list[str]:
    """Return what is in the tables and columns that the way back to a number drops."""
    with _opened(config) as database:
        with database.migrating.connect() as connection:
            transaction = connection.begin()
            database.before_migration(connection)
            before = _columns(connection)
            migrate.downgrade(connection, to)
            after = _columns(connection)
            transaction.rollback()
        with database.reading.begin() as connection:
            return [told for name, names in before.items() for told in _lost(connection, name, names, after.get(name))]


def _lost(connection: Connection, name: str, names: list[str], after: list[str] | None) -> Iterator[str]:
    if after is None:
        if count := connection.scalar(select(func.count()).select_from(table(name))):
            yield f"{name}: {count} rows"
        return
    for gone in [one for one in names if one not in after]:
        filled = cast(column(gone), String).not_in(_EMPTY)
        if count := connection.scalar(select(func.count()).select_from(table(name)).where(filled)):
            yield f"{name}.{gone}: {count} values"


def _columns(connection: Connection) -> dict[str, list[str]]:
    found = inspect(connection)
    return {name: [one["name"] for one in found.get_columns(name)] for name in sorted(found.get_table_names())}


@contextmanager
def _opened(config: Config) -> Iterator[Database]:
    with data_folder.opened(config):
        database = databases.connect(config.database, config.data / data_folder.DATABASE_FILE)
        try:
            yield database
        finally:
            database.writing.dispose()
            database.reading.dispose()


def _refuse_company(database: Database) -> None:
    """Raise INVALID_FIELD if servers are at work on the database: they would find tables gone that they need."""
    before = _beats(database)
    if not (before and database.shared):
        return
    time.sleep(SIGN_OF_LIFE_SECONDS)  # one that was killed has left its row, and its beat stands still
    now = _beats(database)
    if alive := sum(now[one] != beat for one, beat in before.items() if one in now) + len(now.keys() - before.keys()):
        text = f"{alive} of this release's servers work on this database: stop all of them before going back"
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("database", text),))


def _beats(database: Database) -> dict[str, int]:
    with database.reading.begin() as connection:
        return instance_rows.beats(connection) if inspect(connection).has_table(instances.name) else {}


def _move(connection: Connection, target: str, *, down: bool) -> None:
    if down:
        migrate.downgrade(connection, target)
    else:
        migrate.upgrade(connection, target)
