"""How often, and how many at once, an algorithm may call its proxy.

The numbers are far above what a working algorithm needs: they end loops that would wear out the node, nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason


@dataclass(frozen=True)
class CallLimit:
    """What one run may ask of one call."""

    per_second: float
    burst: int  # calls that may come without waiting after a pause
    at_once: int  # calls that may be open


CALL_LIMITS: Mapping[str, CallLimit] = {
    "GetContext": CallLimit(per_second=10, burst=100, at_once=4),
    "ReadInput": CallLimit(per_second=100, burst=1000, at_once=16),
    "ListTables": CallLimit(per_second=5, burst=20, at_once=2),  # starts a process per table
    "ReadTable": CallLimit(per_second=10, burst=100, at_once=4),  # starts a process
    "Query": CallLimit(per_second=10, burst=100, at_once=2),  # starts a process that may use a lot of memory
    "ReadDependency": CallLimit(per_second=100, burst=1000, at_once=16),
    "CreateSubtask": CallLimit(per_second=50, burst=1000, at_once=16),
    "WatchSubtask": CallLimit(per_second=100, burst=1000, at_once=1000),
    "CancelSubtask": CallLimit(per_second=50, burst=1000, at_once=16),
    "SendMessage": CallLimit(per_second=5000, burst=10_000, at_once=256),
    "SendMessages": CallLimit(per_second=1000, burst=5000, at_once=16),
    "TakeMessages": CallLimit(per_second=2000, burst=10_000, at_once=16),
    "ReceiveMessages": CallLimit(per_second=2000, burst=10_000, at_once=16),
    "WriteResult": CallLimit(per_second=5, burst=20, at_once=1),
    "WriteDataframe": CallLimit(per_second=1, burst=10, at_once=1),  # starts a process
    "WriteFailure": CallLimit(per_second=5, burst=20, at_once=1),
    "ReportProgress": CallLimit(per_second=10, burst=100, at_once=4),
    "Log": CallLimit(per_second=50, burst=500, at_once=4),
}
"""One line for each call of ProxyService; a test holds it to that."""


class Limiter:
    """Counts the calls of one run. `clock` gives seconds that never go back.

    A call that comes too soon waits for its turn, so that an algorithm is slowed down rather than refused; calls that wait
    are open calls, and too many of those are refused.
    """

    def __init__(self, clock: Callable[[], float], limits: Mapping[str, CallLimit] = CALL_LIMITS) -> None:
        self._clock = clock
        self._limits = limits
        self._open = dict.fromkeys(limits, 0)
        self._turns = {call: float(limit.burst) for call, limit in limits.items()}
        self._counted_at = dict.fromkeys(limits, clock())

    @contextmanager
    def call(self, name: str) -> Iterator[float]:
        """Count one call from its beginning to its end; gives the seconds until its turn. Raises TOO_MANY instead of beginning it."""
        limit = self._limits[name]
        if self._open[name] >= limit.at_once:
            raise FolkmootError(ErrorReason.ERROR_REASON_TOO_MANY, f"{limit.at_once} calls of {name} are open already")
        self._open[name] += 1
        try:
            yield self._wait_seconds(name, limit)
        finally:
            self._open[name] -= 1

    def _wait_seconds(self, name: str, limit: CallLimit) -> float:
        now = self._clock()
        gained = (now - self._counted_at[name]) * limit.per_second
        self._counted_at[name] = now
        self._turns[name] = min(limit.burst, self._turns[name] + gained) - 1
        return max(0.0, -self._turns[name] / limit.per_second)
