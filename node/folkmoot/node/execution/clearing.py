"""What is left of runs whose end stands, cleared away behind them: processes or containers, sockets, folders.

It happens in the background, so that nobody waits for a process that takes its time to end; a node that ends still waits a little.
"""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from folkmoot.node.proxy.ports import ProxyPort, Runtime
from folkmoot.node.proxy.runs import Run
from folkmoot.node.waiting import cancelled, first_of
from folkmoot.transport.failpoints import failpoint

AFTER_SECONDS = 10.0
"""How long a process may go on after its result stands."""

AT_CLOSE_SECONDS = 3.0
"""How long a node that ends still clears away what has ended; the rest is the next start's."""

log = structlog.get_logger()


class Clearing:
    """Clears away behind the runs of a station."""

    def __init__(self, runtime: Runtime, proxy: ProxyPort, runtime_directory: Path) -> None:
        self._runtime = runtime
        self._proxy = proxy
        self._runtime_directory = runtime_directory
        self._under_way: set[asyncio.Task[None]] = set()

    def clear(self, run: Run) -> None:
        """Clear away what is left of a run whose last word stands."""
        self._in_background(self._clear(run))

    def clear_process(self, run_name: str) -> None:
        """Clear away a process that belongs to no run any more."""
        self._in_background(self._clear_process(run_name))

    async def let_go(self, run: Run) -> None:
        """The node ends, the run goes on: the next process takes it over."""
        if run.run_name:
            await self._proxy.close(run.run_name)
        run.closing.close()

    async def close(self) -> None:
        """Wait a little for what is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=AT_CLOSE_SECONDS)
        await cancelled(*self._under_way)

    async def _clear(self, run: Run) -> None:
        try:
            if run.run_name:
                await self._clear_process(run.run_name)
        finally:
            run.closing.close()

    async def _clear_process(self, run_name: str) -> None:
        """Give a process whose run has ended a moment to end by itself; then nothing is left of it."""
        try:
            await first_of(self._runtime.wait(run_name), timeout_seconds=AFTER_SECONDS)
            await self._runtime.stop(run_name)
            await self._runtime.remove(run_name)
            failpoint("node.run.process_removed")
        finally:
            await self._proxy.close(run_name)
        await asyncio.to_thread(shutil.rmtree, self._runtime_directory / run_name, ignore_errors=True)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(_logged(work))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:
        log.exception("run.not_cleared_away")
