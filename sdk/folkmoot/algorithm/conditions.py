"""Conditions on rows, as tuples: `("age", ">=", 50)`, `("sex", "in", [1, 2])`, `("ph.ecog", "is not null")`.

They are applied at the source: rows that do not meet all of them never reach the algorithm.
"""

from collections.abc import Iterable
from datetime import date, datetime, time
from typing import Any

from folkmoot.v1 import proxy_service_pb2 as pb

COMPARISONS = {
    "==": pb.COMPARISON_EQUAL,
    "!=": pb.COMPARISON_NOT_EQUAL,
    "<": pb.COMPARISON_LESS,
    "<=": pb.COMPARISON_LESS_OR_EQUAL,
    ">": pb.COMPARISON_GREATER,
    ">=": pb.COMPARISON_GREATER_OR_EQUAL,
    "in": pb.COMPARISON_IN,
    "is null": pb.COMPARISON_IS_NULL,
    "is not null": pb.COMPARISON_IS_NOT_NULL,
}
_WITHOUT_VALUE = ("is null", "is not null")

Where = tuple[Any, ...]
"""Column, comparison and, except for "is null" and "is not null", what to compare with."""


def condition(where: Where) -> pb.Condition:
    """Return a condition as the contract has it; ValueError says what is wrong with it."""
    column, comparison, *rest = where if len(where) > 1 else (*where, "")
    if comparison not in COMPARISONS:
        raise ValueError(f"{where!r}: the comparison is one of {', '.join(COMPARISONS)}")
    if len(rest) != (comparison not in _WITHOUT_VALUE):
        raise ValueError(
            f"{where!r}: {comparison!r} takes {'no value' if comparison in _WITHOUT_VALUE else 'one value'}"
        )
    values: Iterable[object] = rest[0] if comparison == "in" else rest
    return pb.Condition(
        column=column, comparison=COMPARISONS[comparison], values=[_value(one, where) for one in values]
    )


def _value(value: object, where: Where) -> pb.Value:
    plain = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
    match plain:
        case bool():
            return pb.Value(truth=plain)
        case int():
            return pb.Value(integer=plain)
        case float():
            return pb.Value(number=plain)
        case str():
            return pb.Value(text=plain)
        case datetime() | date() | time():
            return pb.Value(text=plain.isoformat())
        case None:
            raise ValueError(f'{where!r}: nothing equals null, write ("{where[0]}", "is null")')
        case _:
            raise ValueError(
                f"{where!r}: compare with text, a number, True, False or a date, not {type(value).__name__}"
            )
