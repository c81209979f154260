"""Head statements: which entry of the ledger each node has verified last, for everybody to compare with his own.

The server keeps what the nodes sign, the newest of each, and judges none of it: a statement that contradicts this server's ledger
is what the members must see.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache

from sqlalchemy import Connection, Dialect, select
from structlog.typing import FilteringBoundLogger

from folkmoot.server.context import Caller
from folkmoot.server.store import tables, upserts
from folkmoot.server.store.prepared import Prepared
from folkmoot.trust import State, parse
from folkmoot.trust.errors import FolkmootError, Malformed, SignatureInvalid
from folkmoot.trust.rules import CLOCK_SKEW
from folkmoot.trust.signed import verify
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.ledger_pb2 import HeadStatement
from folkmoot.v1.signed_pb2 import Signed, SignedKind


def checked(signed: Signed, *, state: State, node: Caller, now: datetime) -> datetime:
    """Return when the node stated this; raise MALFORMED, SIGNATURE_INVALID, NODE_NOT_APPROVED unless it is the node's own."""
    key = state.node_key(node.node_id)
    verify(signed, kind=SignedKind.SIGNED_KIND_HEAD, public_key=key, genesis=state.genesis)
    statement = parse(HeadStatement, signed.body)
    if (statement.genesis, statement.organization_id) != (state.genesis, node.organization_id):
        raise SignatureInvalid("The head statement is for another collaboration or organization")
    stated_at = moment_at(nanoseconds(statement.time))
    if stated_at > now + CLOCK_SKEW:
        raise Malformed("The head statement's time is more than 5 minutes ahead: set the node's clock")
    return stated_at


def keeping(
    signed: Signed, *, state: State, node: Caller, now: datetime, log: FilteringBoundLogger
) -> Callable[[Connection], None] | None:
    """Return what keeps a node's statement; None for one that is of no use to anybody, which is no fault of its session."""
    try:
        return storing(signed, checked(signed, state=state, node=node, now=now), node)
    except FolkmootError as error:
        log.warning("link.head_refused", node_id=node.node_id, problem=error.message)
        return None


def storing(signed: Signed, stated_at: datetime, node: Caller) -> Callable[[Connection], None]:
    """Return what keeps a checked statement, unless there is a newer one of the node."""
    row = {"genesis": node.genesis, "node_id": node.node_id, "signed": signed.SerializeToString()}
    return lambda connection: _keeping(connection.dialect).each(connection, [row | {"stated_at": stated_at}])


@lru_cache(maxsize=2)
def _keeping(dialect: Dialect) -> Prepared:
    table = tables.node_heads
    kept = upserts.insert(dialect, table)
    news = {"signed": kept.excluded.signed, "stated_at": kept.excluded.stated_at}
    older = table.c.stated_at < kept.excluded.stated_at
    return Prepared(kept.on_conflict_do_update([table.c.genesis, table.c.node_id], set_=news, where=older))


def newest(connection: Connection, genesis: bytes) -> Sequence[Signed]:
    """Return the newest statement of each node."""
    table = tables.node_heads
    kept = select(table.c.signed).where(table.c.genesis == genesis).order_by(table.c.node_id)
    return [Signed.FromString(signed) for signed in connection.scalars(kept)]
