"""Copies of a database that are of one moment, taken while servers work on it, and the way back.

Three kinds: SQLite's file by its own online backup; PostgreSQL's by `pg_dump`; and tables, one row per line, that need no
tool and go into either database, of whichever the rows came from.
"""

import base64
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, func, inspect, select, text
from sqlalchemy.engine import URL

from folkmoot.server.store import databases, migrate
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

BATCH_ROWS = 500
_BYTES = "base64"
_NUMBERS = "alembic_version"


class Kind(StrEnum):
    """How a copy was made; the value is its file's name."""

    SQLITE = "folkmoot.db"
    PG_DUMP = "database.dump"
    TABLES = "tables.jsonl"


def present(database: databases.Database) -> str | None:
    """Return the number of the migration that the database is at; None if it has no tables of ours."""
    with database.reading.begin() as connection:
        return migrate.present(connection)


def is_empty(database: databases.Database) -> bool:
    """Tell whether a database has no tables at all."""
    with database.reading.begin() as connection:
        return not inspect(connection).get_table_names()


def tool(name: str) -> str | None:
    """Return where a program of PostgreSQL is; Debian keeps those of several releases, of which the newest reads all."""
    return shutil.which(name) or next((str(path) for path in _debian(name)), None)


def _debian(name: str) -> list[Path]:
    found = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    return sorted(found, key=lambda path: float(path.parts[4]), reverse=True)


# ---- SQLite ----------------------------------------------------------------------------------------------------------


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy a database as of one moment; who writes to it is not held up. The copy is on disk when this returns."""
    target.touch(mode=0o600, exist_ok=False)
    reading, writing = (sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True) for path in (source, target))
    try:
        reading.backup(writing)
        # One file, that can be copied on as it is.
        writing.execute("PRAGMA journal_mode=DELETE")
        if (found := writing.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
            raise _unusable(f"the copy of {source} is damaged ({found}): look at the disk, and at the database itself")
    finally:
        reading.close()
        writing.close()


# ---- PostgreSQL's own ------------------------------------------------------------------------------------------------


def pg_dump(program: str, url: str, target: Path) -> None:
    """Write what PostgreSQL's own program makes of a database."""
    _run(program, url, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}")
    target.chmod(0o600)


def pg_restore(program: str, url: str, source: Path) -> None:
    """Read it back into an empty database: all of it, or nothing."""
    _run(program, url, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", str(source))


def _run(program: str, url: str, *arguments: str) -> None:
    parsed = databases.postgresql_url(url)
    environment = {**os.environ, "PGPASSWORD": parsed.password} if parsed.password else dict(os.environ)
    command = [program, f"--dbname={_for_tools(parsed)}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no word why"]
        raise _unusable(f"{Path(program).name} failed: {lines[0]} (--portable does without it)")


def _for_tools(url: URL) -> str:
    """Return the URL without the password, which every user of the machine could read there."""
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database, url.query)
    return shown.render_as_string()


# ---- tables ----------------------------------------------------------------------------------------------------------


def dump_tables(database: databases.Database, target: Path) -> None:
    """Write every row of every table, as of one moment."""
    with database.reading.begin() as connection, target.open("x") as file:
        target.chmod(0o600)
        for table in _tables(connection):
            names = [column.name for column in table.columns]
            file.write(json.dumps({"table": table.name, "columns": names}) + "\n")
            for row in connection.execution_options(yield_per=BATCH_ROWS).execute(select(table)):
                file.write(json.dumps([_encoded(value) for value in row]) + "\n")
        file.flush()
        os.fsync(file.fileno())


def load_tables(database: databases.Database, source: Path, number: str) -> None:
    """Make the tables of a migration in an empty database and read the rows into them: all of them, or nothing."""
    with database.migrating.begin() as connection:
        database.before_migration(connection)
        migrate.upgrade(connection, number)
        tables = {table.name: table for table in _tables(connection)}
        for table in reversed(tables.values()):
            connection.execute(table.delete())
        with source.open() as file:
            for table, rows in _read(file, tables):
                connection.execute(table.insert(), rows)
        if connection.dialect.name == "postgresql":
            _continue_numbers(connection, tables.values())


def _tables(connection: Connection) -> list[Table]:
    """Return the tables that there are, as the database has them, those that others refer to first."""
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != _NUMBERS]


def _read(lines: Iterable[str], tables: dict[str, Table]) -> Iterator[tuple[Table, list[dict[str, Any]]]]:
    table: Table | None = None
    names: list[str] = []
    rows: list[dict[str, Any]] = []
    for line in lines:
        value = json.loads(line)
        if isinstance(value, dict) or len(rows) == BATCH_ROWS:
            if table is not None and rows:
                yield table, rows
            rows = []
        if isinstance(value, dict):
            table, names = tables[value["table"]], value["columns"]
        else:
            rows.append({name: _decoded(one) for name, one in zip(names, value, strict=True)})
    if table is not None and rows:
        yield table, rows


def _encoded(value: object) -> object:
    return {_BYTES: base64.b64encode(value).decode()} if isinstance(value, bytes | memoryview) else value


def _decoded(value: Any) -> object:
    return base64.b64decode(value[_BYTES]) if isinstance(value, dict) else value


def _continue_numbers(connection: Connection, tables: Iterable[Table]) -> None:
    """Have PostgreSQL go on counting behind the rows that are there."""
    for table in tables:
        for column in table.primary_key:
            sequence = connection.scalar(
                text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
            )
            newest = connection.scalar(select(func.max(column))) if sequence else None
            if newest is not None:
                connection.execute(text("SELECT setval(:sequence, :newest)"), {"sequence": sequence, "newest": newest})


def _unusable(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("database", text),))
