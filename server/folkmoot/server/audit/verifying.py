"""The audit trail's chain, verified: from the database itself, or from what was exported of it.

Whoever can write to the database can put anything anywhere, also what a column can't have: nothing is believed of a row
before it is looked at. What is wrong is said of the first event of which something is.

A head that was written down before (the log has one every hour, each backup's manifest one) is what shows that events were
cut off at the end, or that the chain was made anew as a whole: without one, these can't be told from a true chain.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

from sqlalchemy import Connection, func, select, type_coerce
from sqlalchemy.types import NullType

from folkmoot.server.audit.chain import BEGINNING, Head, follow
from folkmoot.server.store.tables import IS_UNCHAINED, events
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

READ_AT_ONCE = 1000
RECORDED = {
    "sequence": int,
    "intent": str,
    "organization": str,
    "created_by": str,
    "created_at": int,
    "data_version": int,
    "data": str,
    "request_id": str,
    "outcome": str,
    "origin": str,
    "genesis": str,
}
"""What is hashed of an event."""


@dataclass(frozen=True, slots=True)
class Link:
    """An event as it was found: its values may be anything."""

    where: str
    """How to find it again."""
    record: Mapping[str, Any]
    """What is hashed."""
    hash: object

    @property
    def position(self) -> Any:
        """Its place in the chain."""
        return self.record.get("sequence")

    @property
    def mistyped(self) -> str:
        """The name of a value that no event has; empty: there is none."""
        for name, value in self.record.items():
            if type(value) is not RECORDED.get(name) or (isinstance(value, str) and not _is_text(value)):
                return name
        missing = next((name for name in RECORDED if name not in self.record), "")
        return missing or ("" if type(self.hash) is bytes else "hash")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at all events found."""

    head: Head
    """How far the chain holds."""
    unchained: int = 0
    problem: str = ""
    """What is wrong with the first event that is; empty: nothing."""


def verify(connection: Connection, expected: Sequence[Head] = ()) -> Verdict:
    """Recompute the chain in a database; find the first event that was altered, removed or inserted."""
    waiting = connection.execute(select(func.count()).select_from(events).where(IS_UNCHAINED)).scalar_one()
    if connection.execute(select(events.c.sequence).where(events.c.position < 1).limit(1)).first() is not None:
        return Verdict(BEGINNING, waiting, "An event was inserted before the first one")
    return _check(links(connection), expected, unchained=waiting)


def verify_exported(lines: Iterable[str], expected: Sequence[Head] = ()) -> Verdict:
    """Recompute the chain over lines of an export; it needs no database.

    Raises INVALID_FIELD if the first line is not the first event, and the head before it is not among those expected.
    """
    found = _exported(lines)
    first = next(found, None)
    if first is None:
        return _check((), expected)
    before = first.position - 1 if type(first.position) is int else BEGINNING.position
    beginning = next((each for each in (BEGINNING, *expected) if each.position == before), None)
    if beginning is None:
        text = f"it begins with event {first.position}: give --expect {before}:HASH, too, or export all events"
        raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("exported", text),))
    return _check(chain([first], found), expected, beginning=beginning)


def links(connection: Connection, *, after: int = BEGINNING.position) -> Iterator[Link]:
    """Give the chained events of a database, first to last, as they are there; without holding all of them."""
    columns = [type_coerce(column, NullType()).label(column.name) for column in events.c]
    query = select(*columns).order_by(events.c.position).limit(READ_AT_ONCE)
    with _any_text(connection):
        while rows := connection.execute(query.where(events.c.position > after)).all():
            yield from map(_link, rows)
            after = rows[-1].position


def _link(row: Any) -> Link:
    record = {name: getattr(row, name) for name in RECORDED}
    genesis = b"" if row.genesis is None else row.genesis
    hexadecimal = genesis.hex() if type(genesis) is bytes else None
    return Link(
        f"The event in row {row.sequence}", record | {"sequence": row.position, "genesis": hexadecimal}, row.hash
    )


def _exported(lines: Iterable[str]) -> Iterator[Link]:
    for number, line in enumerate(lines, start=1):
        try:
            record = dict(json.loads(line))
            hash_: object = bytes.fromhex(record.pop("hash"))
        except (ValueError, TypeError, KeyError, RecursionError):
            record, hash_ = {}, None
        yield Link(f"Line {number}", record, hash_)


def _check(
    found: Iterable[Link], expected: Sequence[Head], *, beginning: Head = BEGINNING, unchained: int = 0
) -> Verdict:
    wanted, reached = {each.position: each.hash for each in expected}, beginning
    for link in found:
        following = _follow(reached, link)
        if isinstance(following, Head) and following.hash != wanted.get(following.position, following.hash):
            following = (
                f"Event {following.position}, or one before it, is another one than when its hash was written down"
            )
        if isinstance(following, str):
            return Verdict(reached, unchained, following)
        reached = following
    if wanted and max(wanted) > reached.position:
        text = f"Event {reached.position + 1} was removed, and all behind it: the chain once went on to {max(wanted)}"
        return Verdict(reached, unchained, text)
    return Verdict(reached, unchained)


def _follow(reached: Head, link: Link) -> Head | str:
    """Return the head behind an event, or what is wrong."""
    number = reached.position + 1
    if type(link.position) is not int:
        return f"{link.where} was altered, or inserted: its place in the chain is no number"
    if link.position != number:
        return f"Event {number} was removed" if link.position > number else f"{link.where} was inserted"
    if mistyped := link.mistyped:
        return f"Event {number} was altered, or inserted: its '{mistyped}' is of a kind that no event has"
    following = follow(reached, dict(link.record))
    if following.hash != link.hash:
        return f"Event {number} was altered, or inserted: it is not what was chained there"
    return following


def _is_text(value: str) -> bool:
    """Whether it is more than halves of characters, or bytes that are none."""
    return value == value.encode(errors="ignore").decode()


@contextmanager
def _any_text(connection: Connection) -> Iterator[None]:
    """Have SQLite give texts that are none, too: it keeps what it is given."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    usual, driver.text_factory = driver.text_factory, lambda text: text.decode(errors="surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = usual
