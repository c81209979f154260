"""Requests as they come in: read without raising, so that whoever may not call learns nothing, and checked when their turn comes.

gRPC reads a request before anybody has looked at the call, and answers what it can't read with a fault that is none of ours.
"""

from collections.abc import Callable
from typing import Any, Final

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


def check(request: Any) -> None:
    """Raise Malformed for what could not be read, INVALID_FIELD for what breaks the contract's rules."""
    if request is _UNREADABLE:
        raise Malformed("The request is not a message of the kind that this method takes.")
    validate(request)
