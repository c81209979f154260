"""The audit trail, read: pages from the newest on, streams from a position on, as far as the caller's rules reach.

Both give chained events alone. A list chains what has happened before it answers, so that everybody finds in it what he
has just done; a stream follows the chain.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from sqlalchemy import Connection, false, func, or_, select

from folkmoot.server import pages
from folkmoot.server.audit import chain
from folkmoot.server.audit.searches import Wanted, newest, reached
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core, wait_for
from folkmoot.server.store.tables import events
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.wakers import EVENTS_TOPIC, Waker

STREAMED_AT_ONCE = 200
LOOKED_AT_ONCE = 10_000
"""How many positions of the chain a stream looks through at once, most of which may be none of the caller's business."""
LOOK_AGAIN_SECONDS = 5.0
"""A wake-up may get lost."""
CHAINED_FIRST = 2000
"""How much a list waits for at most: after an upgrade there may be a million events that are not chained yet."""


async def page(core: Core, wanted: Wanted, *, page_size: int, page_token: str) -> tuple[Sequence[AnyRow], str]:
    """Return a page of the audit trail, newest first, and the token of the next one."""
    who, size = caller(), pages.size(page_size)
    after = pages.position("events", page_token, int)
    if after is None:
        await chain.advance(core, most=CHAINED_FIRST)
    below = int(after[0]) if after else None
    rows = await core.store.read(lambda connection: newest(connection, wanted, who, below=below, most=size + 1))
    return rows[:size], pages.token("events", rows[size - 1].position) if len(rows) > size else ""


async def stream(core: Core, waker: Waker, wanted: Wanted, *, after: int) -> AsyncIterator[AnyRow]:
    """Give the events behind a position, in order, and then each new one, until the server stops."""
    who, position, stirred = caller(), after, asyncio.Event()
    with waker.listen(EVENTS_TOPIC, stirred.set):
        while True:
            stirred.clear()
            rows, seen = await core.store.read(lambda connection: _behind(connection, position, wanted, who))  # noqa: B023
            for row in rows:
                yield row
            if seen == position:
                await wait_for(stirred, draining=core.draining, at_most_seconds=LOOK_AGAIN_SECONDS)
            position = seen


def _behind(connection: Connection, position: int, wanted: Wanted, who: Caller) -> tuple[Sequence[AnyRow], int]:
    """Return the next events behind a position that are wanted and seen, and up to which position there are no others."""
    last = connection.execute(select(func.max(events.c.position))).scalar() or 0
    end = max(position, min(last, position + LOOKED_AT_ONCE))
    seen = reached(connection, who)
    conditions = wanted.conditions() if seen is None else [*wanted.conditions(), or_(false(), *seen)]
    within = select(events).where(events.c.position > position, events.c.position <= end, *conditions)
    rows = connection.execute(within.order_by(events.c.position).limit(STREAMED_AT_ONCE)).all()
    return rows, rows[-1].position if len(rows) == STREAMED_AT_ONCE else end
