"""Turns at something that takes a while: so many at a time, and whoever waits from one place waits for others of that place alone.

Places take turns, one after the other, however many wait at each: a hundred logins from one address hold up nobody at another
one. Queues are bounded, that of a place much sooner than all of them together; who finds them full is told when to come back.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from folkmoot.server.core import try_later
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

COME_BACK_AFTER = timedelta(seconds=5)


class Turns:
    """`at_a_time` turns at once; at most `most_waiting` wait for one, and `most_of_a_place` from the same place."""

    def __init__(self, at_a_time: int, *, most_waiting: int, most_of_a_place: int) -> None:
        self._free = at_a_time
        self._most_waiting = most_waiting
        self._most_of_a_place = most_of_a_place
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, place: str) -> AsyncIterator[None]:
        """Wait for a turn; raise TOO_MANY if too many wait already."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(place)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, place: str) -> None:
        if len(self._waiting.get(place, ())) >= self._most_of_a_place:
            raise _too_many("from your address")
        if sum(map(len, self._waiting.values())) >= self._most_waiting:
            raise _too_many("at once")
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(place, turn)
            else:
                self._pass_on()  # it had just got its turn
            raise

    def _leave(self, place: str, turn: asyncio.Future[None]) -> None:
        self._waiting[place].remove(turn)
        if not self._waiting[place]:
            del self._waiting[place]

    def _pass_on(self) -> None:
        """Give the turn to the first of the place that has waited for longest, which then stands behind all others."""
        if not self._waiting:
            self._free += 1
            return
        place, turns = self._waiting.popitem(last=False)
        turn = turns.popleft()
        if turns:
            self._waiting[place] = turns
        turn.set_result(None)


def _too_many(where: str) -> FolkmootError:
    return try_later(errors_pb2.ERROR_REASON_TOO_MANY, f"Too many logins {where}", COME_BACK_AFTER)
