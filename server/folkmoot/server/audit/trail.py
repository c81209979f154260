"""The audit trail, read: pages from the newest on, streams from a position on, as far as the caller's rules reach.

Both give chained events alone. A list chains what has happened before it answers, so that everybody finds in it what he
has just done; a stream follows the chain.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, func, select

from folkmoot.server import access, pages
from folkmoot.server.audit import chain
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core, wait_for
from folkmoot.server.people.reach import collaborations
from folkmoot.server.store.tables import events
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.wakers import EVENTS_TOPIC, Waker
from folkmoot.v1 import options_pb2 as options

STREAMED_AT_ONCE = 200
LOOKED_AT_ONCE = 10_000
"""How many positions of the chain a stream looks through at once, most of which may be none of the caller's business."""
LOOK_AGAIN_SECONDS = 5.0
"""A wake-up may get lost."""
CHAINED_FIRST = 2000
"""How much a list waits for at most: after an upgrade there may be a million events that are not chained yet."""
ANY_OF = ".*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """Which events are asked for; what is empty does not matter."""

    intent: str = ""
    """`task.create`; `task.*` is all whose intent begins with `task.`."""
    created_by: str = ""
    organization: str = ""
    outcome: str = ""
    request_id: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return what events must fulfil."""
        columns = {
            events.c.created_by: self.created_by,
            events.c.organization: self.organization,
            events.c.outcome: self.outcome,
            events.c.request_id: self.request_id,
        }
        found = [column == value for column, value in columns.items() if value]
        if self.intent.endswith(ANY_OF):
            found.append(events.c.intent.startswith(self.intent.removesuffix("*"), autoescape=True))
        elif self.intent:
            found.append(events.c.intent == self.intent)
        if self.created_after is not None:
            found.append(events.c.created_at >= self.created_after)
        if self.created_before is not None:
            found.append(events.c.created_at < self.created_before)
        return found


async def page(core: Core, wanted: Wanted, *, page_size: int, page_token: str) -> tuple[Sequence[AnyRow], str]:
    """Return a page of the audit trail, newest first, and the token of the next one."""
    conditions, size = [*wanted.conditions(), *_seen(caller())], pages.size(page_size)
    if after := pages.position("events", page_token, int):
        conditions.append(events.c.sequence < after[0])
    else:
        await chain.advance(core, most=CHAINED_FIRST)
    query = select(events).where(events.c.position.is_not(None), *conditions)
    newest = query.order_by(events.c.sequence.desc()).limit(size + 1)
    rows = await core.store.read(lambda connection: connection.execute(newest).all())
    return rows[:size], pages.token("events", rows[size - 1].sequence) if len(rows) > size else ""


async def stream(core: Core, waker: Waker, wanted: Wanted, *, after: int) -> AsyncIterator[AnyRow]:
    """Give the events behind a position, in order, and then each new one, until the server stops."""
    conditions = [*wanted.conditions(), *_seen(caller())]
    reached, stirred = after, asyncio.Event()
    with waker.listen(EVENTS_TOPIC, stirred.set):
        while True:
            stirred.clear()
            rows, seen = await core.store.read(lambda connection: _behind(connection, reached, conditions))  # noqa: B023
            for row in rows:
                yield row
            if seen == reached:
                await wait_for(stirred, draining=core.draining, at_most_seconds=LOOK_AGAIN_SECONDS)
            reached = seen


def _behind(
    connection: Connection, position: int, conditions: Sequence[ColumnElement[bool]]
) -> tuple[Sequence[AnyRow], int]:
    """Return the next events behind a position that fulfil the conditions, and up to which position there are no others."""
    newest = connection.execute(select(func.max(events.c.position))).scalar() or 0
    end = max(position, min(newest, position + LOOKED_AT_ONCE))
    within = select(events).where(events.c.position > position, events.c.position <= end, *conditions)
    rows = connection.execute(within.order_by(events.c.position).limit(STREAMED_AT_ONCE)).all()
    return rows, rows[-1].position if len(rows) == STREAMED_AT_ONCE else end


def _seen(who: Caller) -> list[ColumnElement[bool]]:
    """Return what limits the events that the caller may see."""
    reach = access.scope(who, options.RESOURCE_EVENT, options.OPERATION_VIEW)
    if reach == options.SCOPE_GLOBAL:
        return []
    if reach == options.SCOPE_OWN:
        return [events.c.created_by == who.user_id]
    own = events.c.organization.in_([each for each in (who.organization_account_id, who.organization_id) if each])
    return [own | events.c.genesis.in_(collaborations(who)) if reach == options.SCOPE_COLLABORATION else own]
