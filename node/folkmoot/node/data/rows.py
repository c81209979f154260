"""From rows of Python values to Arrow, for sources whose libraries give rows: bounded batches, and types that hold for all of them.

A type is the one that the source or the data owner tells, or it is guessed from the first rows. A later value that does not fit makes the
table unreadable, never wrong: nothing is rounded, cut off or taken for missing.
"""

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import chain, islice
from typing import Any

import duckdb
import pyarrow as pa

BATCH_ROWS = 8192
SAMPLE_ROWS = 10_000

Row = Sequence[Any]

MICROSECONDS = pa.timestamp("us")
MOMENT = pa.timestamp("us", "UTC")


def reader_of(rows: Iterable[Row], schema: pa.Schema) -> pa.RecordBatchReader:
    """Give rows as batches of a schema. A value that does not fit raises an Arrow error or ValueError while they are read."""
    return pa.RecordBatchReader.from_batches(schema, _batches(iter(rows), schema))


def guess_schema(names: Sequence[str], rows: Sequence[Row], told: Mapping[str, str]) -> pa.Schema:
    """Guess the types of columns from rows; those that the data owner tells (in DuckDB's words) stand. Raises ValueError."""
    if unknown := told.keys() - set(names):
        raise ValueError(f"types: no column {', '.join(sorted(unknown))}")
    fields = []
    for index, name in enumerate(names):
        kind = arrow_type(told[name]) if name in told else guess_type(row[index] for row in rows)
        fields.append(pa.field(name, kind))
    return pa.schema(fields)


def guess_type(values: Iterable[Any]) -> pa.DataType:
    """The narrowest type that all values have; text if they have none in common."""
    kinds = {type(value) for value in values if value is not None}
    for known, kind in _KINDS:
        if kinds and kinds <= known:
            return kind
    return pa.string()


def arrow_type(name: str) -> pa.DataType:
    """The Arrow type of a type in DuckDB's words, which have been checked to be one."""
    with duckdb.connect(":memory:") as connection:
        kind: pa.DataType = connection.sql(f"SELECT CAST(NULL AS {name}) AS x").to_arrow_reader(1).schema.field(0).type
        return kind


def sample(rows: Iterable[Row]) -> tuple[list[Row], Iterator[Row]]:
    """The first rows, and all rows with them."""
    iterator = iter(rows)
    first = list(islice(iterator, SAMPLE_ROWS))
    return first, chain(first, iterator)


def _batches(rows: Iterator[Row], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    converters = [_converter(field.type) for field in schema]
    while chunk := list(islice(rows, BATCH_ROWS)):
        columns = [
            pa.array([None if value is None else convert(value) for value in column], field.type)
            for column, field, convert in zip(zip(*chunk, strict=True), schema, converters, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _converter(kind: pa.DataType) -> Callable[[Any], Any]:
    """What turns a source's value into one that Arrow takes for the type, if it is one at all."""
    for is_kind, convert in _CONVERTERS:
        if is_kind(kind):
            return convert
    return _same


def _same(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a workbook has no other numbers
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _truth(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    if value in ("true", "false"):
        return bool(value == "true")
    raise ValueError("a value is neither true nor false")


def _whole(value: Any) -> int:
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError("a value is no whole number")
    return number


def _number(value: Any) -> float:
    return float(value)


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _date(value: Any) -> dt.date:
    if isinstance(value, dt.datetime):
        if value.time() != dt.time():
            raise ValueError("a value of a date has a time")
        return value.date()
    return value if isinstance(value, dt.date) else dt.date.fromisoformat(value)


def _moment(value: Any) -> dt.datetime:
    if isinstance(value, dt.datetime):
        return value
    if isinstance(value, dt.date):
        return dt.datetime.combine(value, dt.time())
    return dt.datetime.fromisoformat(value)


def _clock(value: Any) -> dt.time:
    if isinstance(value, dt.timedelta):
        if not dt.timedelta() <= value < dt.timedelta(days=1):
            raise ValueError("a value is no time of a day")
        return (dt.datetime(1, 1, 1) + value).time()  # noqa: DTZ001 - the time of no particular day
    return value if isinstance(value, dt.time) else dt.time.fromisoformat(value)


def _octets(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


_CONVERTERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Any]], ...] = (
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _text),
    (pa.types.is_boolean, _truth),
    (pa.types.is_integer, _whole),
    (pa.types.is_floating, _number),
    (pa.types.is_decimal, _decimal),
    (pa.types.is_date, _date),
    (pa.types.is_timestamp, _moment),
    (pa.types.is_time, _clock),
    (lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind), _octets),
)

_KINDS: tuple[tuple[frozenset[type], pa.DataType], ...] = (
    (frozenset({bool}), pa.bool_()),
    (frozenset({int}), pa.int64()),
    (frozenset({int, float}), pa.float64()),
    (frozenset({int, Decimal}), pa.decimal128(38, 10)),
    (frozenset({dt.date}), pa.date32()),
    (frozenset({dt.date, dt.datetime}), MICROSECONDS),
    (frozenset({dt.time}), pa.time64("us")),
    (frozenset({bytes}), pa.binary()),
)
