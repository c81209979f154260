"""Lists of what the ledgers say: collaborations, nodes, as far as the caller's rules reach."""

from typing import Any, TypeAlias

from sqlalchemy import Row, Select, select, tuple_

from folkmoot.server import access, pages
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.store import tables
from folkmoot.v1 import options_pb2 as options

_Row: TypeAlias = Row[Any]


async def list_collaborations(core: Core, *, page_size: int, page_token: str) -> tuple[list[bytes], str]:
    """Return the geneses of a page of collaborations, in their order, and the token of the next page."""
    who, table = caller(), tables.collaborations
    query = select(table.c.genesis).order_by(table.c.genesis)
    if access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_VIEW) != options.SCOPE_GLOBAL:
        query = query.where(table.c.genesis.in_(joined_by(who)))
    if after := pages.position("collaborations", page_token, str):
        query = query.where(table.c.genesis > pages.digest("collaborations", after[0]))
    rows, more = await _page(core, query, page_size)
    geneses = [row.genesis for row in rows]
    return geneses, pages.token("collaborations", geneses[-1]) if more else ""


async def list_nodes(core: Core, genesis: bytes, *, page_size: int, page_token: str) -> tuple[list[_Row], str]:
    """Return a page of nodes by id, of one collaboration or of all that the caller may see."""
    who, table = caller(), tables.nodes
    query = select(table).order_by(table.c.node_id, table.c.genesis)
    reach = access.scope(who, options.RESOURCE_NODE, options.OPERATION_VIEW)
    if genesis:
        await core.ledgers.state_for_caller(genesis)
        query = query.where(table.c.genesis == genesis)
    if reach == options.SCOPE_COLLABORATION:
        query = query.where(table.c.genesis.in_(joined_by(who)))
    elif reach != options.SCOPE_GLOBAL:
        query = query.where(table.c.organization_id == who.organization_id)
    if after := pages.position("nodes", page_token, str, str):
        query = query.where(tuple_(table.c.node_id, table.c.genesis) > (after[0], pages.digest("nodes", after[1])))
    rows, more = await _page(core, query, page_size)
    return rows, pages.token("nodes", rows[-1].node_id, rows[-1].genesis) if more else ""


def joined_by(who: Caller) -> Select[tuple[bytes]]:
    """Select the collaborations that the caller's organization is a member of."""
    return select(tables.members.c.genesis).where(tables.members.c.organization_id == who.organization_id)


async def _page(core: Core, query: Select[Any], page_size: int) -> tuple[list[_Row], bool]:
    """Return a page's rows, and whether more follow."""
    limit = pages.size(page_size)
    rows = await core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
    return list(rows[:limit]), len(rows) > limit
