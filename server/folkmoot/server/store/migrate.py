"""Brings a database to the tables of a release: this one's, or for a way back an earlier one's.

Migrations are numbered files; a database knows its number. Where the two agree, nothing is done and the migration
library is not even imported: it costs more time and memory than the rest of the start. Everything happens in the
connection's transaction, on SQLite as on PostgreSQL: a migration that fails has changed nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event, inspect, text

import folkmoot.server
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

_READS = ("SELECT", "PRAGMA")


def folder() -> Path:
    """Return where the migrations are: inside an installed package, or at the root of a checkout."""
    package = Path(folkmoot.server.__file__).parent
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parents[2] / "alembic"


def numbers() -> dict[str, str]:
    """Return the number of each migration, in order, with what it is about."""
    files = sorted((folder() / "versions").glob("[0-9]*_*.py"))
    return {path.name.split("_")[0]: path.stem.partition("_")[2].replace("_", " ").strip() for path in files}


def newest() -> str:
    """Return the number of the newest migration."""
    return max(numbers())


def present(connection: Connection) -> str | None:
    """Return the number of the last migration that was applied to the database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection, to: str = "") -> None:
    """Apply the migrations that the database lacks, up to a number or all.

    Raises FolkmootError if the database is of a later release, whose tables this one does not know.
    """
    now = present(connection)
    target = to or newest()
    if now == target:
        return
    _refuse_later(now)
    if now is not None and now > target and target in numbers():
        raise _impossible(
            f"the database is at {now}: going back to {target} is `folkmoot server migrate --down --to {target}`"
        )
    _run(connection, "upgrade", target)


def downgrade(connection: Connection, to: str) -> None:
    """Undo migrations down to a number. What later migrations have made room for is lost. Raises FolkmootError."""
    now = present(connection)
    if now == to:
        return
    _refuse_later(now)
    if to in numbers() and (now is None or now < to):
        raise _impossible(
            f"the database is at {now or 'no migration yet'}: there is no way back to {to}, which comes later"
        )
    _run(connection, "downgrade", to)


def _refuse_later(now: str | None) -> None:
    if now is not None and now > newest():
        raise _impossible(
            f"the database is of a later release (migration {now}, this release knows {newest()}): use that release, or"
            f" have it, not this one, go back by `folkmoot server migrate --down --to {newest()}`"
        )


@contextmanager
def told(connection: Connection) -> Iterator[list[str]]:
    """Collect the statements that change something, as they are executed."""
    statements: list[str] = []

    def tell(*execution: Any) -> None:
        _connection, _cursor, statement, parameters, _context, _many = execution
        if not statement.lstrip().upper().startswith(_READS):
            values = f"  -- {parameters!r}" if parameters else ""
            statements.append(statement.strip() + ";" + values)

    event.listen(connection, "before_cursor_execute", tell)
    try:
        yield statements
    finally:
        event.remove(connection, "before_cursor_execute", tell)


def _run(connection: Connection, direction: str, to: str) -> None:
    if to not in numbers():
        raise _impossible(f"there is no migration {to}; those of this release are {min(numbers())} to {newest()}")
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder()))
    config.attributes["connection"] = connection
    getattr(command, direction)(config, to)


def _impossible(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("to", text),))
