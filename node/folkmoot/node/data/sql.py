"""SELECT statements for databases: names are quoted, values are parameters, and no text of an algorithm is in them.

A condition is left to the engine (which applies all of them in any case) where the database could understand it differently: another
order of texts, another idea of equality, another type than the column's.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from folkmoot.node.data.table_source import Condition, Scalar, Settings

COMPARISONS = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}

Quote: TypeAlias = Callable[[str], str]


Clause: TypeAlias = tuple[str, list[Scalar]]
"""A condition as SQL, and the parameters in it."""

Push: TypeAlias = Callable[[Condition, int], Clause | None]
"""How a database says a condition of values, behind so many parameters; None: that one is left to the engine."""


def source_of(settings: Settings, quote: Quote) -> str:
    """What stands behind FROM, and before it the names that a view may use: the data owner's words, never an algorithm's."""
    if settings.sql:
        return f"({settings.sql.strip().rstrip(';')}) AS folkmoot_view"
    return _table(settings, quote)


def prefix_of(settings: Settings, quote: Quote) -> str:
    """Makes the table of a label known to the views of it under the label's name."""
    if settings.sql and settings.table:
        return f"WITH {quote(settings.label)} AS (SELECT * FROM {_table(settings, quote)}) "  # noqa: S608 - the data owner's names
    return ""


def where_of(conditions: Sequence[Condition], quote: Quote, push: Push) -> Clause:
    """The WHERE clause with those conditions that can be pushed down, and its parameters."""
    clauses: list[str] = []
    parameters: list[Scalar] = []
    for condition in conditions:
        if condition.comparison in ("is null", "is not null"):
            clauses.append(f"{quote(condition.column)} {condition.comparison.upper()}")
        elif pushed := push(condition, len(parameters)):
            clauses.append(pushed[0])
            parameters += pushed[1]
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), parameters


def compared(condition: Condition, column: str, parameter: str, values: Sequence[Scalar]) -> Clause:
    """A column compared with parameters that are all written alike."""
    if condition.comparison == "in":
        return f"{column} IN ({', '.join([parameter] * len(values))})", list(values)
    return f"{column} {COMPARISONS[condition.comparison]} {parameter}", list(values)


def numbers(condition: Condition) -> bool:
    """Whether a condition compares with numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in condition.values)


def texts(condition: Condition) -> bool:
    """Whether a condition compares with texts that every database can hold."""
    return all(isinstance(value, str) and "\0" not in value for value in condition.values)


def _table(settings: Settings, quote: Quote) -> str:
    return ".".join(quote(name) for name in (settings.schema, settings.table) if name)


def double_quoted(name: str) -> str:
    """A name as standard SQL quotes it."""
    return '"' + name.replace('"', '""') + '"'


def back_quoted(name: str) -> str:
    """A name as MariaDB quotes it."""
    return "`" + name.replace("`", "``") + "`"
