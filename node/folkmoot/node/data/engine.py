"""DuckDB, shut in: it opens the files that it was given, and can't be told otherwise."""

import threading
from collections.abc import Iterable

import duckdb

MEMORY = "128MB"
"""What DuckDB may hold. It streams; this bounds row groups and strings, not the table."""

QUERY_MEMORY = "512MB"
"""The same for views and queries, which sort, join and group."""

THREADS = 2
SAMPLE_ROWS = 204_800
"""Rows by which types are guessed where a file does not tell them."""


def open_engine(*, memory: str = MEMORY, threads: int = THREADS) -> duckdb.DuckDBPyConnection:
    """Return an engine to which sources can be added; nothing of an algorithm may reach it before `shut_in`."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    _set(
        connection,
        "TimeZone = 'UTC'",
        "disable_parquet_prefetching = true",  # it would hold a row group at once, and those can be of any size
        "disabled_optimizers = 'statistics_propagation'",  # it takes a file's smallest and largest value for all: NaN is neither
    )
    return connection


def shut_in(connection: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """From now on the engine opens these files, and no setting can be changed."""
    listed = ", ".join(quoted_text(path) for path in paths)
    _set(connection, f"allowed_paths = [{listed}]", "enable_external_access = false", "lock_configuration = true")


def name_view(connection: duckdb.DuckDBPyConnection, relation: duckdb.DuckDBPyRelation, name: str) -> None:
    """Give a relation a name, which lasts as long as the connection, whatever database it is of."""
    connection.execute(f"CREATE TEMP VIEW {quoted_name(name)} AS {relation.sql_query()}")


def interrupt_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> None:
    """End what the engine does when its time is over."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()


def quoted_text(text: str) -> str:
    """A text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def quoted_name(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _set(connection: duckdb.DuckDBPyConnection, *settings: str) -> None:
    for setting in settings:
        connection.execute(f"SET {setting}")
