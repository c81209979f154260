"""What is told of a call that has ended, to whoever keeps metrics or traces of calls."""

from dataclasses import dataclass
from typing import Protocol

from folkmoot.transport.tracing import Span


@dataclass(frozen=True, slots=True)
class Ended:
    """A call that has ended."""

    method: str
    code: str
    """The canonical status, OK or NOT_FOUND for instance."""
    seconds: float
    request_id: str
    about: Span | None
    """The task or the run that the call was about."""


class Observer(Protocol):
    """Takes notice of calls."""

    def ended(self, call: Ended) -> None:
        """Take notice of a call. Must be quick, and must not raise."""
        ...
