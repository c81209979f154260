"""Which user somebody is whom the provider has authenticated.

Issuer and subject tell, once they are bound to a user. They are bound when somebody comes for the first time: to the user
with the mail address that the provider has verified, if that is his by more than his own word. Else whoever writes somebody's
address into his account would have him work in it, and read along. Where a setting names an organization's account, who has no user yet
is made one in it, without a role: he can do nothing until an administrator gives him one.
"""

import re
from datetime import datetime

from sqlalchemy import Connection, insert, select

from folkmoot.server.audit import events
from folkmoot.server.people import accounts
from folkmoot.server.people.accounts import User
from folkmoot.server.people.guesses import AnyRow
from folkmoot.server.people.oidc import Identity
from folkmoot.server.store import login_tables, tables

_USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_USERS, _IDENTITIES = tables.users, login_tables.provider_identities


def user_of_identity(
    connection: Connection,
    identity: Identity,
    *,
    new_users_in: str,
    new_user_id: str,
    now: datetime,
    author: events.Author,
) -> AnyRow | None:
    """Return the user; bind, or make, him if he comes for the first time. None: nobody here."""
    known = (_IDENTITIES.c.issuer == identity.issuer) & (_IDENTITIES.c.subject == identity.subject)
    bound = select(_USERS).join(_IDENTITIES, _IDENTITIES.c.user_id == _USERS.c.user_id).where(known)
    if user := connection.execute(bound).one_or_none():
        return user
    if not identity.email:
        return None
    by_email = select(_USERS).where(_USERS.c.email == identity.email)
    user = connection.execute(by_email).one_or_none()
    if user is None:
        if not _made(connection, identity.email, new_users_in, new_user_id, now):
            return None
        author("user.create", {"user_id": new_user_id, "by_provider": True, "roles": []})(connection)
        user = connection.execute(by_email).one()
    if not user.email_is_vouched:
        return None
    row = {"issuer": identity.issuer, "subject": identity.subject, "user_id": user.user_id, "created_at": now}
    connection.execute(insert(_IDENTITIES).values(row))
    author("user.bind_identity", {"user_id": user.user_id, "issuer": identity.issuer})(connection)
    return user


def _made(connection: Connection, email: str, account_name: str, user_id: str, now: datetime) -> bool:
    """Make a user in the account of that name; tell whether that is possible."""
    organizations = tables.organizations
    found = select(organizations.c.organization_account_id).where(organizations.c.name == account_name)
    account_id = connection.scalar(found)
    is_taken = connection.execute(select(_USERS.c.user_id).where(_USERS.c.username == email)).first()
    if account_id is None or is_taken or not _USERNAME.fullmatch(email):
        return False
    made = User(
        user_id=user_id,
        username=email,
        organization_account_id=account_id,
        created_at=now,
        email=email,
        email_is_vouched=True,
    )
    accounts.add_user(connection, made, accounts.NO_PASSWORD)
    return True
