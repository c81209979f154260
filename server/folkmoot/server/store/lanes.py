"""Lanes: threads that take operations from one queue, in groups of what is there.

A lane keeps the order of those operations that have one, and tells each event loop once of a whole group.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from folkmoot.server.store.jobs import Job, Operation, Outcome


class Worker(Protocol):
    """Does the operations of a group."""

    def turn(self) -> AbstractContextManager[object]:
        """Wait until it is a thread's turn; what is queued meanwhile joins its group."""

    def run(self, group: list[Job]) -> list[Outcome]:
        """Do a group; return what became of each."""


class Lane:
    """Threads that take operations from one queue, in groups of what is there."""

    def __init__(self, name: str, worker: Worker, *, threads: int, group: int) -> None:
        self._worker = worker
        self._group = group
        # One thread keeps the order of everything by itself.
        self._keeps_order = threads > 1
        self._behind: dict[Hashable, list[Job]] = {}
        self._changing = threading.Lock()
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """How much waits for a thread."""
        return self._queue.qsize()

    def submit(
        self, operation: Operation[Any], then: Callable[[Any], None] | None, order: Hashable = None
    ) -> asyncio.Future[Any]:
        """Queue an operation; its outcome is told in the event loop that asks."""
        loop = asyncio.get_running_loop()
        job = Job(operation, then, loop, loop.create_future(), order)
        if order is not None and self._keeps_order:
            with self._changing:
                if (behind := self._behind.get(order)) is not None:
                    behind.append(job)
                    return job.future
                self._behind[order] = []
        self._queue.put([job])
        return job.future

    async def close(self) -> None:
        """Finish what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self) -> None:
        closing = False
        while not closing and (first := self._queue.get()) is not None:
            with self._worker.turn():
                group = list(first)
                while len(group) < self._group:
                    try:
                        jobs = self._queue.get_nowait()
                    except queue.Empty:
                        break
                    if jobs is None:
                        closing = True
                        break
                    group += jobs
                outcomes = self._worker.run(group)
            while outcomes:
                _tell(outcomes)
                outcomes = self._follow(outcomes, at_once=closing)

    def _follow(self, outcomes: list[Outcome], *, at_once: bool) -> list[Outcome]:
        """Let go on what waited for these: other threads take it, unless this one is the last."""
        if not self._keeps_order:
            return []
        done = {outcome.job.order for outcome in outcomes} - {None}
        following: list[Job] = []
        with self._changing:
            for order in done:
                if behind := self._behind.pop(order, []):
                    self._behind[order] = behind[self._group :]
                    following += behind[: self._group]
        if following and at_once:
            return self._worker.run(following)
        if following:
            self._queue.put(following)
        return []


def _tell(outcomes: list[Outcome]) -> None:
    """Answer a group with one wake-up of each event loop."""
    for loop in {outcome.job.loop for outcome in outcomes}:
        mine = [outcome for outcome in outcomes if outcome.job.loop is loop]

        def tell(mine: list[Outcome] = mine) -> None:
            for outcome in mine:
                outcome.tell()

        loop.call_soon_threadsafe(tell)
