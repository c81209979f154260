"""The audit trail: who did what, when, with which outcome.

An event is inserted by the transaction that does the thing, so that neither exists without the other. Refusals are
events too. What is recorded names things by id and digest; no secret, payload or free text goes in.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, insert

from folkmoot.server import context
from folkmoot.server.context import Caller
from folkmoot.server.store import tables
from folkmoot.server.store.prepared import Prepared

OK = "ok"
DATA_VERSION = 1

_INSERT = Prepared(insert(tables.events))


class Strangers:
    """Counts what is recorded of callers whom nobody knows: so many events in a minute, so that nobody fills a disk by knocking."""

    MOST_PER_MINUTE = 60

    def __init__(self) -> None:
        self._minute = 0
        self._number = 0

    def may_be_recorded(self, now: datetime) -> bool:
        """Count one more, and tell whether it is to be recorded."""
        minute = int(now.timestamp()) // 60
        self._number = self._number + 1 if minute == self._minute else 1
        self._minute = minute
        return self._number <= self.MOST_PER_MINUTE


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens. Called in the transaction that does it, it is recorded."""

    row: Mapping[str, object]

    def __call__(self, connection: Connection) -> None:
        """Record it."""
        record(connection, [self])


def record(connection: Connection, events: Sequence[Event]) -> None:
    """Record what one transaction does."""
    _INSERT.each(connection, [event.row for event in events])


class Author(Protocol):
    """Records things of one call, or of what the server does by itself."""

    def __call__(self, intent: str, data: Mapping[str, object], *, genesis: bytes | None = None) -> Event:
        """Return what records a thing; `genesis` where only the transaction finds out which collaboration it is about."""
        ...


def prepare(
    *,
    intent: str,
    data: Mapping[str, object],
    now: datetime,
    caller: Caller | None = None,
    outcome: str = OK,
    genesis: bytes | None = None,
) -> Event:
    """Return what records the present call: caller, request id and origin are taken now, since writers run in other threads.

    `caller` is given where a call finds out who makes it. `genesis` names the collaboration that the event is about: then
    users who may see the collaboration's events see it.
    """
    return author(now=now, caller=caller, outcome=outcome, genesis=genesis)(intent, data)


def author(*, now: datetime, caller: Caller | None = None, outcome: str = OK, genesis: bytes | None = None) -> Author:
    """Return what records things of the present call that only its transaction finds out, by intent and data."""
    who, request_id, origin = caller or context.caller(), context.request_id(), context.origin()

    about = genesis

    def write(intent: str, data: Mapping[str, object], *, genesis: bytes | None = None) -> Event:
        row = {
            "intent": intent,
            "organization": who.organization,
            "created_by": who.created_by,
            "created_at": now,
            "data_version": DATA_VERSION,
            "data": json.dumps(data, sort_keys=True, separators=(",", ":")),
            "request_id": request_id,
            "outcome": outcome,
            "genesis": about if genesis is None else genesis,
            "origin": origin,
        }
        return Event(row)

    return write
