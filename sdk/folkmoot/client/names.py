"""What people call things that the contract numbers or addresses."""

import unicodedata
from collections.abc import Iterable
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import FolkmootError, OrganizationNotFound, State
from folkmoot.trust.claims import check_name
from folkmoot.trust.rules import RuleBroken
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import LedgerEntry
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ExitClass


def name_of(state: State, organization_id: str) -> str:
    """The organization's name by the ledger, also once it is gone; the address of one that never was a member."""
    try:
        return state.organization_name(organization_id)
    except OrganizationNotFound:
        return organization_id


def names_of(state: State, organization_ids: Iterable[str]) -> tuple[str, ...]:
    """The organizations' names, sorted."""
    return tuple(sorted(name_of(state, each) for each in organization_ids))


def made_at(entry: Signed) -> datetime:
    """When a ledger's entry was made."""
    return moment(LedgerEntry.FromString(entry.body).created_at)


def exit_class_name(value: int) -> str:
    """How an algorithm ended, such as "OUT_OF_MEMORY"; empty if it gave a result or did not run."""
    return ExitClass.Name(ExitClass.ValueType(value)).removeprefix("EXIT_CLASS_") if value else ""


def printable(text: str) -> str:
    """The text as a terminal can be trusted with: what an algorithm says must not steer the terminal of those who read it."""
    return "".join(one if one in "\n\t" or unicodedata.category(one)[0] != "C" else "\ufffd" for one in text)


def require_name(field: str, name: str) -> None:
    """Check what somebody wants to call an organization, a collaboration or a node. Raises INVALID_FIELD, which says what is allowed."""
    try:
        check_name(name)
    except RuleBroken as broken:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_INVALID_FIELD, f"{field} is {name!r}: {broken}", violations=((field, str(broken)),)
        ) from broken


def moment(stamp: Timestamp) -> datetime:
    """A time as Python has it (UTC). Raises Malformed for one that is missing, or that no calendar has."""
    return moment_at(nanoseconds(stamp))
