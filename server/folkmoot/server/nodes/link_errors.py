"""What a session tells a node that breaks the link's protocol, or that has to go."""

from folkmoot.transport.limits import INLINE_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


def violation(text: str) -> FolkmootError:
    """Return the error of a node that breaks the protocol."""
    return FolkmootError(ErrorReason.ERROR_REASON_PROTOCOL_VIOLATION, text)


def shutting_down() -> FolkmootError:
    """Return the error of a server that is about to stop."""
    return FolkmootError(ErrorReason.ERROR_REASON_SHUTTING_DOWN, "The server stops")


def too_large(what: str) -> FolkmootError:
    """Return the error of an envelope that can't travel over a link."""
    return FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, f"{what} has more than {INLINE_BYTES} bytes")
