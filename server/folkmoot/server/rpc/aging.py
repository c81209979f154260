"""Streams end with their connection's age: politely, between two messages, so that who reads them goes on elsewhere.

When a connection reaches `max_connection_age_minutes`, gRPC takes no new calls on it and leaves those that are there. A
node's link or a watch would hold it for ever; it is therefore ended with SHUTTING_DOWN a little later, when the next
attempt opens a new connection, perhaps to another instance. Nothing gets lost: rows are the truth, streams are hints.
Transfers of payloads are left alone, since they end by themselves.
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


def life_seconds(method: str, age_seconds: float) -> float | None:
    """Return how long a stream may last; None: for ever."""
    if not age_seconds or method.startswith(TRANSFERS):
        return None
    return age_seconds * random.uniform(*LATER)  # noqa: S311 -- no secret


def limited(messages: AsyncGenerator[M, None], seconds: float | None) -> AsyncGenerator[M, None]:
    """Yield messages; raise SHUTTING_DOWN once the stream has lasted so long, while it waits for the next one."""
    return messages if seconds is None else _limited(messages, asyncio.get_running_loop().time() + seconds)


async def _limited(messages: AsyncGenerator[M, None], end: float) -> AsyncGenerator[M, None]:
    while True:
        ending = asyncio.timeout_at(end)
        try:
            async with ending:
                message = await anext(messages)
        except StopAsyncIteration:
            return
        except TimeoutError:
            if not ending.expired():
                raise
            text = "This stream has lasted as long as streams last here: open it again, it goes on where it was"
            raise FolkmootError(errors_pb2.ERROR_REASON_SHUTTING_DOWN, text) from None
        yield message
