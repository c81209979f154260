"""Denied calls in the audit trail: each of them while they are few; what goes beyond is counted, and told once a minute.

So every denied call is in the trail, with all that is known of it or within a number, and nobody fills the database by being
denied: neither who is known, nor who knocks. One who makes more calls than the server takes is told of by number alone.
A server that is killed forgets what it has counted within the minute.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

INTENT = "call.denied"
SINGLY = 60
"""How many denied calls of one caller have an event of their own within a minute; strangers are one caller."""
TOLD_EVERY_SECONDS = 60.0


@dataclass(slots=True)
class _Denied:
    """What one caller was denied since the last telling."""

    who: Caller
    singly: int = 0
    summed: Counter[str] = field(default_factory=Counter)
    """Calls without an event of their own, by what they were answered."""


class Denials:
    """Puts denied calls into the audit trail."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._denied: dict[str, _Denied] = {}

    async def record(self, method: str, error: FolkmootError) -> None:
        """Record that the present call is denied, or count it."""
        who = context.caller()
        of = self._denied.setdefault(who.created_by, _Denied(who))
        if error.reason == errors_pb2.ERROR_REASON_RATE_LIMITED or of.singly >= SINGLY:
            of.summed[error.reason_name] += 1
            return
        of.singly += 1
        data, now = {"method": method}, self._core.clock()
        try:
            await self._core.store.write(events.prepare(intent=INTENT, data=data, now=now, outcome=error.reason_name))
        except Exception:
            self._core.log.exception("call.denial_not_recorded", method=method)
            of.summed[error.reason_name] += 1

    async def keep(self) -> None:
        """Tell every minute what was counted, and when the server is about to stop."""
        while not self._core.draining.is_set():
            await self._core.pause(TOLD_EVERY_SECONDS)
            await self.tell()

    async def tell(self) -> None:
        """Record what was counted until now; what can't be recorded is kept for the next time."""
        denied, self._denied = self._denied, {}
        now = self._core.clock()
        records = [
            events.prepare(intent=INTENT, data={"calls": number}, caller=of.who, outcome=reason, now=now)
            for of in denied.values()
            for reason, number in of.summed.items()
        ]
        if not records:
            return
        try:
            await self._core.store.write(lambda connection: _all(connection, records))
        except Exception:
            self._core.log.exception("call.denials_not_recorded")
            for whose, of in denied.items():
                self._denied.setdefault(whose, _Denied(of.who)).summed.update(of.summed)


def _all(connection: Connection, records: Sequence[Callable[[Connection], None]]) -> None:
    for record in records:
        record(connection)
