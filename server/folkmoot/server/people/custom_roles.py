"""Roles that people make, beside the default ones, which nobody changes.

A role belongs to an organization's account, or to everybody. Whoever makes, changes or deletes one has all of its rules
himself, before and after; and nobody has it who may do what he may not. So a role is no way around what nobody may give.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, literal, select, union_all, update

from folkmoot.server import access, etags, pages
from folkmoot.server.audit import events
from folkmoot.server.context import Caller, Rule, caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts, reach, rights
from folkmoot.server.people.roles import ROLES, check_meaningful
from folkmoot.server.store import tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

_ROLE, _VIEW = options.RESOURCE_ROLE, options.OPERATION_VIEW
_TABLE = tables.roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role. A default one has no id and no time; without an account it is everybody's."""

    name: str
    description: str
    rules: frozenset[Rule]
    role_id: str = ""
    organization_account_id: str = ""
    created_at: datetime | None = None

    @property
    def etag(self) -> str:
        """What changes with every change; empty for default roles."""
        return etags.of(self.name, self.description, rights.write_rules(self.rules)) if self.role_id else ""


DEFAULT = {each.name: Role(name=each.name, description=each.description, rules=each.rules) for each in ROLES.values()}


class Roles:
    """Roles of this server. `rights_changed` is called when what somebody may do has changed."""

    def __init__(self, core: Core, rights_changed: Callable[[], None]) -> None:
        self._core = core
        self._rights_changed = rights_changed

    async def create(
        self, *, role_id: str, name: str, description: str, rules: Iterable[Rule], organization_account_id: str
    ) -> Role:
        """Make a role; the same again gives the first answer."""
        who, now = caller(), self._core.clock()
        wanted = Role(
            name=name,
            description=description,
            rules=check_meaningful(rules, "rules"),
            role_id=role_id,
            organization_account_id=organization_account_id,
            created_at=now,
        )
        record = events.prepare(intent="role.create", data=_told(wanted), now=now)

        def operation(connection: Connection) -> Role:
            me = rights.as_of_now(connection, who)
            _check_reaches(connection, me, wanted.organization_account_id)
            rights.check_may_give(me, wanted.rules, wanted.organization_account_id)
            row = connection.execute(select(_TABLE).where(_TABLE.c.role_id == wanted.role_id)).one_or_none()
            if row:
                if replace(_role(row), created_at=now) != wanted:
                    raise accounts.id_taken(wanted.role_id)
                return _role(row)
            _check_free(connection, wanted)
            account = wanted.organization_account_id or None
            values = _values(wanted) | {"role_id": wanted.role_id, "organization_account_id": account}
            connection.execute(insert(_TABLE).values(created_at=now, **values))
            record(connection)
            return wanted

        return await self._core.store.write(operation)

    async def find(self, *, organization_account_id: str, page_size: int, page_token: str) -> tuple[list[Role], str]:
        """Return a page of the roles that the caller may see, by name, and the token of the next one."""
        query = select(_TABLE.c.name).where(_sees(caller()))
        if organization_account_id:
            query = query.where(_TABLE.c.organization_account_id == organization_account_id)
            names = query.subquery()
        else:
            names = union_all(query, *(select(literal(name)) for name in DEFAULT)).subquery()
        (name,) = names.c
        page = select(name).order_by(name)
        if after := pages.position("roles", page_token, str):
            page = page.where(name > after[0])
        limit = pages.size(page_size)

        def operation(connection: Connection) -> tuple[list[Role], bool]:
            wanted = list(connection.scalars(page.limit(limit + 1)))
            rows = connection.execute(select(_TABLE).where(_TABLE.c.name.in_(wanted)))
            found = {row.name: _role(row) for row in rows} | DEFAULT
            return [found[name] for name in wanted[:limit]], len(wanted) > limit

        found, more = await self._core.store.read(operation)
        return found, pages.token("roles", found[-1].name) if more else ""

    async def get(self, name: str) -> Role:
        """Return a role; raise ROLE_NOT_FOUND if the caller may not see it."""
        if name in DEFAULT:
            return DEFAULT[name]
        query = select(_TABLE).where(_TABLE.c.name == name, _sees(caller()))
        row = await self._core.store.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise rights.role_not_found(name)
        return _role(row)

    async def update(self, role_id: str, changes: Mapping[str, Any], *, etag: str) -> Role:
        """Change a role: `changes` are new values by field. What its users may do changes at once."""
        who, author = caller(), events.author(now=self._core.clock())
        if "rules" in changes:
            changes = {**changes, "rules": check_meaningful(changes["rules"], "rules")}

        def operation(connection: Connection) -> Role:
            me = rights.as_of_now(connection, who)
            present = _pick(connection, me, role_id, options.OPERATION_EDIT)
            etags.check(etag, present.etag)
            changed = replace(present, **changes)
            if changed == present:
                return present
            holders = _check_may_change(connection, me, present)
            rights.check_may_give(me, changed.rules, present.organization_account_id)
            if changed.name != present.name:
                _check_free(connection, changed)
                _rename(connection, holders, present.name, changed.name)
            connection.execute(update(_TABLE).where(_TABLE.c.role_id == role_id).values(**_values(changed)))
            rights.check_somebody_may_do_everything(connection)
            author("role.update", _told(changed) | {"fields": sorted(changes)})(connection)
            return changed

        return await self._core.store.write(operation, then=lambda _: self._rights_changed())

    async def delete(self, role_id: str, *, delete_dependents: bool, etag: str) -> None:
        """Delete a role; take it from those who have it, if that is asked for."""
        who, author = caller(), events.author(now=self._core.clock())

        def operation(connection: Connection) -> None:
            me = rights.as_of_now(connection, who)
            present = _pick(connection, me, role_id, options.OPERATION_DELETE)
            etags.check(etag, present.etag)
            holders = _check_may_change(connection, me, present)
            if holders and not delete_dependents:
                raise FolkmootError(
                    errors_pb2.ERROR_REASON_HAS_DEPENDENTS,
                    f"Users who have the role: {len(holders)}",
                    metadata={"users": str(len(holders))},
                )
            _rename(connection, holders, present.name, None)
            connection.execute(delete(_TABLE).where(_TABLE.c.role_id == role_id))
            rights.check_somebody_may_do_everything(connection)
            author("role.delete", {"role_id": role_id, "users": len(holders)})(connection)

        await self._core.store.write(operation, then=lambda _: self._rights_changed())


# ---- who may -------------------------------------------------------------------------------------------------------


def _sees(who: Caller) -> ColumnElement[bool]:
    account = _TABLE.c.organization_account_id
    return account.is_(None) | reach.accounts(who, _ROLE, _VIEW, account)


def _check_reaches(connection: Connection, who: Caller, organization_account_id: str) -> None:
    """Raise NOT_ALLOWED or ORGANIZATION_NOT_FOUND unless the caller may make roles of the account; empty: everybody's."""
    operation = options.OPERATION_CREATE
    reaches_all = access.scope(who, _ROLE, operation) == options.SCOPE_GLOBAL
    if not organization_account_id:
        reaches = reaches_all
    else:
        reaches = reach.reaches_account(connection, who, _ROLE, operation, organization_account_id)
        if reaches_all and not reaches:
            raise accounts.organization_not_found(organization_account_id)
    if not reaches:
        raise access.lacking(_ROLE, operation)


def _check_may_change(connection: Connection, who: Caller, role: Role) -> Sequence[Row[Any]]:
    """Return the users who have the role; raise NOT_ALLOWED if it, or one of them, may do what the caller may not."""
    rights.check_may_give(who, role.rules, role.organization_account_id)
    holders = connection.execute(select(tables.users).where(rights.has_role(role.name))).all()
    for holder in holders:
        rights.check_not_above(connection, who, holder)
    return holders


def _pick(connection: Connection, who: Caller, role_id: str, operation: options.Operation.ValueType) -> Role:
    """Return the role if the caller's rules reach it."""
    row = reach.pick(
        connection,
        select(_TABLE).where(_TABLE.c.role_id == role_id),
        may=reach.accounts(who, _ROLE, operation, _TABLE.c.organization_account_id),
        sees=_sees(who),
        refusal=access.lacking(_ROLE, operation),
        missing=rights.role_not_found(role_id),
    )
    return _role(row)


# ---- rows ----------------------------------------------------------------------------------------------------------


def _role(row: Row[Any]) -> Role:
    return Role(
        name=row.name,
        description=row.description,
        rules=rights.read_rules(row.rules),
        role_id=row.role_id,
        organization_account_id=row.organization_account_id or "",
        created_at=row.created_at,
    )


def _values(role: Role) -> dict[str, str]:
    return {"name": role.name, "description": role.description, "rules": rights.write_rules(role.rules)}


def _check_free(connection: Connection, role: Role) -> None:
    """Raise NAME_TAKEN for a name that another role has, whatever the case: people read it, and take one for the other."""
    name = role.name.lower()
    others = select(_TABLE.c.role_id).where(func.lower(_TABLE.c.name) == name, _TABLE.c.role_id != role.role_id)
    if name in {each.lower() for each in DEFAULT} or connection.execute(others).first():
        raise accounts.name_taken(role.name)


def _rename(connection: Connection, holders: Sequence[Row[Any]], old: str, new: str | None) -> None:
    """Give the role another name with those who have it; without one, take it from them."""
    users = tables.users
    for holder in holders:
        kept = {name for name in json.loads(holder.roles) if name != old}
        names = json.dumps(sorted(kept | ({new} if new else set())))
        connection.execute(update(users).where(users.c.user_id == holder.user_id).values(roles=names))


def _told(role: Role) -> dict[str, object]:
    """Return what the audit trail tells of a role."""
    return {
        "role_id": role.role_id,
        "organization_account_id": role.organization_account_id,
        "rules": rights.in_words(role.rules),
    }
