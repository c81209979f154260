"""The contract's catalogue of reasons (ErrorReason): each one's name, status code and advice, read from the contract itself."""

from functools import cache

from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.options_pb2 import CODE_UNKNOWN, ErrorRule, error

_PREFIX = "ERROR_REASON_"


@cache
def rule_of(reason: int) -> ErrorRule:
    """Return the catalogue's line for a reason: its status code and its advice; none but UNKNOWN for a later release's."""
    known = ErrorReason.DESCRIPTOR.values_by_number.get(reason)
    return known.GetOptions().Extensions[error] if known else ErrorRule(code=CODE_UNKNOWN)


def reason_name(reason: int) -> str:
    """Return a reason as people and programs see it, such as "TASK_NOT_FOUND"; a later release's by its number."""
    known = ErrorReason.DESCRIPTOR.values_by_number.get(reason)
    return known.name.removeprefix(_PREFIX) if known else f"REASON_{reason}"


def reason_number(name: str) -> int:
    """Return the reason that a name means; 0 if this release does not know it."""
    known = ErrorReason.DESCRIPTOR.values_by_name.get(_PREFIX + name)
    return known.number if known else 0
