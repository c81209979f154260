"""The average of a column over organizations: each gives a sum and a count, never a row.

Equal to the average of the pooled data. Rows without a value do not count.
"""

import math

from folkmoot.algorithm import Context, central, partial


@central(tables=1, columns=["$column"])
def average(ctx: Context, column: str, organizations: list[str] | None = None) -> dict[str, float | int | None]:
    """Return the average of a column and how many values it is made of; None if there are none.

    Asks `organizations`, by name; all members if there are none given.
    """
    task = ctx.subtask("partial_average", {"column": column}, organizations)
    parts = [result.value for result in task.results()]
    total = math.fsum(part["sum"] for part in parts)
    count = sum(part["count"] for part in parts)
    return {"average": total / count if count else None, "count": count}


@partial(tables=1, columns=["$column"])
def partial_average(ctx: Context, column: str) -> dict[str, float | int]:
    """Return the sum of a column's values, and how many there are."""
    values = ctx.table(ctx.labels[0], columns=[column]).column(column)
    present = [value for value in values if value is not None]
    return {"sum": math.fsum(present), "count": len(present)}
