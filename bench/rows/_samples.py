"""Taking samples of what is done again and again, and saying how far they lie apart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from bench.report import number
from bench.rows._stage import calm

REST_SECONDS = 0.7
"""Between two rounds: what a round has used up is replaced by then, warm workers above all."""


async def samples(action: Callable[[], Awaitable[object]], *, repetitions: int, warm_up: int = 2) -> list[float]:
    """Milliseconds of an action, again and again, each time from a machine at rest."""
    taken = []
    for _ in range(warm_up + repetitions):
        await asyncio.sleep(REST_SECONDS)
        await calm()
        began = time.perf_counter()
        await action()
        taken.append((time.perf_counter() - began) * 1e3)
    return taken[warm_up:]


def spread(taken: Sequence[float]) -> str:
    """How often, and from where to where."""
    return f"{len(taken)} times, {number(min(taken))} to {number(max(taken))}"
