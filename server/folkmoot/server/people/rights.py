"""What a user may do: the rules of his roles and his extra ones; and that nobody gives, or takes, more than he has.

Everything here is a function of a connection, so that it is decided in the transaction that changes something.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, Connection, Row, func, literal_column, select

from folkmoot.server import access
from folkmoot.server.context import Caller, Rule
from folkmoot.server.people.roles import EVERYTHING, ROLES, lacking
from folkmoot.server.store import login_tables, tables
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

_Row: TypeAlias = Row[Any]


# ---- what a user may do --------------------------------------------------------------------------------------------


def rules_of(connection: Connection, user: _Row) -> frozenset[Rule]:
    """Return what the user in a row of `users` may do. A role that is there no more allows nothing."""
    return rules_of_roles(connection, json.loads(user.roles)) | read_rules(user.extra_rules)


def rules_of_roles(connection: Connection, names: Iterable[str]) -> frozenset[Rule]:
    """Return the rules of the roles; one that is there no more allows nothing."""
    wanted = set(names)
    found = {rule for name in wanted & ROLES.keys() for rule in ROLES[name].rules}
    if custom := wanted - ROLES.keys():
        for text in connection.scalars(select(tables.roles.c.rules).where(tables.roles.c.name.in_(custom))):
            found |= read_rules(text)
    return frozenset(found)


def check_roles(connection: Connection, names: Iterable[str], organization_account_id: str) -> None:
    """Raise ROLE_NOT_FOUND for a role that is not there, or not for users of that account."""
    custom, table = set(names) - ROLES.keys(), tables.roles
    if not custom:
        return
    for_them = table.c.organization_account_id.is_(None) | (table.c.organization_account_id == organization_account_id)
    missing = custom - set(connection.scalars(select(table.c.name).where(table.c.name.in_(custom), for_them)))
    if missing:
        raise role_not_found(min(missing))


def role_not_found(name: str) -> FolkmootError:
    """Return the error of a role that is not there, or not for this caller."""
    return FolkmootError(
        errors_pb2.ERROR_REASON_ROLE_NOT_FOUND,
        f"There is no role '{name}'.",
        metadata={"role": name},
    )


def has_role(name: str) -> ColumnElement[bool]:
    """Meet users who have the role."""
    column = tables.users.c.roles
    return func.replace(column, json.dumps(name), "") != column


# ---- nobody gives or takes more than he has ------------------------------------------------------------------------


def as_of_now(connection: Connection, who: Caller) -> Caller:
    """Return the caller with the rules that he has still; raise NOT_ALLOWED if he, or what let him in, is gone.

    Who he is was looked up before the call waited for its turn, perhaps while another instance took his rights, or ended his login.
    """
    user = connection.execute(select(tables.users).where(tables.users.c.user_id == who.user_id)).one_or_none()
    if user is None:
        raise access.not_allowed("Your user was deleted")
    sessions, keys = tables.sessions, login_tables.api_keys
    entry = sessions.c.session_id == who.session_id if who.session_id else keys.c.api_key_id == who.api_key_id
    if connection.execute(select(literal_column("1")).where(entry)).first() is None:
        raise access.not_allowed("Your login, or API key, was ended")
    return replace(who, rules=who.rules - lacking(who.rules, rules_of(connection, user)))


def check_may_give(who: Caller, rules: Iterable[Rule], organization_account_id: str) -> None:
    """Raise NOT_ALLOWED unless the caller has all the rules himself, and as far as they reach for that account's users."""
    if missing := lacking(rules, who.rules, elsewhere=organization_account_id != who.organization_account_id):
        raise access.not_allowed(
            f"These are {len(missing)} rules that you lack, such as {access.words(*min(missing))}; nobody gives what he"
            " does not have"
        )


def check_not_above(connection: Connection, who: Caller, user: _Row) -> None:
    """Raise NOT_ALLOWED if the user may do what the caller may not: then the caller may not change or remove him."""
    elsewhere = user.organization_account_id != who.organization_account_id
    if missing := lacking(rules_of(connection, user), who.rules, elsewhere=elsewhere):
        raise access.not_allowed(
            f"{user.username} may do what you may not, such as {access.words(*min(missing))}: only somebody who has all"
            " that may change or remove him"
        )


def check_somebody_may_do_everything(connection: Connection) -> None:
    """Raise PROTECTED if nobody is left who may do everything; called after a change, in its transaction."""
    users = tables.users
    if connection.execute(select(users.c.user_id).where(has_role("Root")).limit(1)).first():
        return
    if any(not lacking(EVERYTHING, rules_of(connection, user)) for user in connection.execute(select(users)).all()):
        return
    raise FolkmootError(
        errors_pb2.ERROR_REASON_PROTECTED,
        "Nobody would be left who may do everything: give somebody else the role Root first",
    )


# ---- rules as text -------------------------------------------------------------------------------------------------


def write_rules(rules: Iterable[Rule]) -> str:
    """Return rules as tables keep them."""
    return json.dumps(sorted(rules), separators=(",", ":"))


def read_rules(text: str) -> frozenset[Rule]:
    """Return rules from a table."""
    return frozenset(Rule(*triple) for triple in json.loads(text))


def in_words(rules: Iterable[Rule]) -> Sequence[str]:
    """Return rules as people, and the audit trail, read them."""
    return [access.words(*rule) for rule in sorted(rules)]
