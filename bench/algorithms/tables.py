"""A function that reads a table of its node as a whole, and says how long that took."""

import time

from folkmoot.algorithm import Context, partial


@partial
def read(ctx: Context) -> list[float]:
    """Return rows, bytes as Arrow, and seconds."""
    began = time.perf_counter()
    table = ctx.table("patients").arrow()
    return [table.num_rows, table.nbytes, time.perf_counter() - began]
