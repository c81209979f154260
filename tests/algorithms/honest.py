"""An algorithm that does what it says, and no more."""

from folkmoot.algorithm import Context, partial


@partial
def double(ctx: Context, number: int) -> int:
    """Twice the number; nobody's data."""
    return 2 * number
