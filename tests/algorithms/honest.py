"""An algorithm that does what it says, and no more."""

from typing import Any

from folkmoot.algorithm import Context, central, partial


@partial
def double(ctx: Context, number: int) -> int:
    """Twice the number; nobody's data."""
    return 2 * number


@partial
def report(ctx: Context) -> None:
    """Say how it goes."""
    ctx.log("all is well")


@central
def gather(ctx: Context, numbers: dict[str, int]) -> dict[str, Any]:
    """Have each organization double its number; what they gave, or how their runs ended, by name."""
    subtask = ctx.subtask(
        "double",
        organizations=list(numbers),
        arguments_by_organization={name: {"number": number} for name, number in numbers.items()},
    )
    return {
        result.organization.name: result.value if result.completed else result.state for result in subtask.results()
    }


@central
def doubt(ctx: Context, numbers: dict[str, int]) -> dict[str, bool]:
    """Whether it is proven how each organization's run ended, by name."""
    subtask = ctx.subtask("double", {"number": 1}, organizations=list(numbers))
    return {result.organization.name: result.proven for result in subtask.results()}
