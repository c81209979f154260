"""Requests as they come in: read without raising, and refused when their turn comes, like any other wrong request.

gRPC reads a request before anybody has looked at the call, and answers what it can't read with a fault and a traceback that
are none of ours: whoever can reach a socket could fill a log with them.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from folkmoot.transport.validation import validate
from folkmoot.trust.errors import Malformed

_UNREADABLE: Final = object()


def readable(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Return what reads a request; what is not one is refused by `check`, not here."""

    def read(data: bytes) -> Any:
        try:
            return deserialize(data) if deserialize else data
        except DecodeError:
            return _UNREADABLE

    return read


def check_readable(request: Any) -> None:
    """Raise Malformed for what could not be read."""
    if request is _UNREADABLE:
        raise Malformed("The request is not a message of the kind that this method takes.")


def check(request: Any) -> None:
    """Raise Malformed for what could not be read, INVALID_FIELD for what breaks the contract's rules."""
    check_readable(request)
    validate(request)


class ReadsAll(grpc.aio.ServerInterceptor):
    """Has every request of a server read by `readable`; the handlers check."""

    def __init__(self) -> None:
        self._handlers: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any] | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the method's handler, made at its first call."""
        method = handler_call_details.method
        if method not in self._handlers:
            handler: Any = await continuation(handler_call_details)
            if handler is None:
                return None
            self._handlers[method] = handler._replace(request_deserializer=readable(handler.request_deserializer))
        return cast("grpc.RpcMethodHandler[Any, Any]", self._handlers[method])
