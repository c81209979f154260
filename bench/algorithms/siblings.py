"""A function whose runs at two organizations write to each other, and say how fast that was."""

import statistics
import time

from folkmoot.algorithm import Context, partial


@partial
def converse(ctx: Context, rounds: int, burst: int, size_bytes: int) -> list[float]:
    """Return, at the first sibling, milliseconds of one message one way (median) and messages per second."""
    first, second = ctx.siblings
    content = bytes(size_bytes)
    if ctx.organization != first:
        for _ in range(rounds):
            ctx.send(first, ctx.receive(first))
        for _ in range(burst):
            ctx.receive(first)
        ctx.send(first, b"all")
        return []
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        ctx.send(second, content)
        ctx.receive(second)
        taken.append((time.perf_counter() - began) / 2 * 1e3)
    began = time.perf_counter()
    ctx.send_many(second, [content] * burst)
    ctx.receive(second)
    return [statistics.median(taken), burst / (time.perf_counter() - began)]
