"""Calls of any method with any bytes, over a channel."""

from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor

PATIENCE_SECONDS = 0.3
"""Streams are left after this time; how long an answer takes is no matter here."""
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


async def answer(
    channel: grpc.aio.Channel,
    method: MethodDescriptor,
    requests: list[bytes],
    metadata: tuple[tuple[str, str], ...] = (),
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> grpc.StatusCode:
    """Call a method; return the status. A stream is listened to for a while."""
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = iter(requests) if method.client_streaming else requests[0]
    call = kinds[method.client_streaming, method.server_streaming](path)(
        request, metadata=metadata, timeout=patience_seconds
    )
    try:
        if method.server_streaming:
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        # The client's own library says this when the server has ended a call that is still being sent to.
        is_own = (error.details() or "").startswith("Internal error from Core")
        return grpc.StatusCode.CANCELLED if is_own else error.code()
    return grpc.StatusCode.OK
