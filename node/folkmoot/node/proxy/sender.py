"""What messages and subtasks know of the run that they leave."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from folkmoot.node.journal.records import RunRecord
from folkmoot.trust import VerifiedTask


class Sender(Protocol):
    """A run under way, whose algorithm has something sent to others."""

    @property
    def record(self) -> RunRecord:
        """As it stands."""

    @property
    def task(self) -> VerifiedTask:
        """Its task."""

    def require_allowed(self) -> None:
        """Raise FolkmootError unless the policy in force still allows what the run is."""

    def leaving(self) -> AbstractAsyncContextManager[None]:
        """Journal something that leaves, before the run's end does; raise FolkmootError where that stands already."""

    def left(self, bytes_out: int) -> None:
        """So many sealed bytes have left, and are counted in the journal."""

    def waiting_for_others(self) -> AbstractAsyncContextManager[None]:
        """Lend the slot for a while."""
