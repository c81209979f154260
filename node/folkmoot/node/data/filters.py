"""From the contract's conditions to DuckDB expressions. No text of an algorithm ever becomes SQL.

Column names are compared with those of the file and then quoted; values become constants. A comparison with a missing
value or with NaN holds for no row (`<>` holds for NaN), whatever statistics a file carries.
"""

import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence

from duckdb import (
    ConstantExpression,
    DuckDBPyConnection,
    DuckDBPyRelation,
    Expression,
    FunctionExpression,
    SQLExpression,
)

from folkmoot.node.data.table_source import Condition
from folkmoot.v1 import proxy_service_pb2 as pb

_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_WHOLE = _INTEGERS | {"INTEGER", "UINTEGER"}
_FLOATING = {"FLOAT", "DOUBLE"}
_TEMPORAL = ("DATE", "TIME", "TIMESTAMP", "UUID")  # written as text, and cast

_COMPARE: Mapping[int, Callable[[Expression, Expression], Expression]] = {
    pb.COMPARISON_EQUAL: lambda column, value: column == value,
    pb.COMPARISON_NOT_EQUAL: lambda column, value: column != value,
    pb.COMPARISON_LESS: lambda column, value: column < value,
    pb.COMPARISON_LESS_OR_EQUAL: lambda column, value: column <= value,
    pb.COMPARISON_GREATER: lambda column, value: column > value,
    pb.COMPARISON_GREATER_OR_EQUAL: lambda column, value: column >= value,
}


_NAMES: Mapping[int, str] = {
    pb.COMPARISON_EQUAL: "==",
    pb.COMPARISON_NOT_EQUAL: "!=",
    pb.COMPARISON_LESS: "<",
    pb.COMPARISON_LESS_OR_EQUAL: "<=",
    pb.COMPARISON_GREATER: ">",
    pb.COMPARISON_GREATER_OR_EQUAL: ">=",
    pb.COMPARISON_IN: "in",
    pb.COMPARISON_IS_NULL: "is null",
    pb.COMPARISON_IS_NOT_NULL: "is not null",
}


class Refused(Exception):  # noqa: N818 - says what happened
    """What was asked for can't be read; `reason` is the catalogue's name without its prefix."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.field = field


def select(
    connection: DuckDBPyConnection, relation: DuckDBPyRelation, request: pb.ReadTableRequest
) -> DuckDBPyRelation:
    """Apply the request's columns and conditions to a relation of the connection. Raises Refused."""
    types = {name: str(kind) for name, kind in zip(relation.columns, relation.types, strict=True)}
    _check_columns(types, [*request.columns, *(condition.column for condition in request.where)])
    expressions = []
    for index, condition in enumerate(request.where):
        kind = types[condition.column]
        try:
            expressions.append(_expression(condition, kind))
            _check_texts(connection, condition, kind)
        except ValueError as error:
            text = f"where[{index}]: column {condition.column!r} is {kind}, and {error}"
            raise Refused("INVALID_FIELD", text, f"where[{index}]") from None
    if expressions:  # at once: each filter by itself would be bound with all those before it again
        relation = relation.filter(functools.reduce(operator.and_, expressions))
    return relation.select(*(_quoted(name) for name in request.columns)) if request.columns else relation


def conditions_of(request: pb.ReadTableRequest) -> tuple[Condition, ...]:
    """The request's conditions as sources get them."""
    return tuple(
        Condition(
            one.column,
            _NAMES.get(one.comparison, ""),
            tuple(getattr(value, value.WhichOneof("value") or "text") for value in one.values),
        )
        for one in request.where
    )


def _check_columns(types: Mapping[str, str], wanted: Sequence[str]) -> None:
    if missing := sorted(set(wanted) - types.keys()):
        raise Refused("COLUMN_NOT_FOUND", f"no column {', '.join(missing)}; the table has {', '.join(types)}")


def _check_texts(connection: DuckDBPyConnection, condition: pb.Condition, kind: str) -> None:
    """Refuse now what would be no date, time or UUID in the middle of the table."""
    if kind.startswith(_TEMPORAL):
        for value in condition.values:
            # The type is DuckDB's own name for a column's.
            known = connection.execute(f"SELECT TRY_CAST(? AS {kind}) IS NOT NULL", [value.text]).fetchall()
            if known != [(True,)]:
                raise ValueError(f"{value.text!r} is none in ISO 8601")


def _expression(condition: pb.Condition, kind: str) -> Expression:
    column = _quoted(condition.column)
    match condition.comparison, len(condition.values):
        case pb.COMPARISON_IS_NULL, 0:
            return column.isnull()
        case pb.COMPARISON_IS_NOT_NULL, 0:
            return column.isnotnull()
        case ((pb.COMPARISON_IS_NULL | pb.COMPARISON_IS_NOT_NULL), _):
            raise ValueError("this comparison takes no value")
        case pb.COMPARISON_IN, count if count:
            found = column.isin(*(_constant(value, kind) for value in condition.values))
        case comparison, 1 if comparison in _COMPARE:
            found = _COMPARE[comparison](column, _constant(condition.values[0], kind))
        case pb.COMPARISON_IN, _:
            raise ValueError("IN takes at least one value")
        case _:
            raise ValueError("this comparison takes exactly one value")
    if kind not in _FLOATING:
        return found
    is_number = ~FunctionExpression("isnan", column)
    if condition.comparison == pb.COMPARISON_NOT_EQUAL:
        return ~((column == _constant(condition.values[0], kind)) & is_number)
    return found & is_number


def _constant(value: pb.Value, kind: str) -> Expression:
    given = value.WhichOneof("value")
    if kind in _WHOLE or kind in _FLOATING or kind.startswith("DECIMAL"):
        if given == "integer":
            return ConstantExpression(value.integer)
        if given == "number" and not math.isnan(value.number):
            return ConstantExpression(value.number)
        raise ValueError("is compared with an integer or a number that is not NaN")
    if kind == "BOOLEAN":
        if given == "truth":
            return ConstantExpression(value.truth)
        raise ValueError("is compared with true or false")
    if kind == "VARCHAR" or kind.startswith(_TEMPORAL):
        if given != "text":
            raise ValueError("is compared with a text")
        text = ConstantExpression(value.text)
        return text if kind == "VARCHAR" else text.cast(kind)
    raise ValueError("can only be asked for a missing value (IS_NULL, IS_NOT_NULL)")


def _quoted(name: str) -> Expression:
    """A column, whatever its name is; `ColumnExpression("*")` would be every column."""
    return SQLExpression('"' + name.replace('"', '""') + '"')
