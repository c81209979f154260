"""Small pieces of waiting that the standard library leaves to its users."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def cancelled(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until they have ended; what they raise is nobody's concern any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def first_of(*waits: Coroutine[Any, Any, Any], timeout_seconds: float | None = None) -> None:
    """Wait until the first of several ends, or the time is over; raise what it raised."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancelled(*tasks)


class Gate:
    """Lets work through until it is closed; closing waits for what is on its way through."""

    def __init__(self) -> None:
        self.closed = False
        self._passing = 0
        self._clear = asyncio.Event()
        self._clear.set()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Go through. Whoever does asks first whether it is `closed`."""
        self._passing += 1
        self._clear.clear()
        try:
            yield
        finally:
            self._passing -= 1
            if not self._passing:
                self._clear.set()

    async def close(self) -> None:
        """Let nothing more through; return when nothing is on its way."""
        self.closed = True
        await self._clear.wait()


class Signal:
    """Wakes up everybody who waits, each time something has changed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Wake up those who wait now."""
        self._changed.set()
        self._changed = asyncio.Event()

    def changed(self) -> "asyncio.Event":
        """An event for the next change; take it before looking, so that nothing falls in between."""
        return self._changed
