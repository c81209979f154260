"""An algorithm that nobody asked for: it takes what it is offered."""

from folkmoot.algorithm import Context, partial


@partial
def double(ctx: Context, number: int) -> list[float]:
    """Called like an honest function; returns the data itself."""
    return [float(each) for each in ctx.table("patients", columns=["age"]).column("age")]
