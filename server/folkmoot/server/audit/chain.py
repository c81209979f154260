"""The audit trail's chain: each event carries a hash over itself and over the hash of the event before.

Events are written by the transactions that do things, and chained a moment later, by whoever comes first: so nothing
that is done waits for the chain. Being chained gives an event its position: 1, 2, 3 without a gap. With several writers
an event may be read before one that began to be written earlier; the position is the order in which they were read, so
that no event ever appears behind somebody who has read on. Lists and streams show chained events alone.

An event's hash is SHA-256 over PAE("folkmoot/event/v1", the hash of the event before, the event's canonical bytes); before
the first event there are 32 zero bytes. The canonical bytes are the JSON object of all that is recorded, as RFC 8785 writes
it: keys in order, no blanks, UTF-8; `created_at` in microseconds since 1970, `genesis` in hexadecimal, `data` as the text
that it is. Whoever holds the hash of one position can tell whether anything up to there was altered, removed or inserted.

Several instances may chain at once: positions are unique, so that only one of them succeeds with each.
"""

import json
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from folkmoot.server.core import Core
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import EPOCH, IS_UNCHAINED, events
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.server.wakers import EVENTS_TOPIC, Waker
from folkmoot.trust.encoding import digest, pae
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

CONTEXT = b"folkmoot/event/v1"
CHAINED_AT_ONCE = 500
CHAINED_EVERY_SECONDS = 0.5
LOGGED_EVERY_SECONDS = 3600.0
"""How often the head goes to the log, which is kept elsewhere; also when the server starts."""


class Head(NamedTuple):
    """How far the chain goes."""

    position: int
    hash: bytes

    def __str__(self) -> str:
        """Write it as people keep it: SEQUENCE:HASH."""
        return f"{self.position}:{self.hash.hex()}"

    @classmethod
    def parse(cls, text: str) -> "Head":
        """Read what `str` has written; raise INVALID_FIELD."""
        position, _, hash_ = text.strip().partition(":")
        with suppress(ValueError):
            if len((found := cls(int(position), bytes.fromhex(hash_))).hash) == len(BEGINNING.hash):
                return found
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD, f"'{text}' is not SEQUENCE:HASH, as `events verify` prints it"
        )


BEGINNING = Head(0, bytes(32))


def record(row: AnyRow, position: int) -> dict[str, object]:
    """Return all that is recorded of an event, as it is hashed and exported."""
    return {
        "sequence": position,
        "intent": row.intent,
        "organization": row.organization,
        "created_by": row.created_by,
        "created_at": (row.created_at - EPOCH) // timedelta(microseconds=1),
        "data_version": row.data_version,
        "data": row.data,
        "request_id": row.request_id,
        "outcome": row.outcome,
        "origin": row.origin,
        "genesis": (row.genesis or b"").hex(),
    }


def canonical(record: dict[str, object]) -> bytes:
    """Return the bytes that an event is hashed as."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def follow(head: Head, record: dict[str, object]) -> Head:
    """Return the head once the event of which that is recorded is chained to it."""
    return Head(head.position + 1, digest(pae(CONTEXT, head.hash, canonical(record))))


# ---- chaining ------------------------------------------------------------------------------------------------------


class _Link(NamedTuple):
    """An event, and the head that it makes."""

    sequence: int
    head: Head


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be chained next, by a snapshot."""

    before: Head
    links: Sequence[_Link]


async def advance(core: Core, *, most: int | None = None) -> bool:
    """Chain what has happened until now, or about so many events of it; tell whether there was anything."""
    chained = 0
    while (most is None or chained < most) and (plan := await core.store.read(_plan)).links:
        chained += len(plan.links)
        try:
            await core.store.write(lambda connection: _chain(connection, plan))
        except IntegrityError:
            continue  # another instance has chained meanwhile
    return chained > 0


def head(connection: Connection) -> Head:
    """Return how far the chain goes."""
    row = connection.execute(_HEAD).first()
    return BEGINNING if row is None else Head(row.position, row.hash)


_HEAD = (
    select(events.c.position, events.c.hash)
    .where(events.c.position.is_not(None))
    .order_by(events.c.position.desc())
    .limit(1)
)
_UNCHAINED = select(events).where(IS_UNCHAINED).order_by(events.c.sequence).limit(CHAINED_AT_ONCE)


def _plan(connection: Connection) -> _Plan:
    """Look at what is to be chained. On a snapshot: a writer that looked would be in the way of whoever records events."""
    waiting = connection.execute(_UNCHAINED).all()
    if not waiting:
        return _Plan(BEGINNING, ())
    before = reached = head(connection)
    links = []
    for row in waiting:
        reached = follow(reached, record(row, reached.position + 1))
        links.append(_Link(row.sequence, reached))
    return _Plan(before, links)


_SET = Prepared(
    update(events)
    .where(events.c.sequence == bindparam("of_sequence"), IS_UNCHAINED)
    .values(position=bindparam("at_position"), hash=bindparam("chained_hash"))
)


def _chain(connection: Connection, plan: _Plan) -> None:
    if head(connection) != plan.before:
        return
    _SET.each(
        connection,
        [
            {"of_sequence": each.sequence, "at_position": each.head.position, "chained_hash": each.head.hash}
            for each in plan.links
        ],
    )


async def keep_chained(core: Core, waker: Waker) -> None:
    """Chain what happens until the server is about to stop, and tell whoever watches; write the head to the log."""
    logged_at = -math.inf
    while not core.draining.is_set():
        try:
            if await advance(core):
                waker.wake([EVENTS_TOPIC])
            if (now := time.monotonic()) - logged_at >= LOGGED_EVERY_SECONDS:
                core.log.info("events.head", head=str(await core.store.read(head)))
                logged_at = now
        except Exception:
            core.log.exception("events.not_chained")
        await core.pause(CHAINED_EVERY_SECONDS)
