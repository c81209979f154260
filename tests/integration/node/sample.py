"""A module that the toolkit's worker can serve."""

from folkmoot.algorithm import Context, partial


@partial
def double(ctx: Context, number: int) -> int:
    """Return twice the number."""
    return 2 * number
