"""How much one caller may do: so many calls a second, so many streams at once.

Each caller has a bucket of tokens, which fills at a steady rate and holds a burst; a call takes one. Users and nodes have
a bucket each, strangers share one by their address. Whoever finds the bucket empty is told how long it takes to fill, and
nobody else notices. An instance of the server counts what comes to it.

A hospital's nodes share its address with whoever else is in its network, and who comes in is a stranger yet: so that nobody
bars the way in by calling too much, its two calls are not counted before it is known who makes them. Giving a nonce costs
less than refusing one. A proof counts as its node's, who proved it; one that proves nothing counts as a stranger's.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from folkmoot.server.context import Caller
from folkmoot.server.core import try_later
from folkmoot.server.peers import place_of
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

BUCKETS_REMEMBERED = 20_000
EXEMPT = "/grpc.health.v1.Health/"
"""Whoever watches over the server must not be shut out by others at his address."""
WAY_IN = ("/folkmoot.v1.AuthService/GetNonce", "/folkmoot.v1.AuthService/AuthenticateNode")


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class Rates:
    """Buckets of tokens, by whose they are; those that were not used for longest are full, and forgotten."""

    def __init__(self, calls_per_second: float, burst: float, time: Callable[[], float]) -> None:
        self._rate = calls_per_second
        self._burst = max(burst, 1.0)
        self._time = time
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, whose: str) -> None:
        """Take a token; raise RATE_LIMITED."""
        if not self._rate:
            return
        now = self._time()
        bucket = self._buckets.get(whose)
        if bucket is None:
            bucket = self._buckets[whose] = _Bucket(self._burst, now)
            if len(self._buckets) > BUCKETS_REMEMBERED:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(whose)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            raise _rate_limited(timedelta(seconds=(1 - bucket.tokens) / self._rate))
        bucket.tokens -= 1


class Streams:
    """Counts the streams that are open, by whose they are."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def begin(self, whose: str) -> Callable[[], None]:
        """Count one more, until what is returned is called; raise TOO_MANY."""
        if self._most and self._open[whose] >= self._most:
            text = f"{self._most} streams of yours are open here: end some before you open more"
            raise FolkmootError(errors_pb2.ERROR_REASON_TOO_MANY, text)
        self._open[whose] += 1
        return lambda: self._end(whose)

    def _end(self, whose: str) -> None:
        self._open[whose] -= 1
        if not self._open[whose]:
            del self._open[whose]


def whose(caller: Caller, origin: str) -> str:
    """Return under which name a caller is counted: his own, or his address if nobody knows him."""
    return caller.created_by or place_of(origin)


def _rate_limited(wait: timedelta) -> FolkmootError:
    return try_later(errors_pb2.ERROR_REASON_RATE_LIMITED, "You make more calls than this server takes", wait)
