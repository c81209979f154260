"""Set-up: the first organization and its first user, made with a token that the server prints.

There is no default password. The token works once. It follows from the server's key and from random bytes in the database:
instances that share both print the same one, as does each start until it has been used, and neither of the two tells it.
"""

from hmac import compare_digest

from sqlalchemy import Connection, insert, select, update

from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.people import accounts
from folkmoot.server.people.accounts import Organization, User
from folkmoot.server.people.passwords import Passwords, check_strength
from folkmoot.server.store import tables
from folkmoot.server.tokens import Tokens
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

SEED_BYTES = 32
_SETUP_ID = 1


class Setup:
    """Makes the first user."""

    def __init__(self, core: Core, passwords: Passwords, signer: Tokens) -> None:
        self._core = core
        self._passwords = passwords
        self._signer = signer

    async def begin(self) -> str | None:
        """Return the set-up token; None once there is a first user."""
        fresh = self._core.random(SEED_BYTES)

        def operation(connection: Connection) -> str | None:
            row = connection.execute(select(tables.setup)).one_or_none()
            if row is None:
                connection.execute(insert(tables.setup).values(id=_SETUP_ID, token_hash=fresh))
                return self._signer.setup_token(fresh)
            return self._signer.setup_token(row.token_hash) if row.done_at is None else None

        return await self._core.store.write(operation)

    async def complete(self, *, token: str, username: str, password: str, organization_name: str) -> User:
        """Make the first organization and its first user, who is Root."""
        now = self._core.clock()
        await self._core.store.read(lambda connection: self._check(connection, token))
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
            self._check(connection, token)
            connection.execute(update(tables.setup).values(done_at=now))
            accounts.add_organization(connection, account)
            accounts.add_user(connection, user, hashed)
            record(connection)

        await self._core.store.write(operation)
        return user

    def _check(self, connection: Connection, token: str) -> None:
        row = connection.execute(select(tables.setup)).one()
        if row.done_at is not None:
            raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_DONE, "This server has its first user.")
        if not compare_digest(self._signer.setup_token(row.token_hash).encode(), token.encode()):
            raise FolkmootError(errors_pb2.ERROR_REASON_SETUP_TOKEN_INVALID, "That is not the set-up token.")
