"""What people call things that the contract numbers or addresses."""

import unicodedata
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import State
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.task_pb2 import ExitClass


def name_of(state: State, organization_id: str) -> str:
    """The organization's name by the ledger; its address once it is no member any more."""
    member = state.members.get(organization_id)
    return member.name if member else organization_id


def exit_class_name(value: int) -> str:
    """How an algorithm ended, such as "OUT_OF_MEMORY"; empty if it gave a result or did not run."""
    return ExitClass.Name(ExitClass.ValueType(value)).removeprefix("EXIT_CLASS_") if value else ""


def printable(text: str) -> str:
    """The text as a terminal can be trusted with: what an algorithm says must not steer the terminal of those who read it."""
    return "".join(one if one in "\n\t" or unicodedata.category(one)[0] != "C" else "\ufffd" for one in text)


def moment(stamp: Timestamp) -> datetime:
    """A time as Python has it (UTC). Raises Malformed for one that is missing, or that no calendar has."""
    return moment_at(nanoseconds(stamp))
