"""What organizations have used altogether, without adding all of it up each time.

Usage is counted by day, and a day that is over for good changes no more: its sum is remembered, and only what came since is
added up when somebody asks. The first look after the start reads all that there is, once.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select

from folkmoot.server.store.tables import EPOCH, usage
from folkmoot.server.store.usage_rows import COUNTERS, midnight

SETTLED_AFTER = timedelta(days=2)
"""How long behind its midnight a day may still be counted on: clocks of instances differ, and transactions last."""


@dataclass(frozen=True, slots=True)
class Used:
    """Sums of the counters, in the order of `COUNTERS`."""

    runs_asked_for: int = 0
    runs_executed: int = 0
    run_milliseconds: int = 0
    bytes_stored: int = 0
    bytes_fetched: int = 0

    def plus(self, more: Sequence[int]) -> "Used":
        """Return both together."""
        return Used(*(one + int(other) for one, other in zip(astuple(self), more, strict=True)))


class Totals:
    """The sums over all days and organizations."""

    def __init__(self) -> None:
        self._settled = EPOCH, Used()

    def look(self, connection: Connection, now: datetime) -> Used:
        """Return the sums as they are now."""
        until, settled = self._settled
        if (over := midnight(now) - SETTLED_AFTER) > until:
            until, settled = self._settled = over, settled.plus(_sums(connection, until, over))
        return settled.plus(_sums(connection, until, None))


def _sums(connection: Connection, first: datetime, end: datetime | None) -> Sequence[int]:
    """Add up the days from the first one on, until before the end."""
    sums = select(*(func.coalesce(func.sum(column), 0) for column in COUNTERS)).where(usage.c.day >= first)
    return connection.execute(sums if end is None else sums.where(usage.c.day < end)).one()
