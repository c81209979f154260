"""Compute slots: how many runs of a station compute at the same time.

Promises: never more runs hold a slot than there are; who waits gets one in the order of task ids (which sort by time), so that tasks
whose runs message each other start everywhere in the same order; a run that waits for others (subtask results, messages) lends its
slot and takes one again before it goes on. Therefore one slot is enough for any nesting of tasks: whoever holds one is computing.
"""

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """A number of slots and those who wait for one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._free = number
        self._order = itertools.count()
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self._free

    @property
    def awaited(self) -> int:
        """How many wait for a slot."""
        return sum(not granted.done() for *_, granted in self._waiting)

    async def take(self, task_id: str) -> None:
        """Wait for a slot; the oldest task is served first."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (task_id, next(self._order), granted))
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        """Give a slot back: to the oldest task that waits, if any does."""
        self._free += 1
        while self._waiting and self._free:
            *_, granted = heapq.heappop(self._waiting)
            if not granted.done():
                self._free -= 1
                granted.set_result(None)


class Slot:
    """One run's hold on a slot. `close` ends it, whatever is under way."""

    def __init__(self, slots: Slots, task_id: str) -> None:
        self._slots = slots
        self._task_id = task_id
        self._held = False
        self._taking = asyncio.Lock()
        self._later: set[asyncio.Task[None]] = set()

    async def take(self) -> None:
        """Wait for the slot."""
        async with self._taking:
            if not self._held:
                await self._slots.take(self._task_id)
                self._held = True

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """Lend the slot while the run waits for others, and take one again before it goes on.

        A wait that the algorithm breaks off is not held up: the slot is then taken again beside it.
        """
        self.give_back()
        try:
            yield
        except BaseException:
            self.take_later()
            raise
        await self.take()

    def take_later(self) -> None:
        """Take the slot as soon as there is one, without holding anybody up."""
        taking = asyncio.create_task(self.take())
        self._later.add(taking)
        taking.add_done_callback(self._later.discard)

    def close(self) -> None:
        """Give the slot back for good."""
        for taking in self._later:
            taking.cancel()
        self.give_back()

    @property
    def taken(self) -> bool:
        """Whether the run has it."""
        return self._held

    def give_back(self) -> None:
        """Give the slot back, if the run has it."""
        if self._held:
            self._held = False
            self._slots.give_back()
