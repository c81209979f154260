"""Set-up: the first organization and its first user, made with a token that the server prints.

There is no default password. The token is replaced at each start until it has been used, and works once.
"""

import base64
from hmac import compare_digest

from sqlalchemy import Connection, insert, select, update

from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts
from folkmoot.server.people.accounts import Organization, User
from folkmoot.server.people.passwords import Passwords, check_strength
from folkmoot.server.store import tables
from folkmoot.server.tokens import secret_hash
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

SETUP_TOKEN_BYTES = 20
_SETUP_ID = 1


class Setup:
    """Makes the first user."""

    def __init__(self, core: Core, passwords: Passwords) -> None:
        self._core = core
        self._passwords = passwords

    async def begin(self) -> str | None:
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

    async def complete(self, *, token: str, username: str, password: str, organization_name: str) -> User:
        """Make the first organization and its first user, who is Root."""
        now = self._core.clock()
        await self._core.store.read(lambda connection: _check(connection, token))
        check_strength(password, username)
        async with self._passwords.slot():
            hashed = await self._passwords.make(password)
        account = Organization(
            organization_account_id=uuid7(now, self._core.random), name=organization_name, created_at=now
        )
        user = User(
            user_id=uuid7(now, self._core.random),
            username=username,
            organization_account_id=account.organization_account_id,
            created_at=now,
            roles=("Root",),
        )
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
            _check(connection, token)
            connection.execute(update(tables.setup).values(done_at=now))
            accounts.add_organization(connection, account)
            accounts.add_user(connection, user, hashed)
            record(connection)

        await self._core.store.write(operation)
        return user


def _check(connection: Connection, token: str) -> None:
    row = connection.execute(select(tables.setup)).one()
    if row.done_at is not None:
        raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_DONE, "This server has its first user.")
    if not compare_digest(row.token_hash, secret_hash(token)):
        raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_TOKEN_INVALID, "That is not the set-up token.")
