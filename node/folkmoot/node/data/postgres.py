"""PostgreSQL by ADBC: COPY in binary form, straight into Arrow, in bounded memory.

Every read is one read-only transaction with a time limit, and all that a process reads is of one moment: the first transaction stays open, and
others see what it sees. The server ends a statement soon after the process that asked has been ended. A value of an algorithm never becomes SQL: it is a parameter of `set_config`, and
the statement that reads names that setting. Compared in the database: numbers, texts (byte by byte), truths, dates, times and moments.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from urllib.parse import quote as url_quoted
from weakref import finalize

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_postgresql import dbapi

from folkmoot.node.data.sql import COMPARISONS, Clause, double_quoted, numbers, prefix_of, source_of, texts, where_of
from folkmoot.node.data.table_source import Condition, Settings

_PLAIN = frozenset(
    [
        "int2",
        "int4",
        "int8",
        "float4",
        "float8",
        "bool",
        "text",
        "varchar",
        "bpchar",
        "name",
        "date",
        "time",
        "timestamp",
        "timestamptz",
        "bytea",
        "numeric",
    ]
)
_NOT_IN_LISTS = {"bpchar", "name", "time", "bytea", "numeric"}
_LISTS = frozenset(f"_{name}" for name in _PLAIN - _NOT_IN_LISTS)
_INTEGERS = frozenset({"int2", "int4", "int8"})
_NUMBERS = _INTEGERS | {"float4", "float8", "numeric"}
_TEXTS = frozenset({"text", "varchar"})
_TEMPORAL = {"date": date, "time": time, "timestamp": datetime, "timestamptz": datetime}
_MOST_DIGITS = 38
_CONNECT_SECONDS = 10
_NOTICE_ENDED_CLIENTS = (
    "SELECT set_config(name, '5s', true) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'"
)


class PostgresTable:
    """Implements `TableSource`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._moment = ""
        first = self._connect()
        finalize(self, first.close)  # it holds the moment
        with closing(first.cursor()) as cursor:
            cursor.execute("SELECT pg_catalog.pg_export_snapshot()")
            [(self._moment,)] = cursor.fetchall()
            cursor.execute(f"{self._prefix}SELECT *{self._from} LIMIT 0")
            found = cursor.fetch_record_batch().schema
            cursor.execute("SELECT typname FROM pg_catalog.pg_type WHERE typtype = 'e'")
            enums = {name for (name,) in cursor.fetchall()}
        self._kinds = {field.name: (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode() for field in found}
        self.schema = pa.schema([pa.field(field.name, _arrow_type(field, enums)) for field in found])

    def read(self, columns: Sequence[str], conditions: Sequence[Condition]) -> pa.RecordBatchReader:
        """See TableSource."""
        where, parameters = where_of(conditions, double_quoted, self._push)
        wanted = pa.schema([self.schema.field(name) for name in columns])
        selected = ", ".join(map(self._selected, columns))
        statement = f"{self._prefix}SELECT {selected}{self._from}{where}"
        return pa.RecordBatchReader.from_batches(wanted, self._batches(statement, list(map(str, parameters)), wanted))

    def warnings(self) -> Sequence[str]:
        """See TableSource."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(
                "SELECT current_user::text, rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_class c "
                "WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace NOT IN "
                "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('pg_catalog', 'information_schema') OR nspname LIKE 'pg_t%') "
                "AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')) "
                "FROM pg_catalog.pg_roles WHERE rolname = current_user"
            )
            [(user, writes)] = cursor.fetchall()
        return [f"the role {user} can write: give the node one that can only SELECT"] if writes else []

    @property
    def _prefix(self) -> str:
        return prefix_of(self._settings, double_quoted)

    @property
    def _from(self) -> str:
        return f" FROM {source_of(self._settings, double_quoted)}"

    def _connect(self) -> Any:
        connection = dbapi.connect(connection_url(self._settings))
        with closing(connection.cursor()) as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            if self._moment:
                cursor.execute(f"SET TRANSACTION SNAPSHOT '{self._moment}'")
            cursor.execute(f"SET LOCAL statement_timeout = '{int(self._settings.timeout_seconds)}s'")
            cursor.execute("SET LOCAL TIME ZONE 'UTC'")
            cursor.execute(_NOTICE_ENDED_CLIENTS)
        return connection

    def _selected(self, name: str) -> str:
        column = double_quoted(name)
        return column if self._kinds[name] in _PLAIN | _LISTS else f"{column}::text AS {column}"

    def _batches(self, statement: str, parameters: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            for index, value in enumerate(parameters):
                cursor.execute(f"SELECT set_config('folkmoot.p{index}', $1, true)", (value,))
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                columns = [_cast(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    def _push(self, condition: Condition, before: int) -> Clause | None:
        as_type = self._type_to_compare(condition)
        if as_type is None:
            return None
        column, parameter = double_quoted(condition.column), f"current_setting('folkmoot.p{before}')"
        if self._kinds[condition.column] in _NUMBERS and as_type == "float8":
            column += "::float8"
        if as_type == "text":
            column += ' COLLATE "C"'
        if condition.comparison == "in":
            values = f"SELECT value::{as_type} FROM jsonb_array_elements_text({parameter}::jsonb) AS value"  # noqa: S608 - our own
            return f"{column} = ANY (ARRAY({values}))", [json.dumps(list(map(_text, condition.values)))]
        [value] = condition.values
        return f"{column} {COMPARISONS[condition.comparison]} {parameter}::{as_type}", [_text(value)]

    def _type_to_compare(self, condition: Condition) -> str | None:
        """As what the database compares values with a column, if it means the same by it as the engine."""
        kind: str = self._kinds[condition.column]
        values = condition.values
        if kind in _NUMBERS and numbers(condition):
            whole = all(isinstance(value, int) for value in values)
            return "float8" if not whole or kind.startswith("float") else "int8" if kind in _INTEGERS else "numeric"
        if kind in _TEXTS and texts(condition):
            return "text"
        if kind == "bool" and all(isinstance(value, bool) for value in values):
            return "bool"
        if kind in _TEMPORAL and texts(condition) and all(_is_iso(str(value), _TEMPORAL[kind]) for value in values):
            return kind
        return None


def connection_url(settings: Settings) -> str:
    """The URL with the password and the authority in it; it never leaves this process. Where there is an authority, the server is checked."""
    url = urlsplit(settings.url)
    user = url_quoted(url.username or "", safe="%")
    login = f"{user}:{url_quoted(settings.secret, safe='')}" if settings.secret else user
    options: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if settings.certificate_authority:
        options |= {"sslrootcert": settings.certificate_authority, "sslmode": "verify-full"}
    query = urlencode(options | dict(parse_qsl(url.query)))
    return urlunsplit(("postgresql", f"{login}@{url.netloc.rpartition('@')[2]}", url.path, query, ""))


def open_table(settings: Settings) -> PostgresTable:
    """Open a table or a view. Raises what the driver raises."""
    return PostgresTable(settings)


def _arrow_type(field: pa.Field, enums: set[str]) -> pa.DataType:
    metadata = field.metadata or {}
    kind = metadata.get(b"POSTGRESQL:type", b"").decode()
    if kind in enums:
        return pa.dictionary(pa.int32(), pa.string())
    if kind == "numeric":
        modifier = int(metadata.get(b"POSTGRESQL:typmod", b"-1")) - 4
        digits, scale = modifier >> 16 & 0xFFFF, modifier & 0x7FF
        known = modifier >= 0 and 0 < digits <= _MOST_DIGITS and scale <= digits
        return pa.decimal128(digits, scale) if known else pa.float64()
    return field.type if kind in _PLAIN | _LISTS else pa.string()


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    plain = column.storage if isinstance(column, pa.ExtensionArray) else column
    return plain if plain.type.equals(kind) else pc.cast(plain, kind)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_iso(text: str, kind: type) -> bool:
    try:
        kind.fromisoformat(text)  # type: ignore[attr-defined]
    except ValueError:
        return False
    return True
