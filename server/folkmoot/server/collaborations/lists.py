"""Collaborations and nodes, as the ledgers say and as far as the caller's rules reach."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

from sqlalchemy import Connection, Row, Select, and_, select, tuple_

from folkmoot.server import pages
from folkmoot.server.context import caller
from folkmoot.server.core import Core
from folkmoot.server.people import reach
from folkmoot.server.store import tables
from folkmoot.server.store.task_tables import node_links
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import errors_pb2
from folkmoot.v1.link_pb2 import PolicySummary

_Row: TypeAlias = Row[Any]
_COLLABORATIONS, _NODES = tables.collaborations, tables.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedNodes:
    """Which nodes a list shows; what is empty does not matter."""

    genesis: bytes = b""
    organization_id: str = ""
    connection: admin.Connection.ValueType = admin.CONNECTION_UNSPECIFIED
    label: str = ""


async def list_collaborations(
    core: Core, *, name_prefix: str, organization_id: str, page_size: int, page_token: str
) -> tuple[list[bytes], str]:
    """Return the geneses of a page of collaborations, in their order, and the token of the next page."""
    table = _COLLABORATIONS
    query = select(table.c.genesis).where(reach.collaboration(caller(), table.c.genesis)).order_by(table.c.genesis)
    if name_prefix:
        query = query.where(pages.begins(table.c.name, name_prefix))
    if organization_id:
        members = tables.members
        joined = select(members.c.genesis).where(members.c.organization_id == organization_id)
        query = query.where(table.c.genesis.in_(joined))
    if after := pages.position("collaborations", page_token, str):
        query = query.where(table.c.genesis > pages.digest("collaborations", after[0]))
    limit = pages.size(page_size)
    found = list(await core.store.read(lambda connection: connection.scalars(query.limit(limit + 1)).all()))
    return found[:limit], pages.token("collaborations", found[limit - 1]) if len(found) > limit else ""


async def list_nodes(core: Core, wanted: WantedNodes, *, page_size: int, page_token: str) -> tuple[list[_Row], str]:
    """Return a page of nodes by id, of one collaboration or of all that the caller may see."""
    if wanted.genesis:
        await core.ledgers.state_for_caller(wanted.genesis)
    query = _wanted_nodes(wanted).where(reach.nodes(caller())).order_by(_NODES.c.node_id, _NODES.c.genesis)
    if after := pages.position("nodes", page_token, str, str):
        query = query.where(tuple_(_NODES.c.node_id, _NODES.c.genesis) > (after[0], pages.digest("nodes", after[1])))
    limit = pages.size(page_size)
    query = query if wanted.label else query.limit(limit + 1)
    rows = await core.store.read(lambda connection: list(islice(_offering(connection, query, wanted.label), limit + 1)))
    return rows[:limit], pages.token("nodes", rows[limit - 1].node_id, rows[limit - 1].genesis) if rows[limit:] else ""


async def get_node(core: Core, genesis: bytes, node_id: str) -> _Row:
    """Return a node's row; raise NODE_NOT_FOUND if the caller may not see it."""
    query = select(_NODES).where(_NODES.c.genesis == genesis, _NODES.c.node_id == node_id, reach.nodes(caller()))
    row = await core.store.read(lambda connection: connection.execute(query).one_or_none())
    if row is None:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_NODE_NOT_FOUND, f"There is no node {node_id} in that collaboration, or not for you."
        )
    return row


def _wanted_nodes(wanted: WantedNodes) -> Select[Any]:
    is_its = and_(node_links.c.genesis == _NODES.c.genesis, node_links.c.node_id == _NODES.c.node_id)
    is_online = node_links.c.attached_at.is_not(None) & node_links.c.away_since.is_(None)
    query = select(_NODES, node_links.c.policy).outerjoin(node_links, is_its)
    if wanted.genesis:
        query = query.where(_NODES.c.genesis == wanted.genesis)
    if wanted.organization_id:
        query = query.where(_NODES.c.organization_id == wanted.organization_id)
    if wanted.connection == admin.CONNECTION_ONLINE:
        query = query.where(is_online)
    if wanted.connection == admin.CONNECTION_AWAY:
        query = query.where(node_links.c.attached_at.is_(None) | node_links.c.away_since.is_not(None))
    return query


def _offering(connection: Connection, query: Select[Any], label: str) -> Iterator[_Row]:
    """Yield the rows of nodes that offer data of that name, if one is asked for: what they offer, no query can look into."""
    for row in connection.execute(query):
        if not label or label in PolicySummary.FromString(row.policy or b"").labels:
            yield row
