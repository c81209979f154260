"""Calls that are repeated until the other side is there again."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from folkmoot.transport import timeouts
from folkmoot.transport.status import RemoteError, error_from_rpc
from folkmoot.v1 import errors_pb2

Answer = TypeVar("Answer")

TRANSIENT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""Statuses after which the same call may succeed."""

BUSY = frozenset({errors_pb2.ERROR_REASON_RATE_LIMITED, errors_pb2.ERROR_REASON_TOO_MANY})
"""Refusals that pass by themselves: the other side says how long that takes."""


def pause_seconds(attempt: int) -> float:
    """How long to wait before attempt `attempt` (from 1): doubling up to RECONNECT_SECONDS, with jitter, so that a thousand
    nodes do not come back in the same instant."""
    ceiling: float = min(timeouts.RECONNECT_SECONDS, timeouts.RECONNECT_SECONDS / 50 * 2.0**attempt)
    return ceiling * (0.5 + random.random() / 2)  # noqa: S311 - jitter is no secret


async def retrying(
    call: Callable[[], Awaitable[Answer]], *, give_up_after_seconds: float | None = None, server: str = "the server"
) -> Answer:
    """Make an idempotent call, again and again while the other side can't be reached, or asks to wait for some seconds.

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
            error = error_from_rpc(rpc_error, server=server)
            pause = pause_before(attempt, error)
            if pause is None or (end is not None and loop.time() + pause > end):
                raise error from None
        await asyncio.sleep(pause)


def pause_before(attempt: int, error: RemoteError) -> float | None:
    """How long to wait before that attempt; None if it would not help, or only after longer than callers want to wait unasked."""
    if error.reason in BUSY and error.retry_after_seconds is not None:
        return error.retry_after_seconds if error.retry_after_seconds <= timeouts.RECONNECT_SECONDS else None
    return pause_seconds(attempt) if error.code in TRANSIENT else None


def pause_after(attempt: int, error: grpc.aio.AioRpcError | TimeoutError) -> float:
    """How long to wait after a call broke off, before it is made again; raise what the other side said if that would not help."""
    if isinstance(error, TimeoutError):
        return pause_seconds(attempt)
    said = error_from_rpc(error)
    pause = pause_before(attempt, said)
    if pause is None:
        raise said from None
    return pause
