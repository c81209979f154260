"""Streams end with their connection's age: politely, between two messages, so that who reads them goes on elsewhere.

When a connection reaches `max_connection_age_minutes`, gRPC takes no new calls on it and leaves those that are there. A
node's link or a watch would hold it for ever; it is therefore ended with SHUTTING_DOWN a little later, when the next
attempt opens a new connection, perhaps to another instance. Nothing gets lost: rows are the truth, streams are hints.
Transfers of payloads are left alone, since they end by themselves.

A stream whose caller may read it no more is ended in the same way, also while nothing happens in it.
"""

import asyncio
import random
from collections.abc import AsyncGenerator
from typing import TypeVar

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

LATER = (1.2, 1.4)
"""When a stream ends, in ages of a connection: gRPC varies that age by a tenth, and all at once would be a storm."""
TRANSFERS = "/folkmoot.v1.PayloadService/"

M = TypeVar("M")


class Life:
    """How long a stream lasts: so many seconds (None: for ever), or until somebody ends it."""

    __slots__ = ("_ends_at", "_error", "_waiting")

    def __init__(self, seconds: float | None) -> None:
        self._ends_at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._error: FolkmootError | None = None
        self._waiting: asyncio.Timeout | None = None

    def end(self, error: FolkmootError) -> None:
        """End the stream with that error, at once if it waits for its next message."""
        if self._error is None:
            self._error = error
            if self._waiting is not None:
                self._waiting.reschedule(asyncio.get_running_loop().time())

    async def of(self, messages: AsyncGenerator[M, None]) -> AsyncGenerator[M, None]:
        """Yield messages; raise SHUTTING_DOWN once they have lasted so long, or what the stream was ended with."""
        while self._error is None:
            waiting = asyncio.timeout_at(self._ends_at)
            try:
                async with waiting:
                    self._waiting = waiting
                    message = await anext(messages)
            except StopAsyncIteration:
                return
            except TimeoutError:
                if not waiting.expired():
                    raise
                raise self._why() from None
            finally:
                self._waiting = None
            yield message
        raise self._why()

    def _why(self) -> FolkmootError:
        return self._error or _aged()


def life_seconds(method: str, age_seconds: float) -> float | None:
    """Return how long a stream may last; None: for ever."""
    if not age_seconds or method.startswith(TRANSFERS):
        return None
    return age_seconds * random.uniform(*LATER)  # noqa: S311 -- no secret


def _aged() -> FolkmootError:
    text = "This stream has lasted as long as streams last here: open it again, it goes on where it was"
    return FolkmootError(errors_pb2.ERROR_REASON_SHUTTING_DOWN, text)
