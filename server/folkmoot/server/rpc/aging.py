"""Streams end with their connection's age: politely, between two messages, so that who reads them goes on elsewhere.

When a connection reaches `max_connection_age_minutes`, gRPC takes no new calls on it and leaves those that are there. A
node's link or a watch would hold it for ever; it is therefore ended with SHUTTING_DOWN a little later, when the next
attempt opens a new connection, perhaps to another instance. Nothing gets lost: rows are the truth, streams are hints.
Transfers of payloads are left alone, since they end by themselves.

A stream whose caller may read it no more is ended in the same way, also while nothing happens in it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

LATER = (1.2, 1.4)
"""When a stream ends, in ages of a connection: gRPC varies that age by a tenth, and all at once would be a storm."""
TRANSFERS = "/folkmoot.v1.PayloadService/"

M = TypeVar("M")


class Life:
    """How long a stream lasts: so many seconds (None: for ever), or until somebody ends it. One timer for all of its messages."""

    __slots__ = ("_ends_at", "_error", "_waiting")

    def __init__(self, seconds: float | None) -> None:
        self._ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._error: FolkmootError | None = None
        self._waiting: asyncio.Task[object] | None = None

    def end(self, error: FolkmootError) -> None:
        """End the stream with that error, at once if it waits for its next message."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.cancel()

    async def of(self, messages: AsyncGenerator[M, None]) -> AsyncGenerator[M, None]:
        """Yield messages; raise SHUTTING_DOWN once they have lasted so long, or what the stream was ended with."""
        with self._timed():
            while self._error is None:
                try:
                    yield await self._next(messages)
                except StopAsyncIteration:
                    return
            raise self._error

    async def _next(self, messages: AsyncGenerator[M, None]) -> M:
        self._waiting = task = asyncio.current_task()
        try:
            return await anext(messages)
        except asyncio.CancelledError:
            if self._error is None or (task is not None and task.uncancel() > 0):
                raise  # somebody else wants it to end
            raise self._error from None
        finally:
            self._waiting = None

    @contextmanager
    def _timed(self) -> Iterator[None]:
        if self._ends_at is None:
            yield
            return
        timer = asyncio.get_running_loop().call_at(self._ends_at, lambda: self.end(_aged()))
        try:
            yield
        finally:
            timer.cancel()


def life_seconds(method: str, age_seconds: float) -> float | None:
    """Return how long a stream may last; None: for ever."""
    if not age_seconds or method.startswith(TRANSFERS):
        return None
    return age_seconds * random.uniform(*LATER)  # noqa: S311 -- no secret


def _aged() -> FolkmootError:
    text = "This stream has lasted as long as streams last here: open it again, it goes on where it was"
    return FolkmootError(errors_pb2.ERROR_REASON_SHUTTING_DOWN, text)
