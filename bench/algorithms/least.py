"""Functions that do nothing, so that what is measured is the way to them and back."""

from folkmoot.algorithm import Context, central, partial


@partial
def nothing(ctx: Context) -> int:  # noqa: ARG001
    """Return a number."""
    return 1


@central
def everywhere(ctx: Context) -> int:
    """Have every member do nothing; return how many did."""
    return sum(result.value for result in ctx.subtask("nothing", {}).results())


@partial
def echo(ctx: Context, payload: bytes) -> bytes:  # noqa: ARG001
    """Return what came."""
    return payload
