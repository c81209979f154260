"""Warm workers: processes started before there is a run, each for exactly one.

A worker waits in GetContext on its own socket, with everything expensive behind it. When one is taken, the next is started
in the background, a moment later: starting one takes a processor that the run itself needs just then. A worker that died
while it waited is passed over, and is not started again before the next run comes.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

PAUSE_SECONDS = 0.5
"""Between taking a worker and starting the next."""

_log = structlog.get_logger("folkmoot.node.execution.workers")


class WarmWorkers:
    """Names of workers that wait.

    `start` starts one under a new name, `discard` clears one away that will never serve, `alive` tells whether one waits.
    """

    def __init__(
        self,
        number: int,
        *,
        start: Callable[[], Awaitable[str]],
        discard: Callable[[str], Awaitable[None]],
        alive: Callable[[str], bool],
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._number = number
        self._start = start
        self._discard = discard
        self._alive = alive
        self._pause_seconds = pause_seconds
        self._names: deque[str] = deque()
        self._starting = 0
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self) -> str | None:
        """Give the name of a worker that waits, if there is one, and have others started."""
        self._drop_dead()
        taken = self._names.popleft() if self._names else None
        self._fill(self._pause_seconds)
        return taken

    def fill(self) -> None:
        """Have as many workers as are wanted, soon."""
        self._drop_dead()
        self._fill(0)

    def _fill(self, pause_seconds: float) -> None:
        for _ in range(self._number - len(self._names) - self._starting):
            self._starting += 1
            self._in_background(self._start_one(pause_seconds))

    async def started(self) -> None:
        """Wait until none is being started or cleared away."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Start no more, and clear away those that wait."""
        self._closing.set()
        await self.started()
        while self._names:
            await self._discard(self._names.popleft())

    def _drop_dead(self) -> None:
        for name in [name for name in self._names if not self._alive(name)]:
            self._names.remove(name)
            self._in_background(self._discard(name))

    async def _start_one(self, pause_seconds: float) -> None:
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), pause_seconds)
            if not self._closing.is_set():
                self._names.append(await self._start())
        except Exception:  # noqa: BLE001 - runs start cold then, and say why if they can't either
            _log.exception("worker.not_started")
        finally:
            self._starting -= 1

    def _in_background(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
