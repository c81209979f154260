"""Accounts as rows: organizations with their addresses, and their users.

Functions of a connection, for whoever changes something in a transaction. Who may do so is decided where it is called:
`organizations`, `users`, `setup`.
"""

import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, Table, delete, func, insert, select, update

from folkmoot.server import access, etags
from folkmoot.server.context import Rule
from folkmoot.server.people import rights
from folkmoot.server.store import login_rows, login_tables, tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

_Row: TypeAlias = Row[Any]
_ORGANIZATIONS, _USERS = tables.organizations, tables.users
_OF_USERS: tuple[Table, ...] = (
    tables.sessions,
    login_tables.totp,
    login_tables.reset_tokens,
    login_tables.api_keys,
    login_tables.provider_identities,
)
"""What goes with a user."""

_CHAINED_OR_NOT = (tables.IS_CHAINED, tables.IS_UNCHAINED)
"""Either has an index of its own."""

NO_PASSWORD = ""
"""A hash that no password has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """An organization's account; `organization_id` is its address, empty until it founds or asks to join something."""

    organization_account_id: str
    name: str
    created_at: datetime
    organization_id: str = ""
    domain: str = ""
    postal_address: str = ""
    country: str = ""

    @property
    def etag(self) -> str:
        """What changes with every change."""
        return etags.of(self.name, self.organization_id, self.domain, self.postal_address, self.country)


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user; names of roles in order, the mail address in lower case."""

    user_id: str
    username: str
    organization_account_id: str
    created_at: datetime
    roles: tuple[str, ...] = ()
    email: str = ""
    first_name: str = ""
    last_name: str = ""
    email_is_vouched: bool = False
    """Whether the address was proved by its mailbox, or set by somebody who answers for it."""
    extra_rules: frozenset[Rule] = frozenset()

    @property
    def etag(self) -> str:
        """What changes with every change."""
        extra = rights.write_rules(self.extra_rules)
        return etags.of(self.username, self.roles, self.email, self.first_name, self.last_name, extra)


# ---- organizations -------------------------------------------------------------------------------------------------


def organization_of(row: _Row) -> Organization:
    """Return the account in a row."""
    values = {field.name: getattr(row, field.name) for field in fields(Organization)}
    return Organization(**(values | {"organization_id": row.organization_id or ""}))


def find_organization(connection: Connection, organization_account_id: str) -> Organization | None:
    """Return an account."""
    is_it = _ORGANIZATIONS.c.organization_account_id == organization_account_id
    row = connection.execute(select(_ORGANIZATIONS).where(is_it)).one_or_none()
    return organization_of(row) if row else None


def add_organization(connection: Connection, account: Organization) -> None:
    """Insert an account, which has no address yet; raise NAME_TAKEN, ID_TAKEN."""
    _check_never_used(connection, tables.events.c.organization, account.organization_account_id)
    check_organization_name(connection, account)
    values = {field.name: getattr(account, field.name) for field in fields(Organization)}
    connection.execute(insert(_ORGANIZATIONS).values(**(values | {"organization_id": None})))


def bind_address(connection: Connection, organization_account_id: str, organization_id: str) -> None:
    """Bind an account to the address whose governance key it has proved to hold; raise NOT_ALLOWED if either has another.

    One account has one address, and one address one account.
    """
    table = _ORGANIZATIONS
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


# ---- users ---------------------------------------------------------------------------------------------------------


def user_of(row: _Row) -> User:
    """Return the user in a row."""
    values = {field.name: getattr(row, field.name) for field in fields(User)}
    stored = {
        "roles": tuple(json.loads(row.roles)),
        "email": row.email or "",
        "extra_rules": rights.read_rules(row.extra_rules),
    }
    return User(**(values | stored))


def find_user(connection: Connection, user_id: str) -> tuple[User, str] | None:
    """Return a user with the password's hash."""
    row = connection.execute(select(_USERS).where(_USERS.c.user_id == user_id)).one_or_none()
    return (user_of(row), row.password_hash) if row else None


def add_user(connection: Connection, user: User, hashed: str) -> None:
    """Insert a user; raise NAME_TAKEN for a name, or a mail address, that somebody has, ID_TAKEN for an id that somebody had."""
    _check_never_used(connection, tables.events.c.created_by, user.user_id)
    check_free(connection, _USERS.c.username, user.username)
    check_free(connection, _USERS.c.email, user.email)
    connection.execute(insert(_USERS).values(password_hash=hashed, **columns_of(user)))


def columns_of(user: User) -> dict[str, Any]:
    """Return a user as the table keeps him."""
    values = {field.name: getattr(user, field.name) for field in fields(User)}
    return values | {
        "roles": json.dumps(user.roles),
        "email": user.email or None,
        "extra_rules": rights.write_rules(user.extra_rules),
    }


def end_logins(connection: Connection, user_id: str) -> None:
    """End all logins of a user."""
    connection.execute(delete(tables.sessions).where(tables.sessions.c.user_id == user_id))


def end_resets(connection: Connection, user_id: str, now: datetime) -> None:
    """Have tokens work no more that were mailed to the user before."""
    table = login_tables.reset_tokens
    connection.execute(update(table).where(table.c.user_id == user_id, table.c.used_at.is_(None)).values(used_at=now))


def remove_totp(connection: Connection, user_id: str) -> bool:
    """Take the second factor from a user; tell whether he had one, or had begun to set one up."""
    table = login_tables.totp
    return connection.execute(delete(table).where(table.c.user_id == user_id)).rowcount > 0


def remove_user(connection: Connection, user: _Row) -> None:
    """Delete a user with everything by which somebody could act for him. What he made stays."""
    for table in _OF_USERS:
        connection.execute(delete(table).where(table.c.user_id == user.user_id))
    login_rows.forgive_all(connection, user.username)
    connection.execute(delete(_USERS).where(_USERS.c.user_id == user.user_id))


def mail_address(text: str) -> str:
    """Return an address as the table keeps it: in lower case, unless it has letters of which two fold into the same."""
    return text.lower() if text.isascii() else text


# ---- names ---------------------------------------------------------------------------------------------------------


def check_free(connection: Connection, column: ColumnElement[str], name: str) -> None:
    """Raise NAME_TAKEN if a row has that name; nothing is no name."""
    if name and connection.execute(select(column).where(column == name)).first():
        raise name_taken(name)


def check_organization_name(connection: Connection, account: Organization) -> None:
    """Raise NAME_TAKEN for a name that another account has, whatever the case: people read it, and take one for the other."""
    table = _ORGANIZATIONS
    others = table.c.organization_account_id != account.organization_account_id
    same = select(table.c.name).where(func.lower(table.c.name) == account.name.lower(), others)
    if connection.execute(same).first():
        raise name_taken(account.name)


def check_not_reserved(name: str, reserved: str) -> None:
    """Raise NAME_TAKEN for the name of the account that the settings give newcomers: whoever has it administers them."""
    if reserved and name.lower() == reserved.lower():
        raise name_taken(name)


def _check_never_used(connection: Connection, column: ColumnElement[str], wanted_id: str) -> None:
    """Raise ID_TAKEN for the id of whoever did anything here and was deleted: what he made is known by it, and what he did."""
    is_his = column == wanted_id
    if any(connection.execute(select(column).where(is_his, chained).limit(1)).first() for chained in _CHAINED_OR_NOT):
        raise id_taken(wanted_id)


def name_taken(name: str) -> FolkmootError:
    """Return the error of a name that something else has."""
    return FolkmootError(errors_pb2.ERROR_REASON_NAME_TAKEN, f"The name '{name}' is taken.", metadata={"name": name})


def id_taken(taken: str) -> FolkmootError:
    """Return the error of an id that was used for something else."""
    return FolkmootError(errors_pb2.ERROR_REASON_ID_TAKEN, f"The id {taken} was used for something else.")


def organization_not_found(organization_account_id: str) -> FolkmootError:
    """Return the error of an account that is not there, or not for this caller."""
    return FolkmootError(
        errors_pb2.ERROR_REASON_ORGANIZATION_NOT_FOUND, f"There is no organization's account {organization_account_id}."
    )
