"""What organizations use, by day: runs they asked for, runs at their nodes, sealed bytes they stored and fetched.

Runs and stored bytes are counted by the transaction that ends the run or stores the envelope, so that neither exists
without the other. What is fetched changes no rows: it is added up in memory and written every few seconds, so that a
server that is killed forgets to count as much.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, func, select, tuple_

from folkmoot.server import access, pages
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.people.reach import collaborations
from folkmoot.server.store import tables, usage_rows
from folkmoot.server.store.tables import EPOCH
from folkmoot.server.store.usage_rows import COUNTERS, Counted, midnight
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

USUAL_PERIOD = timedelta(days=29)
"""Today and 29 days before: 30 days."""
LONGEST_PERIOD = timedelta(days=3660)
WRITTEN_EVERY_SECONDS = 5.0

_columns = tables.usage.c


class Fetched:
    """Bytes that were handed out, until they are written down."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._bytes: Counter[str] = Counter()

    def count(self, organization_id: str, size_bytes: int) -> None:
        """Count bytes as fetched by an organization."""
        if organization_id and size_bytes:
            self._bytes[organization_id] += size_bytes

    async def keep(self) -> None:
        """Write down what was counted, every few seconds and when the server is about to stop."""
        while not self._core.draining.is_set():
            await self._core.pause(WRITTEN_EVERY_SECONDS)
            await self.write()

    async def write(self) -> None:
        """Write down what was counted until now; what can't be written is kept for the next time."""
        fetched, self._bytes = self._bytes, Counter()
        if not fetched:
            return
        now = self._core.clock()
        counted = [Counted(organization_id=each, bytes_fetched=size) for each, size in fetched.items()]
        try:
            await self._core.store.write(lambda connection: usage_rows.add(connection, now, *counted))
        except Exception:
            self._core.log.exception("usage.not_written")
            self._bytes.update(fetched)


@dataclass(frozen=True, slots=True)
class Used:
    """What an organization used on a day."""

    day: datetime
    organization_id: str
    runs_asked_for: int
    runs_executed: int
    run_milliseconds: int
    bytes_stored: int
    bytes_fetched: int


async def page(
    core: Core,
    *,
    organization_id: str,
    from_day: datetime | None,
    until_day: datetime | None,
    page_size: int,
    page_token: str,
) -> tuple[Sequence[Used], str]:
    """Return what was used, by day and organization, as far as the caller's rules reach, and the token of the next page."""
    last = midnight(until_day or core.clock())
    first = midnight(from_day) if from_day else last - USUAL_PERIOD
    if first > last:
        raise _invalid("it is after until_day")
    if last - first >= LONGEST_PERIOD:
        raise _invalid(f"a period has at most {LONGEST_PERIOD.days} days: ask for one after the other")
    conditions = [_columns.day >= first, _columns.day <= last, *_seen(caller())]
    if organization_id:
        conditions.append(_columns.organization_id == organization_id)
    if after := pages.position("usage", page_token, int, str):
        conditions.append(tuple_(_columns.day, _columns.organization_id) > (pages.moment("usage", after[0]), after[1]))
    size = pages.size(page_size)
    found = await core.store.read(lambda connection: _used(connection, conditions, size + 1))
    more = len(found) > size
    return found[:size], _token(found[size - 1]) if more else ""


def _invalid(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"from_day: {text}", violations=(("from_day", text),))


def _used(connection: Connection, conditions: Sequence[ColumnElement[bool]], most: int) -> Sequence[Used]:
    sums = [func.sum(column).label(column.name) for column in COUNTERS]
    query = (
        select(_columns.day, _columns.organization_id, *sums)
        .where(*conditions)
        .group_by(_columns.day, _columns.organization_id)
    )
    rows = connection.execute(query.order_by(_columns.day, _columns.organization_id).limit(most))
    return [Used(row.day, row.organization_id, *(int(number) for number in row[2:])) for row in rows]


def _token(last: Used) -> str:
    return pages.token("usage", (last.day - EPOCH) // timedelta(microseconds=1), last.organization_id)


def _seen(who: Caller) -> list[ColumnElement[bool]]:
    """Return what limits the organizations that the caller may see."""
    reach = access.scope(who, options.RESOURCE_ORGANIZATION, options.OPERATION_VIEW)
    if reach == options.SCOPE_GLOBAL:
        return []
    own = _columns.organization_id == who.organization_id
    if reach != options.SCOPE_COLLABORATION:
        return [own]
    members = tables.members
    return [
        own
        | _columns.organization_id.in_(
            select(members.c.organization_id).where(members.c.genesis.in_(collaborations(who)))
        )
    ]
