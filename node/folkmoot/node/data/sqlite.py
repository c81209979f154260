"""SQLite files, opened read-only by Python's own library.

A table's columns have the types that it declares, a view's are guessed from its first rows; SQLite itself holds whatever was put in, and a
value that does not fit its column makes the table unreadable. Compared in SQLite: numbers with number columns, texts for equality.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote as url_quoted

import pyarrow as pa

from folkmoot.node.data.rows import MICROSECONDS, Row, arrow_type, guess_schema, reader_of, sample
from folkmoot.node.data.sql import Clause, compared, double_quoted, numbers, prefix_of, source_of, texts, where_of
from folkmoot.node.data.table_source import Condition, Scalar, Settings

_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC)\s*\((\d+)\s*,\s*(\d+)\)")


class SqliteTable:
    """Implements `TableSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = replace(settings, schema=settings.schema or "main")
        self.schema = self._find_schema()

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:
        """See TableSource."""
        where, parameters = where_of(conditions, double_quoted, self._push)
        wanted = pa.schema([self.schema.field(name) for name in columns])
        return reader_of(self._rows(", ".join(map(double_quoted, columns)) + self._from + where, parameters), wanted)

    def warnings(self) -> Sequence[str]:
        """See TableSource."""
        return ()

    @property
    def _from(self) -> str:
        return f" FROM {source_of(self._settings, double_quoted)}"

    def _rows(self, rest: str, parameters: Sequence[Scalar] = ()) -> Iterator[Row]:
        with closing(self._connect()) as connection:
            yield from connection.execute(f"{prefix_of(self._settings, double_quoted)}SELECT {rest}", parameters)

    def _connect(self) -> sqlite3.Connection:
        path = url_quoted(self._settings.path)
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
        connection.execute("PRAGMA query_only = true")
        return connection

    def _find_schema(self) -> pa.Schema:
        settings = self._settings
        with closing(self._connect()) as connection:
            cursor = connection.execute(f"{prefix_of(settings, double_quoted)}SELECT *{self._from} LIMIT 10000")
            names = [column[0] for column in cursor.description]
            declared = {} if settings.sql else self._declared(connection)
            first, _ = sample(cursor if set(names) - declared.keys() - settings.types.keys() else ())
        guessed = guess_schema(names, first, settings.types)
        return pa.schema(
            [
                pa.field(field.name, declared[field.name])
                if field.name in declared and field.name not in settings.types
                else field
                for field in guessed
            ]
        )

    def _declared(self, connection: sqlite3.Connection) -> dict[str, pa.DataType]:
        rows = connection.execute("SELECT name, type FROM pragma_table_info(?)", [self._settings.table])
        kinds = {name: declared_type(text) for name, text in rows}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def _push(self, condition: Condition, _before: int) -> Clause | None:
        kind = self.schema.field(condition.column).type
        if numbers(condition) and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return compared(condition, double_quoted(condition.column), "?", condition.values)
        if texts(condition) and pa.types.is_string(kind) and condition.comparison in ("==", "in"):
            return compared(condition, double_quoted(condition.column), "?", condition.values)
        return None


def declared_type(text: str) -> pa.DataType | None:
    """The type that a declared one means, by SQLite's own rules of affinity and by what people write; None: nobody knows."""
    name = text.upper().strip()
    if decimal := _DECIMAL.fullmatch(name):
        return arrow_type(f"DECIMAL({decimal[1]},{decimal[2]})")
    for words, kind in _DECLARED:
        if any(word in name for word in words):
            return kind
    return None


_DECLARED: tuple[tuple[tuple[str, ...], pa.DataType], ...] = (
    (("INT",), pa.int64()),
    (("CHAR", "CLOB", "TEXT"), pa.string()),
    (("BLOB",), pa.binary()),
    (("REAL", "FLOA", "DOUB"), pa.float64()),
    (("BOOL",), pa.bool_()),
    (("DATETIME", "TIMESTAMP"), MICROSECONDS),
    (("DATE",), pa.date32()),
    (("TIME",), pa.time64("us")),
)


def open_table(settings: Settings) -> SqliteTable:
    """Open a table or a view. Raises sqlite3.Error if there is none."""
    return SqliteTable(settings)
