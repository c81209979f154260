"""Exit codes: what a script can tell from how `folkmoot` ended. The table is in `folkmoot --help` too."""

from enum import IntEnum

import grpc

from folkmoot.transport import RemoteError, Unreachable
from folkmoot.transport.status import status_code
from folkmoot.trust import EntryNotPossible, FolkmootError
from folkmoot.v1 import errors_pb2


class Exit(IntEnum):
    """How the command ended."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> "Exit":
        """Make a code with what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    OK = 0, "done"
    FAULT = 1, "a fault of Folkmoot's own"
    USAGE = 2, "wrong use: options, arguments, fields"
    DENIED = 3, "not logged in, or not allowed"
    NOT_FOUND = 4, "something named does not exist"
    STATE = 5, "not possible as things stand"
    UNREACHABLE = 6, "the server can't be reached, is not trusted, or asks to wait"
    NOT_PROVEN = 7, "a proof failed: somebody altered something, or a key is wrong"
    NOT_COMPLETED = 8, "the task ended, and not every run has a result"
    REFUSED = 9, "a node would refuse the task"
    INTERRUPTED = 130, "interrupted"


_NOT_TO_BE_APPENDED = errors_pb2.ERROR_REASON_LEDGER_ENTRY_INVALID

_NOT_PROVEN = frozenset(
    {
        errors_pb2.ERROR_REASON_SIGNATURE_INVALID,
        errors_pb2.ERROR_REASON_MALFORMED,
        errors_pb2.ERROR_REASON_ENVELOPE_REJECTED,
        errors_pb2.ERROR_REASON_LEDGER_ENTRY_INVALID,
        errors_pb2.ERROR_REASON_LEDGER_FORK,
        errors_pb2.ERROR_REASON_WRONG_COLLABORATION,
        errors_pb2.ERROR_REASON_KEY_MISMATCH,
        errors_pb2.ERROR_REASON_TASK_NOT_PROVEN,
        errors_pb2.ERROR_REASON_PROOF_INVALID,
        errors_pb2.ERROR_REASON_MESSAGE_GAP,
    }
)

_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: Exit.USAGE,
    grpc.StatusCode.OUT_OF_RANGE: Exit.USAGE,
    grpc.StatusCode.UNAUTHENTICATED: Exit.DENIED,
    grpc.StatusCode.PERMISSION_DENIED: Exit.DENIED,
    grpc.StatusCode.NOT_FOUND: Exit.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Exit.STATE,
    grpc.StatusCode.FAILED_PRECONDITION: Exit.STATE,
    grpc.StatusCode.ABORTED: Exit.STATE,
    grpc.StatusCode.CANCELLED: Exit.STATE,
    grpc.StatusCode.DATA_LOSS: Exit.NOT_PROVEN,
    grpc.StatusCode.UNAVAILABLE: Exit.UNREACHABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Exit.UNREACHABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exit.UNREACHABLE,
}


def exit_code(error: FolkmootError) -> Exit:
    """The code for an error, by the catalogue."""
    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    # What was only asked for does not follow from the ledger: nobody has altered anything.
    if isinstance(error, EntryNotPossible) or (isinstance(error, RemoteError) and error.reason == _NOT_TO_BE_APPENDED):
        return Exit.STATE
    if error.reason in _NOT_PROVEN:
        return Exit.NOT_PROVEN
    return _BY_STATUS.get(status_code(error), Exit.FAULT)
