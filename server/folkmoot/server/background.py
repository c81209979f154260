"""Work that nobody waits for: the caller has its answer, how it ends goes to the log, and a stop gives it little time."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

MOST_AT_ONCE = 1000
CLOSING_SECONDS = 5.0


class Background:
    """Begins work, and ends what is left of it."""

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Tell whether so much is under way that more should be refused."""
        return len(self._tasks) >= MOST_AT_ONCE

    def begin(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Do it from now on; `name` is what the log calls it if it fails."""
        task = asyncio.create_task(self._logged(work, name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Let what is under way end, for a moment; end the rest."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSING_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _logged(self, work: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await work
        except Exception:  # noqa: BLE001 -- nobody else would hear of it
            self._log.exception("background.failed", work=name)
