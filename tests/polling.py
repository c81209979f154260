"""Waiting for what nothing tells: a test looks again and again until it is so, and fails when it never is."""

import asyncio
import inspect
from collections.abc import Callable

PATIENCE_SECONDS = 50.0


async def until(holds: Callable[[], object], what: str = "") -> None:
    """Wait until something holds; `holds` may be a coroutine function. `what` is said if it never does."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE_SECONDS
    while True:
        answer = holds()
        if await answer if inspect.isawaitable(answer) else answer:
            return
        assert loop.time() < end, f"never: {what or inspect.getsource(holds).strip()}"
        await asyncio.sleep(0.01)
