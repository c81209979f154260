"""MariaDB by PyMySQL: a server-side cursor, rows into Arrow batch by batch.

Every read is one read-only transaction with a time limit. Names are quoted, and values are written by the library, never by us. Compared in
the database: numbers, dates and moments, and texts for equality (its collation may find more, which the engine sorts out).
TINYINT(1) is BOOLEAN, TIMESTAMP a moment in UTC; unsigned integers stay unsigned.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa
import pymysql
from pymysql.constants import FIELD_TYPE, FLAG
from pymysql.cursors import SSCursor

from folkmoot.node.data.rows import MICROSECONDS, MOMENT, Row, reader_of
from folkmoot.node.data.sql import Clause, back_quoted, compared, numbers, prefix_of, source_of, texts, where_of
from folkmoot.node.data.table_source import Condition, Scalar, Settings

_PORT = 3306
_BINARY_CHARACTERS = 63
_CONNECT_SECONDS = 10
_INTEGERS = {
    FIELD_TYPE.TINY: (pa.int8(), pa.uint8()),
    FIELD_TYPE.SHORT: (pa.int16(), pa.uint16()),
    FIELD_TYPE.INT24: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONG: (pa.int32(), pa.uint32()),
    FIELD_TYPE.LONGLONG: (pa.int64(), pa.uint64()),
    FIELD_TYPE.YEAR: (pa.int16(), pa.uint16()),
}
_OTHERS = {
    FIELD_TYPE.FLOAT: pa.float32(),
    FIELD_TYPE.DOUBLE: pa.float64(),
    FIELD_TYPE.DATE: pa.date32(),
    FIELD_TYPE.TIME: pa.time64("us"),
    FIELD_TYPE.DATETIME: MICROSECONDS,
    FIELD_TYPE.TIMESTAMP: MOMENT,
    FIELD_TYPE.BIT: pa.binary(),
}
_WRITES = ("INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "ALL PRIVILEGES", "SUPER", "FILE")


class MariadbTable:
    """Implements `TableSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(f"{self._prefix}SELECT *{self._from} LIMIT 0")
            self.schema = pa.schema([pa.field(one.name, _arrow_type(one)) for one in cursor._result.fields])  # noqa: SLF001 - no other way to a decimal's digits
            cursor.fetchall()

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:
        """See TableSource."""
        where, parameters = where_of(conditions, _quoted, self._push)
        wanted = pa.schema([self.schema.field(name) for name in columns])
        statement = _literal(f"{self._prefix}SELECT {', '.join(map(back_quoted, columns))}{self._from}")
        return reader_of(self._rows(statement + where, parameters), wanted)

    def warnings(self) -> Sequence[str]:
        """See TableSource."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SHOW GRANTS")
            grants = [str(grant).upper().split(" ON ")[0] for (grant,) in cursor.fetchall()]
        writes = any(word in grant for grant in grants for word in _WRITES)
        return [f"the account {self._user} can write: give the node one that can only SELECT"] if writes else []

    @property
    def _prefix(self) -> str:
        return prefix_of(self._settings, back_quoted)

    @property
    def _from(self) -> str:
        return f" FROM {source_of(self._settings, back_quoted)}"

    @property
    def _user(self) -> str:
        return unquote(urlsplit(self._settings.url).username or "")

    def _connect(self) -> Any:
        settings, url = self._settings, urlsplit(self._settings.url)
        connection = pymysql.connect(
            host=url.hostname,
            port=url.port or _PORT,
            user=self._user,
            password=settings.secret,
            database=unquote(url.path.strip("/")) or None,
            charset="utf8mb4",
            cursorclass=SSCursor,
            connect_timeout=_CONNECT_SECONDS,
            local_infile=False,
            ssl=_tls(settings),
        )
        with closing(connection.cursor()) as cursor:
            cursor.execute("SET SESSION time_zone = '+00:00', max_statement_time = %s", [settings.timeout_seconds])
            cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')")
            cursor.execute("START TRANSACTION READ ONLY")
        return connection

    def _rows(self, statement: str, parameters: Sequence[Scalar]) -> Iterator[Row]:
        connection = self._connect()
        try:
            cursor = connection.cursor()
            cursor.execute(statement, list(parameters))
            yield from cursor.fetchall_unbuffered()
        finally:
            connection._force_close()  # noqa: SLF001 - close() would read what is left

    def _push(self, condition: Condition, _before: int) -> Clause | None:
        kind, column = self.schema.field(condition.column).type, _quoted(condition.column)
        exact = pa.types.is_integer(kind) and all(isinstance(value, int) for value in condition.values)
        if numbers(condition) and (exact or pa.types.is_float64(kind)):
            return compared(condition, column, "%s", condition.values)
        if not texts(condition):
            return None
        if pa.types.is_string(kind) and condition.comparison in ("==", "in"):
            return compared(condition, column, "%s", condition.values)
        if pa.types.is_date(kind) and all(_is_iso(str(value), date) for value in condition.values):
            return compared(condition, column, "%s", condition.values)
        if kind.equals(MICROSECONDS) and all(_is_iso(str(value), datetime) for value in condition.values):
            return compared(condition, column, "%s", condition.values)
        return None


def open_table(settings: Settings) -> MariadbTable:
    """Open a table or a view. Raises what the driver raises."""
    return MariadbTable(settings)


def _quoted(name: str) -> str:
    """A name in a statement with parameters."""
    return _literal(back_quoted(name))


def _literal(sql: str) -> str:
    """SQL in which the library looks for places of parameters, and shall find none."""
    return sql.replace("%", "%%")


def _tls(settings: Settings) -> ssl.SSLContext | None:
    """How to check the server's certificate: as soon as there is an authority, or the URL says ?tls=required, nothing else will do."""
    wanted = parse_qs(urlsplit(settings.url).query).get("tls", [""]) == ["required"]
    if not wanted and not settings.certificate_authority:
        return None
    return ssl.create_default_context(cafile=settings.certificate_authority or None)


def _arrow_type(field: Any) -> pa.DataType:
    code, unsigned = field.type_code, bool(field.flags & FLAG.UNSIGNED)
    if code == FIELD_TYPE.TINY and field.length == 1:
        return pa.bool_()
    if code in _INTEGERS:
        return _INTEGERS[code][unsigned]
    if code in (FIELD_TYPE.DECIMAL, FIELD_TYPE.NEWDECIMAL):
        digits = field.length - (field.scale > 0) - (not unsigned)
        return pa.decimal128(digits, field.scale) if digits <= 38 else pa.decimal256(digits, field.scale)
    if code in _OTHERS:
        return _OTHERS[code]
    return pa.binary() if field.charsetnr == _BINARY_CHARACTERS else pa.string()


def _is_iso(text: str, kind: type) -> bool:
    try:
        return kind.fromisoformat(text).tzinfo is None if kind is datetime else bool(kind.fromisoformat(text))  # type: ignore[attr-defined]
    except ValueError:
        return False
