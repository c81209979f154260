"""Organizations: their accounts at this server, and the address that an account has proved to be its own.

An account is for logging in and for lists. Who belongs to a collaboration, and with which keys, its ledger says: deleting
an account ends its logins and changes nothing there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select, update

from folkmoot.server import access, etags, pages
from folkmoot.server.audit import events
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts, reach, rights
from folkmoot.server.people.accounts import Organization
from folkmoot.server.store import tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

_ORGANIZATION, _VIEW = options.RESOURCE_ORGANIZATION, options.OPERATION_VIEW
_TABLE = tables.organizations


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which accounts a list shows; what is empty does not matter."""

    name_prefix: str = ""
    genesis: bytes = b""
    country: str = ""


class Organizations:
    """Accounts of organizations. `rights_changed` is called when users are gone."""

    def __init__(self, core: Core, rights_changed: Callable[[], None]) -> None:
        self._core = core
        self._rights_changed = rights_changed

    async def create(self, wanted: Organization) -> Organization:
        """Make an account; the same again gives the first answer."""
        who = caller()
        if access.scope(who, _ORGANIZATION, options.OPERATION_CREATE) != options.SCOPE_GLOBAL:
            raise access.lacking(_ORGANIZATION, options.OPERATION_CREATE)
        account_id = wanted.organization_account_id
        record = events.prepare(
            intent="organization.create", data={"organization_account_id": account_id}, now=wanted.created_at
        )

        def operation(connection: Connection) -> Organization:
            if existing := accounts.find_organization(connection, account_id):
                if replace(existing, created_at=wanted.created_at, organization_id="") != wanted:
                    raise accounts.id_taken(account_id)
                return existing
            accounts.add_organization(connection, wanted)
            record(connection)
            return wanted

        return await self._core.store.write(operation)

    async def find(self, wanted: Wanted, *, page_size: int, page_token: str) -> tuple[list[Organization], str]:
        """Return a page of the accounts that the caller may see, by name, and the token of the next one."""
        query = _wanted(caller(), wanted).order_by(_TABLE.c.name)
        if after := pages.position("organizations", page_token, str):
            query = query.where(_TABLE.c.name > after[0])
        limit = pages.size(page_size)
        rows = await self._core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
        found = [accounts.organization_of(row) for row in rows[:limit]]
        return found, pages.token("organizations", found[-1].name) if len(rows) > limit else ""

    async def get(self, organization_account_id: str) -> Organization:
        """Return an account; raise ORGANIZATION_NOT_FOUND if the caller may not see it."""
        who = caller()
        row = await self._core.store.read(lambda connection: _pick(connection, who, organization_account_id, _VIEW))
        return accounts.organization_of(row)

    async def update(self, organization_account_id: str, changes: Mapping[str, Any], *, etag: str) -> Organization:
        """Change an account: `changes` are new values by field."""
        who, now = caller(), self._core.clock()
        record = events.prepare(
            intent="organization.update",
            data={"organization_account_id": organization_account_id, "fields": sorted(changes)},
            now=now,
        )

        def operation(connection: Connection) -> Organization:
            present = accounts.organization_of(_pick(connection, who, organization_account_id, options.OPERATION_EDIT))
            etags.check(etag, present.etag)
            changed = replace(present, **changes)
            if changed == present:
                return present
            if changed.name != present.name:
                self._check_is_nobodys_entry(who, changed.name)
                accounts.check_organization_name(connection, changed)
            connection.execute(
                update(_TABLE).where(_TABLE.c.organization_account_id == organization_account_id).values(**changes)
            )
            record(connection)
            return changed

        return await self._core.store.write(operation)

    def _check_is_nobodys_entry(self, who: Caller, name: str) -> None:
        """Raise NAME_TAKEN for the name of the account in which newcomers are made users, unless the server's administrator gives it."""
        if access.scope(who, _ORGANIZATION, options.OPERATION_EDIT) != options.SCOPE_GLOBAL:
            accounts.check_not_reserved(name, self._core.config.oidc_new_users)

    async def delete(self, organization_account_id: str, *, delete_dependents: bool, etag: str) -> None:
        """Delete an account, with its users and roles if that is asked for. Ledgers, tasks and studies stay."""
        who, author = caller(), events.author(now=self._core.clock())

        def operation(connection: Connection) -> None:
            me = rights.as_of_now(connection, who)
            row = _pick(connection, me, organization_account_id, options.OPERATION_DELETE)
            if access.scope(me, _ORGANIZATION, options.OPERATION_DELETE) != options.SCOPE_GLOBAL:
                raise access.lacking(_ORGANIZATION, options.OPERATION_DELETE)
            etags.check(etag, accounts.organization_of(row).etag)
            users, roles = tables.users, tables.roles
            belonging = connection.execute(
                select(users).where(users.c.organization_account_id == organization_account_id)
            ).all()
            made = roles.c.organization_account_id == organization_account_id
            number = connection.execute(select(func.count()).select_from(roles).where(made)).scalar_one()
            if (belonging or number) and not delete_dependents:
                raise _has_dependents(len(belonging), number)
            for user in belonging:
                rights.check_not_above(connection, me, user)
                accounts.remove_user(connection, user)
            connection.execute(delete(roles).where(made))
            connection.execute(delete(_TABLE).where(_TABLE.c.organization_account_id == organization_account_id))
            rights.check_somebody_may_do_everything(connection)
            data = {"organization_account_id": organization_account_id, "users": len(belonging), "roles": number}
            author("organization.delete", data)(connection)

        await self._core.store.write(operation, then=lambda _: self._rights_changed())


def _wanted(who: Caller, wanted: Wanted) -> Select[Any]:
    """Select the accounts that are asked for and that the caller may see."""
    query = select(_TABLE).where(reach.accounts(who, _ORGANIZATION, _VIEW, _TABLE.c.organization_account_id))
    if wanted.name_prefix:
        query = query.where(pages.begins(_TABLE.c.name, wanted.name_prefix))
    if wanted.genesis:
        members = tables.members
        joined = select(members.c.organization_id).where(
            members.c.genesis == wanted.genesis, reach.collaboration(who, members.c.genesis)
        )
        query = query.where(_TABLE.c.organization_id.in_(joined))
    if wanted.country:
        query = query.where(_TABLE.c.country == wanted.country)
    return query


def _pick(
    connection: Connection, who: Caller, organization_account_id: str, operation: options.Operation.ValueType
) -> Row[Any]:
    """Return the account's row if the caller's rules reach it."""
    column = _TABLE.c.organization_account_id
    return reach.pick(
        connection,
        select(_TABLE).where(column == organization_account_id),
        may=reach.accounts(who, _ORGANIZATION, operation, column),
        sees=reach.accounts(who, _ORGANIZATION, _VIEW, column),
        refusal=access.lacking(_ORGANIZATION, operation),
        missing=accounts.organization_not_found(organization_account_id),
    )


def _has_dependents(users: int, roles: int) -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_HAS_DEPENDENTS,
        f"What depends on the account: users {users}, roles {roles}",
        metadata={"users": str(users), "roles": str(roles)},
    )
