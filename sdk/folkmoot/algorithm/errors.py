"""What can go wrong for an algorithm. Each error carries its reason of the product's catalogue.

    AlgorithmError
    ├── FunctionNotFound        the algorithm has no such function
    ├── ArgumentsInvalid        the arguments do not fit the function
    ├── NotSerializable         a value is neither JSON nor bytes nor a table
    ├── ContentInvalid          received bytes are not what their media type says
    ├── TableNotFound           no data under this label
    ├── ColumnNotFound          the table has no such column
    ├── DataUnreadable          the data owner's source is broken
    ├── TooFewRows              the data owner gives no fewer rows than a minimum
    ├── QueryNotAllowed         the data owner does not permit queries of this label
    ├── QueryInvalid            the query can't be executed
    ├── OrganizationNotFound    no such organization in this collaboration or task
    ├── TaskNotFound            not a dependency or subtask of this run
    ├── SubtaskNotAllowed       the task or the data owner's policy does not allow it
    ├── MessagesNotAllowed      the same, for messages
    ├── DataframeNotAllowed     the same, for a dataframe that is left
    ├── MessageGap              a message was withheld on its way
    ├── RunNotCompleted         another run was asked for its value and has none
    └── ArrowLibraryMissing     a table was asked for and no library for it is installed

What the node refuses for another reason is an `AlgorithmError` with that reason. One that leaves the algorithm's
function ends the run as FAILED, with its message and its reason.
"""

# Errors are named after their reasons in the catalogue, which say what is the matter without the word "error".
# ruff: noqa: N818

from typing import ClassVar

from folkmoot.v1 import errors_pb2 as reasons


class AlgorithmError(Exception):
    """The root of the tree: `message` says what happened and what to do, `reason` is a value of ErrorReason."""

    usual_reason: ClassVar[reasons.ErrorReason.ValueType] = reasons.ERROR_REASON_UNSPECIFIED

    def __init__(self, message: str, *, reason: reasons.ErrorReason.ValueType | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = self.usual_reason if reason is None else reason


class FunctionNotFound(AlgorithmError):
    """The algorithm has no such function; the message names those it has."""

    usual_reason = reasons.ERROR_REASON_FUNCTION_NOT_FOUND


class ArgumentsInvalid(AlgorithmError):
    """The arguments do not fit the function; the message names them and shows the signature."""

    usual_reason = reasons.ERROR_REASON_ARGUMENTS_INVALID


class NotSerializable(AlgorithmError):
    """A value cannot travel; the message names the place inside of it."""

    usual_reason = reasons.ERROR_REASON_NOT_SERIALIZABLE


class ContentInvalid(AlgorithmError):
    """Received bytes are not what their media type says."""

    usual_reason = reasons.ERROR_REASON_INPUT_REJECTED


class TableNotFound(AlgorithmError):
    """There is no data under this label."""

    usual_reason = reasons.ERROR_REASON_TABLE_NOT_FOUND


class ColumnNotFound(AlgorithmError):
    """The table has no such column; the message names those it has."""

    usual_reason = reasons.ERROR_REASON_COLUMN_NOT_FOUND


class DataUnreadable(AlgorithmError):
    """The data owner's source is broken."""

    usual_reason = reasons.ERROR_REASON_DATA_UNREADABLE


class TooFewRows(AlgorithmError):
    """Fewer rows were asked for than the data owner gives at once; the message names the minimum."""

    usual_reason = reasons.ERROR_REASON_TOO_FEW_ROWS


class QueryNotAllowed(AlgorithmError):
    """The data owner does not permit queries of this label."""

    usual_reason = reasons.ERROR_REASON_QUERY_NOT_ALLOWED


class QueryInvalid(AlgorithmError):
    """The query can't be executed; the message says why."""

    usual_reason = reasons.ERROR_REASON_QUERY_INVALID


class DataframeNotAllowed(AlgorithmError):
    """The task names no dataframe that its runs leave, or the data owner lets none be left."""

    usual_reason = reasons.ERROR_REASON_DATAFRAME_NOT_ALLOWED


class OrganizationNotFound(AlgorithmError):
    """There is no such organization; the message names those there are."""

    usual_reason = reasons.ERROR_REASON_ORGANIZATION_NOT_FOUND


class TaskNotFound(AlgorithmError):
    """The task is neither a dependency nor a subtask of this run."""

    usual_reason = reasons.ERROR_REASON_TASK_NOT_FOUND


class SubtaskNotAllowed(AlgorithmError):
    """The task's grant, or the data owner's policy, does not allow this subtask."""

    usual_reason = reasons.ERROR_REASON_SUBTASK_NOT_ALLOWED


class MessagesNotAllowed(AlgorithmError):
    """The task's grant, or the data owner's policy, does not allow messages."""

    usual_reason = reasons.ERROR_REASON_MESSAGES_NOT_ALLOWED


class MessageGap(AlgorithmError):
    """A message is missing in a sibling's order: somebody on the way withheld it."""

    usual_reason = reasons.ERROR_REASON_MESSAGE_GAP


class RunNotCompleted(AlgorithmError):
    """A run was asked for its value and ended without one; the message says how it ended."""

    usual_reason = reasons.ERROR_REASON_DEPENDENCY_FAILED


class ArrowLibraryMissing(AlgorithmError):
    """A table was asked for and no library that reads or writes Arrow is installed."""


_BY_REASON = {
    kind.usual_reason: kind
    for kind in (
        TableNotFound,
        ColumnNotFound,
        DataUnreadable,
        TooFewRows,
        QueryNotAllowed,
        QueryInvalid,
        OrganizationNotFound,
        TaskNotFound,
        SubtaskNotAllowed,
        MessagesNotAllowed,
        DataframeNotAllowed,
        MessageGap,
    )
}
_PREFIX = "ERROR_REASON_"


def refusal(details: str) -> AlgorithmError:
    """Return the error that a node's status message stands for ("COLUMN_NOT_FOUND: text")."""
    head, _, text = details.partition(": ")
    name = _PREFIX + head
    if name not in reasons.ErrorReason.DESCRIPTOR.values_by_name:
        return AlgorithmError(details)
    reason = reasons.ErrorReason.Value(name)
    return _BY_REASON.get(reason, AlgorithmError)(text, reason=reason)
