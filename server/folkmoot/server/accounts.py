"""Accounts: set-up, organizations and users, and what a user may do.

The first user is made with a token that the server prints; there is no default password. Nobody makes a user with a
rule that he lacks himself, nor outside of what his rule's scope reaches.
"""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hmac import compare_digest
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Row, insert, select, update

from folkmoot.server import access, events, pages, rights
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.passwords import Passwords, check_strength
from folkmoot.server.store import tables
from folkmoot.server.tokens import secret_hash
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

SETUP_TOKEN_BYTES = 20
_SETUP_ID = 1
_Row: TypeAlias = Row[Any]
T = TypeVar("T")
_WITHIN_ACCOUNT = (options.SCOPE_ORGANIZATION, options.SCOPE_COLLABORATION)


@dataclass(frozen=True, slots=True)
class Organization:
    """An organization's account; `organization_id` is its address, empty until it founds or asks to join something."""

    organization_account_id: str
    name: str
    organization_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A user."""

    user_id: str
    username: str
    organization_account_id: str
    roles: tuple[str, ...]
    created_at: datetime


class Accounts:
    """Organizations and users of this server."""

    def __init__(self, core: Core, passwords: Passwords) -> None:
        self._core = core
        self._passwords = passwords

    # ---- set-up ----------------------------------------------------------------------------------------------------

    async def begin_setup(self) -> str | None:
        """Return a new set-up token, which replaces an earlier one; None once there is a first user."""
        token = base64.b32encode(self._core.random(SETUP_TOKEN_BYTES)).decode().lower()

        def operation(connection: Connection) -> str | None:
            row = connection.execute(select(tables.setup)).one_or_none()
            if row is None:
                connection.execute(insert(tables.setup).values(id=_SETUP_ID, token_hash=secret_hash(token)))
            elif row.done_at is None:
                connection.execute(update(tables.setup).values(token_hash=secret_hash(token)))
            else:
                return None
            return token

        return await self._core.store.write(operation)

    async def complete_setup(self, *, token: str, username: str, password: str, organization_name: str) -> User:
        """Make the first organization and its first user, who is Root."""
        now = self._core.clock()
        await self._core.store.read(lambda connection: _check_setup(connection, token))
        check_strength(password, username)
        async with self._passwords.slot():
            hashed = await self._passwords.make(password)
        account = Organization(uuid7(now, self._core.random), organization_name, "", now)
        user = User(uuid7(now, self._core.random), username, account.organization_account_id, ("Root",), now)
        first = Caller(
            options.CALLER_USER, user_id=user.user_id, organization_account_id=account.organization_account_id
        )
        record = events.prepare(
            intent="server.setup",
            caller=first,
            data={"organization_account_id": account.organization_account_id, "user_id": user.user_id},
            now=now,
        )

        def operation(connection: Connection) -> None:
            _check_setup(connection, token)
            connection.execute(update(tables.setup).values(done_at=now))
            _insert_organization(connection, account)
            _insert_user(connection, user, hashed)
            record(connection)

        await self._core.store.write(operation)
        return user

    # ---- organizations ---------------------------------------------------------------------------------------------

    async def create_organization(self, organization_account_id: str, name: str) -> Organization:
        """Make an account; the same id and name again give the first answer."""
        now = self._core.clock()
        wanted = Organization(organization_account_id, name, "", now)
        record = events.prepare(
            intent="organization.create", data={"organization_account_id": organization_account_id}, now=now
        )

        def operation(connection: Connection) -> Organization:
            if existing := find_organization(connection, organization_account_id):
                if existing.name != name:
                    raise _id_taken(organization_account_id)
                return existing
            _insert_organization(connection, wanted)
            record(connection)
            return wanted

        return await self._core.store.write(operation)

    async def list_organizations(self, *, page_size: int, page_token: str) -> tuple[list[Organization], str]:
        """Return a page of the accounts that the caller may see, by name, and the token of the next one."""
        who = caller()
        table = tables.organizations
        query = select(table).order_by(table.c.name)
        reach = access.scope(who, options.RESOURCE_ORGANIZATION, options.OPERATION_VIEW)
        if reach == options.SCOPE_COLLABORATION:
            mine = select(tables.members.c.genesis).where(tables.members.c.organization_id == who.organization_id)
            partners = select(tables.members.c.organization_id).where(tables.members.c.genesis.in_(mine))
            own = table.c.organization_account_id == who.organization_account_id
            query = query.where(own | table.c.organization_id.in_(partners))
        elif reach != options.SCOPE_GLOBAL:
            query = query.where(table.c.organization_account_id == who.organization_account_id)
        if after := pages.position("organizations", page_token, str):
            query = query.where(table.c.name > after[0])
        limit = pages.size(page_size)
        rows = await self._core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
        return _page(rows, limit, _organization, lambda row: pages.token("organizations", row.name))

    # ---- users -----------------------------------------------------------------------------------------------------

    async def create_user(
        self, *, user_id: str, username: str, password: str, organization_account_id: str, role_names: Sequence[str]
    ) -> User:
        """Make a user; the same again gives the first answer."""
        who = caller()
        self._check_may_create(organization_account_id)
        check_strength(password, username)
        now = self._core.clock()
        wanted = User(user_id, username, organization_account_id, tuple(sorted(role_names)), now)
        record = events.prepare(
            intent="user.create",
            data={"user_id": user_id, "organization_account_id": organization_account_id, "roles": wanted.roles},
            now=now,
        )
        existing = await self._core.store.read(lambda connection: find_user(connection, user_id))
        async with self._passwords.slot():
            if existing is not None:
                known, known_hash = existing
                same = (known.username, known.organization_account_id, known.roles) == (
                    username,
                    organization_account_id,
                    wanted.roles,
                )
                if not (same and await self._passwords.matches(password, known_hash)):
                    raise _id_taken(user_id)
                return known
            hashed = await self._passwords.make(password)

        def operation(connection: Connection) -> None:
            if find_organization(connection, organization_account_id) is None:
                raise FolkmootError(
                    errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND,
                    f"There is no organization's account {organization_account_id}.",
                )
            rights.check_roles(connection, role_names, organization_account_id)
            rights.check_may_give(who, rights.rules_of_roles(connection, role_names), organization_account_id)
            if find_user(connection, user_id) is not None:
                raise _id_taken(user_id)
            _insert_user(connection, wanted, hashed)
            record(connection)

        await self._core.store.write(operation)
        return wanted

    async def list_users(
        self, *, organization_account_id: str, page_size: int, page_token: str
    ) -> tuple[list[User], str]:
        """Return a page of the users that the caller may see, by name, and the token of the next one."""
        who = caller()
        table = tables.users
        query = select(table).order_by(table.c.username)
        reach = access.scope(who, options.RESOURCE_USER, options.OPERATION_VIEW)
        if reach == options.SCOPE_OWN:
            query = query.where(table.c.user_id == who.user_id)
        elif reach != options.SCOPE_GLOBAL:
            query = query.where(table.c.organization_account_id == who.organization_account_id)
        if organization_account_id:
            query = query.where(table.c.organization_account_id == organization_account_id)
        if after := pages.position("users", page_token, str):
            query = query.where(table.c.username > after[0])
        limit = pages.size(page_size)
        rows = await self._core.store.read(lambda connection: connection.execute(query.limit(limit + 1)).all())
        return _page(rows, limit, user_of, lambda row: pages.token("users", row.username))

    def _check_may_create(self, organization_account_id: str) -> None:
        who = caller()
        reach = access.scope(who, options.RESOURCE_USER, options.OPERATION_CREATE)
        own = organization_account_id == who.organization_account_id
        if not (reach == options.SCOPE_GLOBAL or (reach in _WITHIN_ACCOUNT and own)):
            raise access.lacking(options.RESOURCE_USER, options.OPERATION_CREATE)


# ---- rows ----------------------------------------------------------------------------------------------------------


def find_organization(connection: Connection, organization_account_id: str) -> Organization | None:
    """Return an account."""
    table = tables.organizations
    row = connection.execute(
        select(table).where(table.c.organization_account_id == organization_account_id)
    ).one_or_none()
    return _organization(row) if row else None


def find_user(connection: Connection, user_id: str) -> tuple[User, str] | None:
    """Return a user with the password's hash."""
    row = connection.execute(select(tables.users).where(tables.users.c.user_id == user_id)).one_or_none()
    return (user_of(row), row.password_hash) if row else None


def bind_address(connection: Connection, organization_account_id: str, organization_id: str) -> None:
    """Bind an account to the address whose governance key it has proved to hold; raise NOT_ALLOWED if either has another.

    One account has one address, and one address one account.
    """
    table = tables.organizations
    holder = connection.execute(
        select(table.c.organization_account_id).where(table.c.organization_id == organization_id)
    ).scalar()
    if holder == organization_account_id:
        return
    if holder is not None:
        raise access.not_allowed("Another organization's account at this server has that address.")
    account = find_organization(connection, organization_account_id)
    if account is None or account.organization_id:
        raise access.not_allowed(
            "Your organization's account has another address: it was bound to the governance key that founded or asked"
            " to join first."
        )
    connection.execute(
        update(table)
        .where(table.c.organization_account_id == organization_account_id)
        .values(organization_id=organization_id)
    )


def user_of(row: _Row) -> User:
    """Return the user in a row."""
    return User(row.user_id, row.username, row.organization_account_id, tuple(json.loads(row.roles)), row.created_at)


def _organization(row: _Row) -> Organization:
    return Organization(row.organization_account_id, row.name, row.organization_id or "", row.created_at)


def _insert_organization(connection: Connection, account: Organization) -> None:
    table = tables.organizations
    if connection.execute(select(table.c.name).where(table.c.name == account.name)).first():
        raise _name_taken(account.name)
    connection.execute(
        insert(table).values(
            organization_account_id=account.organization_account_id,
            name=account.name,
            created_at=account.created_at,
        )
    )


def _insert_user(connection: Connection, user: User, hashed: str) -> None:
    table = tables.users
    if connection.execute(select(table.c.username).where(table.c.username == user.username)).first():
        raise _name_taken(user.username)
    connection.execute(
        insert(table).values(
            user_id=user.user_id,
            username=user.username,
            password_hash=hashed,
            organization_account_id=user.organization_account_id,
            roles=json.dumps(user.roles),
            created_at=user.created_at,
        )
    )


def _check_setup(connection: Connection, token: str) -> None:
    row = connection.execute(select(tables.setup)).one()
    if row.done_at is not None:
        raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_DONE, "This server has its first user.")
    if not compare_digest(row.token_hash, secret_hash(token)):
        raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_TOKEN_INVALID, "That is not the set-up token.")


def _page(
    rows: Sequence[_Row], limit: int, convert: Callable[[_Row], T], token: Callable[[_Row], str]
) -> tuple[list[T], str]:
    """Cut the one row too many that was asked for; it shows that there is a next page."""
    return [convert(row) for row in rows[:limit]], token(rows[limit - 1]) if len(rows) > limit else ""


def _id_taken(taken: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_ID_TAKEN, f"The id {taken} was used for something else.")


def _name_taken(name: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_NAME_TAKEN, f"The name '{name}' is taken.", metadata={"name": name})
