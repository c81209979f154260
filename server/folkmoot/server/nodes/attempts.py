"""Attempts of nodes: machines that ask to become a node without an invitation, and wait for an administrator.

Anybody who has a key may ask, so everything about it is bounded: how many from one place, how many of one organization
wait, and for how long. What is stored decides nothing: the claim proves the machine's key, an entry of the organization
admits it.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.collaborations.joining import check_member
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core, try_later
from folkmoot.server.peers import place_of
from folkmoot.server.store import tables
from folkmoot.server.store.task_tables import AnyRow
from folkmoot.trust import State, fingerprint, key_id
from folkmoot.trust.errors import FolkmootError, LedgerEntryInvalid
from folkmoot.trust.joining import verify_node_claim
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import NodeClaim
from folkmoot.v1.signed_pb2 import Signed

LIFE = timedelta(days=14)
MOST_PER_ORGANIZATION = 100
MOST_FROM_ONE_PLACE = 20
COUNTED_FOR = timedelta(hours=1)
PLACES_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class NodeAttempt:
    """A node that waits."""

    claim: Signed
    submitted_at: datetime
    expires_at: datetime


class NodeAttempts:
    """The nodes that wait for approval."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._places = Places()

    async def submit(self, signed: Signed) -> datetime:
        """Store an attempt; return from when on it is forgotten. The same again gives the first answer.

        Raises MALFORMED, COLLABORATION_NOT_FOUND, NOT_A_MEMBER, JOIN_PENDING, NAME_TAKEN, LEDGER_ENTRY_INVALID, TOO_MANY.
        """
        now = self._core.clock()
        claim = verify_node_claim(signed)
        state = await self._core.ledgers.state(claim.genesis)
        await check_member(self._core, state, claim.organization_id)
        node_id = fingerprint(key_id(claim.public_key))
        if node_id in state.nodes:
            return now  # approved: nothing waits any more
        _check_free(state, claim)
        known = await self._core.store.read(lambda connection: _find(connection, state.genesis, node_id, now))
        if known is not None and known.claim == signed:
            return known.expires_at
        self._places.count(place_of(context.origin()), now)
        who = Caller(options.CALLER_ANYONE, node_id=node_id, organization_id=claim.organization_id)
        record = events.prepare(
            intent="node_attempt.submit", caller=who, data={"node_id": node_id}, now=now, genesis=state.genesis
        )
        row = {
            "genesis": state.genesis,
            "node_id": node_id,
            "organization_id": claim.organization_id,
            "claim": signed.SerializeToString(),
            "submitted_at": now,
            "expires_at": now + LIFE,
        }

        def operation(connection: Connection) -> None:
            table = tables.node_attempts
            same = (table.c.genesis == state.genesis) & (table.c.node_id == node_id)
            connection.execute(delete(table).where((table.c.expires_at <= now) | same))
            _check_few(connection, state.genesis, claim.organization_id, now)
            connection.execute(insert(table).values(row))
            record(connection)

        await self._core.store.write(operation)
        return now + LIFE

    async def list(self, genesis: bytes) -> list[NodeAttempt]:
        """Return the attempts to become a node of the caller's organization, oldest first."""
        await self._core.ledgers.state_for_caller(genesis)
        table, now = tables.node_attempts, self._core.clock()
        waiting = (
            select(table)
            .where(
                table.c.genesis == genesis,
                table.c.organization_id == caller().organization_id,
                table.c.expires_at > now,
            )
            .order_by(table.c.submitted_at, table.c.node_id)
        )
        rows = await self._core.store.read(lambda connection: connection.execute(waiting).all())
        return [_attempt(row) for row in rows]

    async def remove(self, genesis: bytes, node_id: str) -> None:
        """Forget an attempt to become a node of the caller's organization; nothing happens if there is none."""
        await self._core.ledgers.state_for_caller(genesis)
        organization_id, table = caller().organization_id, tables.node_attempts
        record = events.prepare(
            intent="node_attempt.delete", data={"node_id": node_id}, now=self._core.clock(), genesis=genesis
        )

        def operation(connection: Connection) -> None:
            mine = (table.c.genesis == genesis) & (table.c.node_id == node_id)
            refused = delete(table).where(mine, table.c.organization_id == organization_id)
            if connection.execute(refused.returning(table.c.node_id)).first():
                record(connection)

        await self._core.store.write(operation)


async def waits(core: Core, genesis: bytes, node_id: str) -> bool:
    """Tell whether a node has asked to be approved."""
    now = core.clock()
    return await core.store.read(lambda connection: _find(connection, genesis, node_id, now)) is not None


def _find(connection: Connection, genesis: bytes, node_id: str, now: datetime) -> NodeAttempt | None:
    table = tables.node_attempts
    same = select(table).where(table.c.genesis == genesis, table.c.node_id == node_id, table.c.expires_at > now)
    row = connection.execute(same).one_or_none()
    return _attempt(row) if row else None


def _attempt(row: AnyRow) -> NodeAttempt:
    return NodeAttempt(Signed.FromString(row.claim), row.submitted_at, row.expires_at)


def _check_free(state: State, claim: NodeClaim) -> None:
    """Refuse what no entry could admit."""
    if state.is_used(key_id(claim.public_key)):
        raise LedgerEntryInvalid(
            f"The ledger of {state.name} has known this key before, so it can't become a node's: make a new one"
        )
    if (claim.organization_id, claim.node_name.lower()) in state.used_names:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NAME_TAKEN,
            f"The organization has a node called '{claim.node_name}'",
            metadata={"name": claim.node_name},
        )


def _check_few(connection: Connection, genesis: bytes, organization_id: str, now: datetime) -> None:
    table = tables.node_attempts
    waiting = select(func.count(), func.min(table.c.expires_at)).where(
        table.c.genesis == genesis, table.c.organization_id == organization_id
    )
    number, first_ends = connection.execute(waiting).one()
    if number >= MOST_PER_ORGANIZATION:
        text = f"{number} nodes of the organization wait for approval: its administrators must approve or delete some"
        raise try_later(errors_pb2.ERROR_REASON_TOO_MANY, text, first_ends - now)


# ---- where they come from ------------------------------------------------------------------------------------------


class Places:
    """Counts attempts by where they come from, in memory alone: the addresses of people are nobody's business."""

    def __init__(self, most: int = MOST_FROM_ONE_PLACE) -> None:
        self._most = most
        self._counted: OrderedDict[str, deque[datetime]] = OrderedDict()

    def count(self, place: str, now: datetime) -> None:
        """Count one more; raise TOO_MANY."""
        times = self._counted.setdefault(place, deque())
        self._counted.move_to_end(place)
        if len(self._counted) > PLACES_REMEMBERED:
            self._counted.popitem(last=False)
        while times and times[0] <= now - COUNTED_FOR:
            times.popleft()
        if len(times) >= self._most:
            text = f"{self._most} attempts have come from your address within an hour"
            raise try_later(errors_pb2.ERROR_REASON_TOO_MANY, text, times[0] + COUNTED_FOR - now)
        times.append(now)
