"""Algorithms for storms: each notes outside of the node that it has begun, so that a test can count how often it was executed.

The note is a line in a file of this machine, which an algorithm in a plain process can reach; one in a container notes it in its job's
scratch folder, if it has one.
"""

import random
import time
from pathlib import Path
from typing import Any

from folkmoot.algorithm import Context, central, partial

NOTES = "notes"


def _note(ctx: Context, notes: str) -> None:
    path = Path(notes) if notes else ctx.scratch / NOTES
    with path.open("a") as file:
        file.write(f"{ctx.run_id} {ctx.attempt}\n")


@partial
def plain(ctx: Context, notes: str, number: int, seconds: float = 0.0) -> int:
    """Twice the number, after a while."""
    _note(ctx, notes)
    time.sleep(seconds)
    return 2 * number


@partial
def asked(ctx: Context, notes: str, number: int) -> int:
    """Twice the number, where people are asked before and after."""
    _note(ctx, notes)
    return 2 * number


@partial
def large(ctx: Context, notes: str, size_bytes: int, seed: int, seconds: float = 0.0) -> bytes:
    """As many bytes as nobody sends in one message, after a while."""
    _note(ctx, notes)
    time.sleep(seconds)
    return random.Random(seed).randbytes(size_bytes)


@partial
def remember(ctx: Context, notes: str, number: int) -> list[int]:
    """What this job's runs at this node have been given, this number included."""
    _note(ctx, notes)
    path = ctx.scratch / "numbers"
    with path.open("a") as file:
        file.write(f"{number}\n")
    return [int(line) for line in path.read_text().split()]


@partial
def leave(ctx: Context, notes: str, number: int) -> int:
    """Leave as many rows."""
    _note(ctx, notes)
    return ctx.leave({"number": list(range(number))})


@partial
def recall(ctx: Context, notes: str) -> int:
    """How many rows were left."""
    _note(ctx, notes)
    return len(ctx.table(ctx.dataframes[0]))


@partial
def talk(ctx: Context, notes: str, rounds: int) -> int:
    """Send the numbers below `rounds` to every sibling, and add up what they send."""
    _note(ctx, notes)
    others = [sibling for sibling in ctx.siblings if sibling != ctx.organization]
    total = 0
    for number in range(rounds):
        for other in others:
            ctx.send(other, number)
        total += sum(ctx.receive(other) for other in others)
    return total


@central
def gather(ctx: Context, notes: str, number: int, rounds: int) -> list[dict[str, Any]]:
    """Have every member compute `plain`, again and again: what came of each run, by organization."""
    _note(ctx, notes)
    gathered = []
    for round_ in range(rounds):
        subtask = ctx.subtask("plain", {"notes": notes, "number": number + round_}, key=f"round {round_}")
        gathered.append(
            {
                result.organization.name: result.value if result.completed else result.state
                for result in subtask.results()
            }
        )
    return gathered
