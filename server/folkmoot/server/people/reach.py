"""How far a caller's rules reach among accounts and collaborations, as conditions of queries.

| scope | among accounts, users, roles | among collaborations' things |
|---|---|---|
| OWN | the caller himself | what the caller made |
| ORGANIZATION | the caller's account | what the caller's organization made or has |
| COLLABORATION | accounts that share a collaboration with it | what is in its collaborations |
| GLOBAL | everything | everything |
"""

from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Select, false, or_, select, true

from folkmoot.server import access
from folkmoot.server.context import Caller
from folkmoot.server.store import tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options

_Row: TypeAlias = Row[Any]


def pick(
    connection: Connection,
    query: Select[Any],
    *,
    may: ColumnElement[bool],
    sees: ColumnElement[bool],
    refusal: FolkmootError,
    missing: FolkmootError,
) -> _Row:
    """Return the row that the caller may use; raise `refusal` for one that he only sees, `missing` for what he does not."""
    if row := connection.execute(query.where(may)).one_or_none():
        return row
    raise refusal if connection.execute(query.where(sees)).first() else missing


def accounts(
    who: Caller,
    resource: options.Resource.ValueType,
    operation: options.Operation.ValueType,
    account: ColumnElement[str],
) -> ColumnElement[bool]:
    """Meet what belongs to accounts that the caller's rules reach; `account` is the column that says to which."""
    own = account == who.organization_account_id
    match access.scope(who, resource, operation):
        case options.SCOPE_GLOBAL:
            return true()
        case options.SCOPE_COLLABORATION:
            return or_(own, account.in_(_partners(who)))
        case options.SCOPE_ORGANIZATION:
            return own
        case _:
            return false()


def users(who: Caller, operation: options.Operation.ValueType) -> ColumnElement[bool]:
    """Meet users whom the caller's rules reach."""
    if access.scope(who, options.RESOURCE_USER, operation) == options.SCOPE_OWN:
        return tables.users.c.user_id == who.user_id
    return accounts(who, options.RESOURCE_USER, operation, tables.users.c.organization_account_id)


def reaches_account(
    connection: Connection,
    who: Caller,
    resource: options.Resource.ValueType,
    operation: options.Operation.ValueType,
    organization_account_id: str,
) -> bool:
    """Tell whether the caller's rules reach things of that account."""
    column = tables.organizations.c.organization_account_id
    found = select(column).where(column == organization_account_id, accounts(who, resource, operation, column))
    return connection.execute(found).first() is not None


def studies(who: Caller, operation: options.Operation.ValueType) -> ColumnElement[bool]:
    """Meet studies that the caller's rules reach."""
    table = tables.studies
    match access.scope(who, options.RESOURCE_STUDY, operation):
        case options.SCOPE_GLOBAL:
            return true()
        case options.SCOPE_COLLABORATION:
            return table.c.genesis.in_(collaborations(who))
        case options.SCOPE_ORGANIZATION:
            return table.c.organization_account_id == who.organization_account_id
        case options.SCOPE_OWN:
            return table.c.created_by == who.user_id
        case _:
            return false()


def nodes(who: Caller) -> ColumnElement[bool]:
    """Meet nodes that the caller may see."""
    table = tables.nodes
    match access.scope(who, options.RESOURCE_NODE, options.OPERATION_VIEW):
        case options.SCOPE_GLOBAL:
            return true()
        case options.SCOPE_COLLABORATION:
            return table.c.genesis.in_(collaborations(who))
        case options.SCOPE_ORGANIZATION:
            return table.c.organization_id == who.organization_id
        case _:
            return false()


def collaboration(who: Caller, genesis: ColumnElement[bytes]) -> ColumnElement[bool]:
    """Meet collaborations that the caller may see; `genesis` is the column that says which."""
    if access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_VIEW) == options.SCOPE_GLOBAL:
        return true()
    return genesis.in_(collaborations(who))


def collaborations(who: Caller) -> Select[tuple[bytes]]:
    """Select the collaborations that the caller's organization is a member of."""
    return select(tables.members.c.genesis).where(tables.members.c.organization_id == who.organization_id)


def _partners(who: Caller) -> Select[tuple[str]]:
    """Select the accounts of organizations that share a collaboration with the caller's."""
    members, organizations = tables.members, tables.organizations
    return (
        select(organizations.c.organization_account_id)
        .join(members, members.c.organization_id == organizations.c.organization_id)
        .where(members.c.genesis.in_(collaborations(who)))
    )
