"""Calls that are repeated until the other side is there again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from folkmoot.transport import timeouts
from folkmoot.transport.status import error_from_rpc

Answer = TypeVar("Answer")

TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Statuses after which the same call may succeed."""


def pause_seconds(attempt: int) -> float:
    """How long to wait before attempt `attempt` (from 1): doubling up to RECONNECT_SECONDS, with jitter, so that a thousand
    nodes do not come back in the same instant."""
    ceiling: float = min(timeouts.RECONNECT_SECONDS, timeouts.RECONNECT_SECONDS / 50 * 2.0**attempt)
    return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - jitter is no secret


async def retrying(
    call: Callable[[], Awaitable[Answer]], *, give_up_after_seconds: float | None = None, server: str = "the server"
) -> Answer:
    """Make an idempotent call, again and again while the other side can't be reached.

    `give_up_after_seconds` None means never. Raises RemoteError: what the other side said, or Unreachable at the end.
    """
    loop = asyncio.get_running_loop()
    end = None if give_up_after_seconds is None else loop.time() + give_up_after_seconds
    attempt = 0
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as rpc_error:
            attempt += 1
            pause = pause_seconds(attempt)
            if rpc_error.code() not in TRANSIENT or (end is not None and loop.time() + pause > end):
                raise error_from_rpc(rpc_error, server=server) from None
        await asyncio.sleep(pause)
