"""Warm workers: processes started before there is a run, each for exactly one.

A worker waits in GetContext on its own socket, with everything expensive behind it. When one is taken, the next is started
in the background. A worker that died while it waited is passed over, and is not started again before the next run comes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

_log = structlog.get_logger("folkmoot.node.workers")


class WarmWorkers:
    """Names of workers that wait. `start` starts one under a new name; `alive` tells whether it still waits."""

    def __init__(self, number: int, start: Callable[[], Awaitable[str]], alive: Callable[[str], bool]) -> None:
        self._number = number
        self._start = start
        self._alive = alive
        self._names: deque[str] = deque()
        self._starting: set[asyncio.Task[None]] = set()

    def take(self) -> str | None:
        """Give the name of a worker that waits, if there is one, and have others started."""
        taken = next(iter(self._waiting()), None)
        if taken:
            self._names.remove(taken)
        self.fill()
        return taken

    def fill(self) -> None:
        """Have as many workers as are wanted, soon."""
        self._names = deque(self._waiting())
        for _ in range(self._number - len(self._names) - len(self._starting)):
            task = asyncio.create_task(self._start_one())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def started(self) -> None:
        """Wait until none is being started."""
        while self._starting:
            await asyncio.gather(*self._starting)

    async def close(self) -> list[str]:
        """Start no more; give the names of those that wait."""
        self._number = 0
        await self.started()
        return list(self._names)

    def _waiting(self) -> list[str]:
        return [name for name in self._names if self._alive(name)]

    async def _start_one(self) -> None:
        try:
            self._names.append(await self._start())
        except Exception:  # noqa: BLE001 - runs start cold then, and say why if they can't either
            _log.exception("warm_worker_not_started")
