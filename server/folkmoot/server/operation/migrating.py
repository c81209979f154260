"""`folkmoot server migrate`: migrations by hand, forwards and back, or only their SQL."""

from sqlalchemy import Connection

from folkmoot.server.config import Config
from folkmoot.server.operation import data_folder
from folkmoot.server.store import databases, migrate


def migrated(config: Config, *, to: str, down: bool, dry_run: bool) -> tuple[str | None, str, list[str]]:
    """Bring the database to a number (empty: the newest); return where it was, where it is, and what was executed.

    A dry run executes everything, so that it shows what would really happen to this database, and undoes it. Other
    servers must be stopped: with SQLite a running one is refused, with PostgreSQL its calls wait until this is over.
    """
    target = to or migrate.newest()
    with data_folder.opened(config):
        database = databases.connect(config.database, config.data / data_folder.DATABASE_FILE)
        try:
            with database.migrating.connect() as connection:
                transaction = connection.begin()
                database.before_migration(connection)
                before = migrate.present(connection)
                with migrate.told(connection) as statements:
                    _move(connection, target, down=down)
                (transaction.rollback if dry_run else transaction.commit)()
        finally:
            database.writing.dispose()
            database.reading.dispose()
    return before, target, statements


def _move(connection: Connection, target: str, *, down: bool) -> None:
    if down:
        migrate.downgrade(connection, target)
    else:
        migrate.upgrade(connection, target)
