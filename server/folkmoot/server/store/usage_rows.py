"""Rows of what organizations use: counters of an organization and a day, counted by the transactions that do the things.

Writers count side by side: each connection has rows of its own, which are added up when somebody asks. So nobody waits
for another's transaction, or is undone by it, because of a counter.
"""

import secrets
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import usage

SHARDS = 64
_SHARD = "folkmoot.usage_shard"
_shards = count(secrets.randbelow(SHARDS))  # so that several instances don't begin with the same

COUNTERS = (
    usage.c.runs_asked_for,
    usage.c.runs_executed,
    usage.c.run_milliseconds,
    usage.c.bytes_stored,
    usage.c.bytes_fetched,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """What an organization used."""

    organization_id: str
    runs_asked_for: int = 0
    runs_executed: int = 0
    run_milliseconds: int = 0
    bytes_stored: int = 0
    bytes_fetched: int = 0


def add(connection: Connection, now: datetime, *counted: Counted) -> None:
    """Count something as used on the day that it is. One organization at a time, in order, so that nobody waits in a circle."""
    key = {"day": midnight(now), "shard": _shard(connection)}
    rows = [key | asdict(each) for each in sorted(counted, key=lambda each: each.organization_id)]
    _ADD["postgresql" if connection.dialect.name == "postgresql" else "sqlite"].each(connection, rows)


def midnight(moment: datetime) -> datetime:
    """Return the beginning of the day, in UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _adding(insert: type[sqlite.Insert] | type[postgresql.Insert]) -> Prepared:
    adding = insert(usage)
    more = {column.name: column + adding.excluded[column.name] for column in COUNTERS}
    return Prepared(adding.on_conflict_do_update(index_elements=list(usage.primary_key), set_=more))


_ADD = {"sqlite": _adding(sqlite.Insert), "postgresql": _adding(postgresql.Insert)}


def _shard(connection: Connection) -> int:
    """Return the shard of the database connection, which it keeps as long as it lasts."""
    if _SHARD not in connection.info:
        connection.info[_SHARD] = next(_shards) % SHARDS
    return int(connection.info[_SHARD])
