"""Sessions: logging in, staying logged in, logging out, and who the bearer of a token is.

- An access token is good for minutes; a refresh token gives new ones, once: each use replaces it. Whoever shows one that
  was replaced ends the session, since one of two bearers is a thief.
- Five wrong passwords lock a user name out, for longer each time. Names that nobody has behave the same in time and
  answer, so that nothing tells which users exist.
- Rights are looked up at each call and remembered for a few seconds; what changes them here forgets what is remembered.
"""

import base64
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from folkmoot.server import accounts, context, events, rights
from folkmoot.server.context import Caller
from folkmoot.server.core import Core, try_later
from folkmoot.server.passwords import Passwords, check_strength
from folkmoot.server.store import tables, upserts
from folkmoot.server.tokens import Claims, Tokens, secret_hash, token_invalid
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

FAILURES_BEFORE_LOCK_OUT = 5
FIRST_LOCK_OUT = timedelta(minutes=1)
LONGEST_LOCK_OUT = timedelta(minutes=15)
FAILURES_FORGOTTEN_AFTER = timedelta(hours=1)
REFRESH_SECRET_BYTES = 32
REMEMBERED_FOR = timedelta(seconds=5)
MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Pair:
    """An access token with the refresh token that gives the next one."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Remembered:
    who: Caller
    until: datetime


class Sessions:
    """Logins of users, and the callers behind access tokens."""

    def __init__(self, core: Core, passwords: Passwords, tokens: Tokens) -> None:
        self._core = core
        self._passwords = passwords
        self._tokens = tokens
        self._remembered: OrderedDict[str, _Remembered] = OrderedDict()
        self._forgotten = 0
        self._strangers = events.Strangers()

    # ---- logging in and out ----------------------------------------------------------------------------------------

    async def log_in(self, username: str, password: str) -> Pair:
        """Return tokens; raise LOGIN_FAILED or LOCKED_OUT."""
        # Check, verification and count happen in one slot, so that no flood of guesses slips in between.
        async with self._passwords.slot():
            now = self._core.clock()
            row, locked_until = await self._core.store.read(lambda connection: _login_rows(connection, username))
            if locked_until is not None and now < locked_until:
                raise _locked_out(locked_until - now)
            hashed = row.password_hash if row else None
            user = accounts.user_of(row) if row else None
            if not await self._passwords.matches(password, hashed) or user is None:
                await self._count_failure(username, user)
                raise _login_failed()
            return await self._open(user, now)

    async def refresh(self, refresh_token: str) -> Pair:
        """Return new tokens for a refresh token, which ends; raise TOKEN_INVALID."""
        now = self._core.clock()
        session_id, _, secret = refresh_token.partition(".")
        fresh = self._new_secret()

        def operation(connection: Connection) -> str | None:
            table = tables.sessions
            row = connection.execute(select(table).where(table.c.session_id == session_id)).one_or_none()
            if row is None or now >= row.expires_at:
                return None
            if not compare_digest(row.refresh_hash, secret_hash(secret)):
                connection.execute(delete(table).where(table.c.session_id == session_id))
                return None
            connection.execute(
                update(table)
                .where(table.c.session_id == session_id)
                .values(refresh_hash=secret_hash(fresh), expires_at=self._refresh_ends(now))
            )
            user_id: str = row.user_id
            return user_id

        user_id = await self._core.store.write(operation)
        if user_id is None:
            self.forget()
            raise token_invalid("The refresh token is not one of this server's, was used before, or its time is over.")
        return self._pair(user_id, session_id, fresh, now)

    async def log_out(self) -> None:
        """End the caller's session."""
        who, record = context.caller(), events.prepare(intent="user.logout", data={}, now=self._core.clock())

        def operation(connection: Connection) -> None:
            connection.execute(delete(tables.sessions).where(tables.sessions.c.session_id == who.session_id))
            record(connection)

        await self._core.store.write(operation)
        self.forget()

    async def change_password(self, old: str, new: str) -> None:
        """Change the caller's password and end its other sessions; raise LOGIN_FAILED, PASSWORD_WEAK."""
        who, now = context.caller(), self._core.clock()
        check_strength(new, who.username)
        record = events.prepare(intent="user.change_password", data={"user_id": who.user_id}, now=now)
        async with self._passwords.slot():
            row, locked_until = await self._core.store.read(lambda connection: _login_rows(connection, who.username))
            if locked_until is not None and now < locked_until:
                raise _locked_out(locked_until - now)
            if row is None or not await self._passwords.matches(old, row.password_hash):
                await self._count_failure(who.username, accounts.user_of(row) if row else None)
                raise _login_failed()
            hashed = await self._passwords.make(new)

        def operation(connection: Connection) -> None:
            users, sessions = tables.users, tables.sessions
            connection.execute(update(users).where(users.c.user_id == who.user_id).values(password_hash=hashed))
            others = (sessions.c.user_id == who.user_id) & (sessions.c.session_id != who.session_id)
            connection.execute(delete(sessions).where(others))
            record(connection)

        await self._core.store.write(operation)
        self.forget()

    # ---- who is calling --------------------------------------------------------------------------------------------

    async def caller(self, token: str) -> Caller:
        """Return the bearer of an access token, with what it may do now; raise TOKEN_INVALID."""
        now = self._core.clock()
        remembered = self._remembered.get(token)
        if remembered is not None and now < remembered.until:
            return remembered.who
        forgotten = self._forgotten
        claims = self._tokens.read(token, now)
        if claims.kind == options.CALLER_USER:
            who = await self._core.store.read(lambda connection: _user_behind(connection, claims, now))
        else:
            who = await self._node_behind(claims)
        if forgotten == self._forgotten:  # else rights changed while they were looked up
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.popitem(last=False)
            self._remembered[token] = _Remembered(who, min(now + REMEMBERED_FOR, claims.expires_at))
        return who

    def forget(self) -> None:
        """Look every caller's rights up again."""
        self._remembered.clear()
        self._forgotten += 1

    async def _node_behind(self, claims: Claims) -> Caller:
        """Return the machine. Whether it is admitted now, the ledger says, which is in memory from here on."""
        await self._core.ledgers.state(claims.genesis)
        return Caller(
            claims.kind, node_id=claims.node_id, organization_id=claims.organization_id, genesis=claims.genesis
        )

    # ---- rows ------------------------------------------------------------------------------------------------------

    async def _open(self, user: accounts.User, now: datetime) -> Pair:
        session_id, secret = uuid7(now, self._core.random), self._new_secret()
        # Whoever names a session to Refresh can end it: those who read the trail learn no more than which events belong together.
        data = {"session": secret_hash(session_id).hex()}
        record = events.prepare(intent="user.login", caller=_as_caller(user), data=data, now=now)

        def operation(connection: Connection) -> None:
            sessions, failures = tables.sessions, tables.login_failures
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            connection.execute(delete(failures).where(failures.c.username == user.username))
            connection.execute(
                insert(sessions).values(
                    session_id=session_id,
                    user_id=user.user_id,
                    login_id=secret_hash(session_id).hex(),
                    refresh_hash=secret_hash(secret),
                    created_at=now,
                    renewed_at=now,
                    expires_at=self._refresh_ends(now),
                )
            )
            record(connection)

        await self._core.store.write(operation)
        return self._pair(user.user_id, session_id, secret, now)

    async def _count_failure(self, username: str, user: accounts.User | None) -> None:
        now = self._core.clock()
        # A name that nobody has may be a password in the wrong field: it is counted, not recorded.
        recorded = user is not None or self._strangers.may_be_recorded(now)
        record = events.prepare(
            intent="user.login",
            caller=_as_caller(user) if user else context.ANYONE,
            data={},
            now=now,
            outcome="LOGIN_FAILED",
        )

        def operation(connection: Connection) -> None:
            table = tables.login_failures
            connection.execute(delete(table).where(table.c.last_at < now - FAILURES_FORGOTTEN_AFTER))
            known = connection.execute(select(table.c.failures).where(table.c.username == username)).scalar()
            failures = (known or 0) + 1
            values = {"failures": failures, "locked_until": lock_out_end(failures, now), "last_at": now}
            connection.execute(
                upserts.insert(connection, table)
                .values(username=username, **values)
                .on_conflict_do_update([table.c.username], set_=values)
            )
            if recorded:
                record(connection)

        await self._core.store.write(operation)

    def _pair(self, user_id: str, session_id: str, secret: str, now: datetime) -> Pair:
        ends = (now + timedelta(minutes=self._core.config.access_token_minutes)).replace(microsecond=0)
        claims = Claims(options.CALLER_USER, ends, user_id=user_id, session_id=session_id)
        return Pair(self._tokens.issue(claims), ends, f"{session_id}.{secret}", self._refresh_ends(now))

    def _refresh_ends(self, now: datetime) -> datetime:
        return now + timedelta(days=self._core.config.refresh_token_days)

    def _new_secret(self) -> str:
        return base64.urlsafe_b64encode(self._core.random(REFRESH_SECRET_BYTES)).decode().rstrip("=")


def lock_out_end(failures: int, now: datetime) -> datetime | None:
    """Return until when so many failures in a row lock a name out; None while there are few."""
    over = failures - FAILURES_BEFORE_LOCK_OUT
    return None if over < 0 else now + min(FIRST_LOCK_OUT * 2 ** min(over, 10), LONGEST_LOCK_OUT)


def _login_rows(connection: Connection, username: str) -> tuple[Row[Any] | None, datetime | None]:
    users, failures = tables.users, tables.login_failures
    row = connection.execute(select(users).where(users.c.username == username)).one_or_none()
    locked_until = connection.execute(select(failures.c.locked_until).where(failures.c.username == username)).scalar()
    return row, locked_until


def _user_behind(connection: Connection, claims: Claims, now: datetime) -> Caller:
    sessions, users, organizations = tables.sessions, tables.users, tables.organizations
    row = connection.execute(
        select(users, organizations.c.organization_id)
        .join(sessions, sessions.c.user_id == users.c.user_id)
        .join(organizations, organizations.c.organization_account_id == users.c.organization_account_id)
        .where(sessions.c.session_id == claims.session_id, sessions.c.expires_at > now)
    ).one_or_none()
    if row is None:
        raise token_invalid("The session was ended.")
    user = accounts.user_of(row)
    return Caller(
        options.CALLER_USER,
        user_id=user.user_id,
        username=user.username,
        organization_account_id=user.organization_account_id,
        organization_id=row.organization_id or "",
        session_id=claims.session_id,
        rules=rights.rules_of(connection, row),
    )


def _as_caller(user: accounts.User) -> Caller:
    return Caller(options.CALLER_USER, user_id=user.user_id, organization_account_id=user.organization_account_id)


def _login_failed() -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_LOGIN_FAILED, "Unknown user, or wrong password.")


def _locked_out(remaining: timedelta) -> FolkmootError:
    return try_later(errors_pb2.ERROR_REASON_LOCKED_OUT, "Too many wrong passwords", remaining)
