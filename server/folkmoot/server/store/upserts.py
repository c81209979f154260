"""Inserts that meet rows which are there already, written once for both databases.

SQLite and PostgreSQL spell ON CONFLICT alike, and SQLAlchemy has a construct of it for each: the one of the connection's
database is taken, so that no operation has to know which one it runs on.
"""

from functools import cache
from typing import Any

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects import sqlite


@cache
def _postgresql() -> type:
    """Return PostgreSQL's construct, with the parameters in SQLite's order; loaded by servers that use it."""
    from sqlalchemy.dialects import postgresql

    class Insert(postgresql.Insert):
        inherit_cache = True

        def on_conflict_do_update(self, index_elements: Any = None, **values: Any) -> Any:  # type: ignore[override]
            return super().on_conflict_do_update(index_elements=index_elements, **values)

        def on_conflict_do_nothing(self, index_elements: Any = None, **values: Any) -> Any:  # type: ignore[override]
            return super().on_conflict_do_nothing(index_elements=index_elements, **values)

    return Insert


def insert(connection: Connection | Dialect, table: Table) -> Any:
    """Return the database's INSERT with `on_conflict_do_update(index_elements, set_=…)` and `on_conflict_do_nothing(…)`.

    `index_elements` are the columns whose uniqueness is in question; `excluded` is the row that was to be inserted.
    """
    dialect = connection.dialect if isinstance(connection, Connection) else connection
    return _postgresql()(table) if dialect.name == "postgresql" else sqlite.insert(table)
