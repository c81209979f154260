"""Events, searched for: the newest that fulfil conditions, by indices, however many there are.

Each page is in the order of the chain. A database walks an index that has the wanted events in that order, and stops when
the page is full; so that it has such an index, what may be one of several values (an organization or a collaboration of
the caller's, an intent that begins so) is looked for value by value, and put together at the end. Times have an order of
their own, since an event is chained in the order in which it could be read: first is found between which positions the
wanted times are, then the walk goes through these alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import product

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, true, union

from folkmoot.server import access
from folkmoot.server.audit.events import OK
from folkmoot.server.context import Caller
from folkmoot.server.people.reach import collaborations
from folkmoot.server.store.tables import IS_CHAINED, WENT_WRONG, events
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.v1 import options_pb2 as options

ANY_OF = ".*"
WALKS = 200
"""So many walks are put together at most: SQLite takes 500."""

Condition = ColumnElement[bool]


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
    """Only from then on: what was done at that very moment is wanted."""
    created_before: datetime | None = None
    """Only from before then: what was done at that very moment is not wanted."""

    def conditions(self) -> list[Condition]:
        """Return what events must fulfil."""
        columns = {
            events.c.created_by: self.created_by,
            events.c.organization: self.organization,
            events.c.outcome: self.outcome,
            events.c.request_id: self.request_id,
        }
        found = [column == value for column, value in columns.items() if value]
        if self.outcome not in ("", OK):
            found.append(WENT_WRONG)  # the index of outcomes has nothing else
        if self._is_prefix:
            found.append(events.c.intent.startswith(self._prefix, autoescape=True))
        elif self.intent:
            found.append(events.c.intent == self.intent)
        return found + self.times()

    def times(self) -> list[Condition]:
        """Return what their times must fulfil."""
        found = []
        if self.created_after is not None:
            found.append(events.c.created_at >= self.created_after)
        if self.created_before is not None:
            found.append(events.c.created_at < self.created_before)
        return found

    def intents(self, connection: Connection) -> list[Condition] | None:
        """Return conditions of which events fulfil one, one for each intent; None: it is not several that are wanted."""
        if not self._is_prefix:
            return None
        return [events.c.intent == each for each in _intents(connection) if each.startswith(self._prefix)]

    @property
    def _is_prefix(self) -> bool:
        return self.intent.endswith(ANY_OF)

    @property
    def _prefix(self) -> str:
        return self.intent.removesuffix("*")


def newest(connection: Connection, wanted: Wanted, who: Caller, *, below: int | None, most: int) -> Sequence[AnyRow]:
    """Return the newest chained events that are wanted and that the caller may see; below a position, if one is given."""
    conditions = [IS_CHAINED, *wanted.conditions()]
    if below is not None:
        conditions.append(events.c.position < below)
    if times := wanted.times():
        positions = select(func.min(events.c.position), func.max(events.c.position)).where(IS_CHAINED, *times)
        first, last = connection.execute(positions).one()
        if first is None:
            return ()
        conditions.append(events.c.position.between(first, last))
    if not (walks := _walks(connection, wanted, who)):
        return ()
    in_order = events.c.position.desc()
    if len(walks) == 1:
        conditions += walks
    else:
        positions = select(events.c.position).where(*conditions).order_by(in_order).limit(most)
        each = (positions.where(walk).subquery() for walk in walks)
        conditions = [events.c.position.in_(union(*(select(found.c.position) for found in each)))]
    return connection.execute(select(events).where(*conditions).order_by(in_order).limit(most)).all()


def reached(connection: Connection, who: Caller) -> list[Condition] | None:
    """Return conditions of which events fulfil one that the caller may see, each with an index; None: he may see all."""
    reach = access.scope(who, options.RESOURCE_EVENT, options.OPERATION_VIEW)
    if reach == options.SCOPE_GLOBAL:
        return None
    if reach == options.SCOPE_OWN:
        return [events.c.created_by == who.user_id]
    own = [events.c.organization == each for each in (who.organization_account_id, who.organization_id) if each]
    if reach != options.SCOPE_COLLABORATION:
        return own
    return own + [events.c.genesis == each for each in connection.execute(collaborations(who)).scalars()]


def _walks(connection: Connection, wanted: Wanted, who: Caller) -> list[Condition]:
    """Return conditions of which events fulfil one, for each of which there is an index; none at all: there is no such event."""
    alternatives = [each for each in (reached(connection, who), wanted.intents(connection)) if each is not None]
    walks = [and_(true(), *each) for each in product(*alternatives)]
    return walks if len(walks) <= WALKS else [and_(*(or_(*each) for each in alternatives))]


def _intents(connection: Connection) -> Sequence[str]:
    """Return the intents that there are, from one to the next by their index."""
    first = select(func.min(events.c.intent).label("intent")).where(IS_CHAINED).cte("intents", recursive=True)
    behind = select(func.min(events.c.intent)).where(IS_CHAINED, events.c.intent > first.c.intent).scalar_subquery()
    every = first.union_all(select(behind).where(first.c.intent.is_not(None)))
    return connection.execute(select(every.c.intent).where(every.c.intent.is_not(None))).scalars().all()
