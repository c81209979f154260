"""Rows of ledgers: the entries as they came, and lists that are brought to what the ledger says with every entry.

Who a ledger speaks of is compared with what it said before, so that an entry costs what it changes.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, insert, select, update

from folkmoot.server.store import tables, upserts
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import node_links
from folkmoot.trust import State
from folkmoot.trust.membership import Member, Node
from folkmoot.v1.signed_pb2 import Signed

REMEMBERED = 100
"""How many ledgers a server that starts verifies before anybody asks for them."""
BATCH_ENTRIES = 256
BATCH_BYTES = 1024 * 1024


class Overtaken(Exception):  # noqa: N818 -- an outcome, rather than an error
    """Another instance of the server has appended an entry meanwhile."""


def append(connection: Connection, before: State | None, state: State, signed: Signed, *, now: datetime) -> None:
    """Store the entry that leads from one state to the next, and bring the lists to what the ledger says then.

    Raises Overtaken unless the ledger is as it was before.
    """
    if head(connection, state.genesis) != (before.position.sequence if before else None):
        raise Overtaken
    entry = {
        "genesis": state.genesis,
        "sequence": state.position.sequence,
        "hash": state.position.hash,
        "signed": signed.SerializeToString(),
        "received_at": now,
    }
    connection.execute(insert(tables.ledger_entries).values(entry))
    moved_to = {"head_sequence": state.position.sequence, "head_hash": state.position.hash}
    collaboration = {
        "genesis": state.genesis,
        "name": state.name,
        "reference": str(state.reference),
        "encryption": state.encryption,
        **moved_to,
    }
    moved = upserts.insert(connection, tables.collaborations).values(collaboration)
    connection.execute(moved.on_conflict_do_update([tables.collaborations.c.genesis], set_=moved_to))
    _project_members(connection, before.members if before else {}, state)
    _project_nodes(connection, before.nodes if before else {}, state)


def _project_members(connection: Connection, before: Mapping[str, Member], state: State) -> None:
    members, former, requests = tables.members, tables.former_members, tables.join_requests
    for gone in before.keys() - state.members.keys():
        for table in (members, tables.node_attempts):
            connection.execute(delete(table).where(_is(table, state), table.c.organization_id == gone))
        connection.execute(insert(former).values(genesis=state.genesis, organization_id=gone))
    for admitted in state.members.keys() - before.keys():
        name = state.members[admitted].name
        connection.execute(insert(members).values(genesis=state.genesis, organization_id=admitted, name=name))
        connection.execute(delete(former).where(_is(former, state), former.c.organization_id == admitted))
        answered = update(requests).where(_is(requests, state), requests.c.organization_id == admitted)
        connection.execute(answered.values(open=False))


def _project_nodes(connection: Connection, before: Mapping[str, Node], state: State) -> None:
    nodes, attempts = tables.nodes, tables.node_attempts
    for gone in before.keys() - state.nodes.keys():
        for table in (nodes, tables.node_heads):
            connection.execute(delete(table).where(_is(table, state), table.c.node_id == gone))
    for admitted in state.nodes.keys() - before.keys():
        node = state.nodes[admitted]
        row = {"node_id": admitted, "organization_id": node.organization_id, "name": node.name}
        connection.execute(insert(nodes).values(genesis=state.genesis, **row))
        connection.execute(delete(attempts).where(_is(attempts, state), attempts.c.node_id == admitted))


def _is(table: Table, state: State) -> ColumnElement[bool]:
    """Meet the rows of the state's collaboration."""
    return table.c.genesis == state.genesis


_HEAD = Prepared(
    select(tables.collaborations.c.head_sequence).where(tables.collaborations.c.genesis == bindparam("genesis"))
)


def head(connection: Connection, genesis: bytes) -> int | None:
    """Return the sequence of the newest entry; None: there is no such ledger."""
    row = _HEAD.row(connection, {"genesis": genesis})
    return None if row is None else int(row.head_sequence)


def heads(connection: Connection, genesises: Collection[bytes]) -> dict[bytes, int]:
    """Return the sequences of the newest entries of these ledgers."""
    table = tables.collaborations
    wanted = select(table.c.genesis, table.c.head_sequence).where(table.c.genesis.in_(list(genesises)))
    return {row.genesis: row.head_sequence for row in connection.execute(wanted)}


def batch(connection: Connection, genesis: bytes, from_sequence: int) -> list[Signed]:
    """Return the next entries from a sequence on: so many, or about a MiB."""
    table = tables.ledger_entries
    here = (table.c.genesis == genesis, table.c.sequence >= from_sequence)
    sizes = select(table.c.sequence, func.length(table.c.signed)).where(*here).order_by(table.c.sequence)
    last, size_bytes = from_sequence - 1, 0
    for sequence, length in connection.execute(sizes.limit(BATCH_ENTRIES)).all():
        if size_bytes >= BATCH_BYTES:
            break
        last, size_bytes = sequence, size_bytes + length
    entries = select(table.c.signed).where(*here, table.c.sequence <= last).order_by(table.c.sequence)
    return [Signed.FromString(data) for data in connection.scalars(entries)]


def has_asked(connection: Connection, genesis: bytes, organization_id: str, now: datetime | None) -> bool:
    """Tell whether the organization has asked to join; with `now`, whether it has a request that is open then."""
    table = tables.join_requests
    query = select(table.c.digest).where(table.c.genesis == genesis, table.c.organization_id == organization_id)
    if now is not None:
        query = query.where(table.c.open, table.c.expires_at > now)
    return bool(organization_id) and connection.execute(query.limit(1)).first() is not None


def attached_to_last(connection: Connection) -> Sequence[bytes]:
    """Return the collaborations that nodes have attached to, those that were attached to last first."""
    last = func.max(node_links.c.attached_at)
    attached = select(node_links.c.genesis).where(node_links.c.attached_at.is_not(None))
    return connection.scalars(attached.group_by(node_links.c.genesis).order_by(last.desc()).limit(REMEMBERED)).all()
