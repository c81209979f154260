"""What a check finds, and what a check is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from folkmoot.server.config import Config


class State(StrEnum):
    """How a thing is."""

    GOOD = "ok"
    DOUBTFUL = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Finding:
    """One line of the report; `mend` says what to do, where something is to be done."""

    what: str
    state: State
    text: str
    mend: str = ""


Found = Iterator[Finding]
Check = Callable[[Config, datetime], Found]


def line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [""])[0]
