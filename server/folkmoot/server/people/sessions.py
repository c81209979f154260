"""Sessions: logging in, staying logged in, logging out, and where a user is logged in.

- An access token is good for minutes; a refresh token gives new ones, once: each use replaces it. Whoever did not get the
  answer asks again within a minute, and gets the same refresh token as before. Whoever shows one that was replaced later
  than that, or twice over, ends the session, since one of two bearers is a thief; the audit trail tells.
- Who has a second factor shows its present code. Where the server demands one that the user has not, the tokens are good
  for nothing but setting it up.
- A login by the provider is renewed until its days are over, and then made at the provider anew; one by password, for ever.
- People see a session by its login id, which follows from the session's id but does not lead back: nobody can use it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest

from sqlalchemy import Connection, delete, insert, select, update

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.core import Core
from folkmoot.server.people import guesses, subjects
from folkmoot.server.people.guesses import AnyRow, Guesses, WrongGuess
from folkmoot.server.people.second_factors import Codes, code_required, counts
from folkmoot.server.store import login_rows, tables
from folkmoot.server.tokens import Claims, Tokens, base64url, secret_hash, token_invalid
from folkmoot.trust.encoding import uuid7
from folkmoot.v1 import options_pb2 as options

REFRESH_SECRET_BYTES = 32
ANSWERED_AGAIN_FOR = timedelta(minutes=1)
"""How long the same answer is given to the same refresh token: the first one may have got lost on its way."""
_LONGEST_USER_AGENT = 200
_SESSIONS = tables.sessions


@dataclass(frozen=True, slots=True)
class Pair:
    """An access token with the refresh token that gives the next one."""

    access_token: str
    access_expires_at: datetime
    refresh_token: str
    refresh_expires_at: datetime
    must_enroll_totp: bool = False
    """Whether they are good for nothing but setting up a second factor."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where a user is logged in."""

    login_id: str
    created_at: datetime
    renewed_at: datetime
    expires_at: datetime
    peer: str
    user_agent: str
    is_current: bool


class Sessions:
    """Logins of users."""

    def __init__(self, core: Core, guesses: Guesses, codes: Codes, tokens: Tokens, forget: Callable[[], None]) -> None:
        self._core = core
        self._guesses = guesses
        self._codes = codes
        self._tokens = tokens
        self._forget = forget

    # ---- logging in and out ----------------------------------------------------------------------------------------

    async def log_in(self, username: str, password: str, code: str, *, user_agent: str) -> Pair:
        """Return tokens; raise LOGIN_FAILED, LOCKED_OUT, TOTP_REQUIRED."""
        async with self._guesses.turn(username) as known:
            step = self._codes.matching_step(known, code)  # also where it does not matter, so that it takes as long
            user = await known.check_password(password)
            if not counts(known.totp):
                return await self._open(user, user_agent, must_enroll_totp=self._core.config.totp_is_required)
            if not code:
                raise code_required()
            if step is None:
                raise WrongGuess
            return await self._open(user, user_agent, use_code=self._codes.using(user.user_id, step))

    async def open_by_provider(self, user: AnyRow, *, user_agent: str) -> Pair:
        """Return tokens for a user whom the provider has authenticated; a second factor is the provider's business."""
        try:
            return await self._open(user, user_agent, by_provider=True)
        except WrongGuess:
            raise guesses.login_failed() from None

    async def refresh(self, refresh_token: str) -> Pair:
        """Return new tokens for a refresh token, which ends; raise TOKEN_INVALID. Asked again at once, give the same ones."""
        now = self._core.clock()
        session_id, _, secret = refresh_token.partition(".")
        fresh, mine = self._tokens.renewed(refresh_token), _SESSIONS.c.session_id == session_id
        whose = select(tables.users).join(_SESSIONS, _SESSIONS.c.user_id == tables.users.c.user_id).where(mine)
        user = await self._core.store.read(lambda connection: connection.execute(whose).one_or_none())
        who = guesses.as_caller(user) if user else context.ANYONE
        data = {"session": login_id_of(session_id)}
        used_twice = events.prepare(intent="user.refresh", caller=who, data=data, now=now, outcome="TOKEN_INVALID")

        def operation(connection: Connection) -> AnyRow | None:
            row = connection.execute(select(_SESSIONS).where(mine)).one_or_none()
            if row is None or now >= row.expires_at:
                return None
            if _follows(row, fresh, now):
                return row
            if not compare_digest(row.refresh_hash, secret_hash(secret)):
                connection.execute(delete(_SESSIONS).where(mine))
                used_twice(connection)
                return None
            # The provider is not asked again by a refresh: whom it has thrown out must come to it in the end.
            ends = row.expires_at if row.by_provider else self._refresh_ends(now)
            renewed = {"refresh_hash": secret_hash(fresh), "renewed_at": now, "expires_at": ends}
            return connection.execute(update(_SESSIONS).where(mine).values(renewed).returning(_SESSIONS)).one()

        row = await self._core.store.write(operation, then=lambda row: None if row else self._forget())
        if row is None:
            raise token_invalid("The refresh token is not one of this server's, was used before, or its time is over.")
        return self._pair(row.user_id, session_id, fresh, now, ends=row.expires_at)

    async def log_out(self) -> None:
        """End the caller's session; an API key has none."""
        who, record = context.caller(), events.prepare(intent="user.logout", data={}, now=self._core.clock())

        def operation(connection: Connection) -> None:
            connection.execute(delete(_SESSIONS).where(_SESSIONS.c.session_id == who.session_id))
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())

    # ---- where a user is logged in ---------------------------------------------------------------------------------

    async def list_logins(self, user_id: str) -> list[Login]:
        """Return the logins of a user, empty: of the caller, newest first; raise USER_NOT_FOUND."""
        who, now = context.caller(), self._core.clock()

        def operation(connection: Connection) -> list[Login]:
            owner = subjects.visible(connection, who, user_id, options.OPERATION_VIEW)
            found = select(_SESSIONS).where(_SESSIONS.c.user_id == owner, _SESSIONS.c.expires_at > now)
            newest_first = found.order_by(_SESSIONS.c.created_at.desc(), _SESSIONS.c.login_id)
            return [_login(row, who.session_id) for row in connection.execute(newest_first)]

        return await self._core.store.read(operation)

    async def end_logins(self, user_id: str, login_id: str) -> int:
        """End one login of a user, or all but the caller's own; return how many ended. Raises USER_NOT_FOUND."""
        who = context.caller()
        author = events.author(now=self._core.clock())

        def operation(connection: Connection) -> int:
            owner = subjects.visible(connection, who, user_id, options.OPERATION_EDIT)
            which = _SESSIONS.c.login_id == login_id if login_id else _SESSIONS.c.session_id != who.session_id
            gone = delete(_SESSIONS).where(_SESSIONS.c.user_id == owner, which).returning(_SESSIONS.c.login_id)
            ended = len(connection.execute(gone).all())
            author("user.end_logins", {"user_id": owner, "session": login_id, "ended": ended})(connection)
            return ended

        return await self._core.store.write(operation, then=lambda _: self._forget())

    # ---- rows ------------------------------------------------------------------------------------------------------

    async def _open(
        self,
        user: AnyRow,
        user_agent: str,
        *,
        must_enroll_totp: bool = False,
        by_provider: bool = False,
        use_code: Callable[[Connection], bool] = lambda _: True,
    ) -> Pair:
        """Return tokens of a new session; raise WrongGuess if the code was used, or the password changed, meanwhile."""
        now = self._core.clock()
        session_id, secret = uuid7(now, self._core.random), self._new_secret()
        row = {
            "session_id": session_id,
            "user_id": user.user_id,
            "login_id": login_id_of(session_id),
            "refresh_hash": secret_hash(secret),
            "created_at": now,
            "renewed_at": now,
            "expires_at": self._refresh_ends(now),
            "peer": context.origin(),
            "user_agent": user_agent[:_LONGEST_USER_AGENT],
            "by_provider": by_provider,
        }
        place, data = context.place(), {"session": login_id_of(session_id), "by_provider": by_provider}
        record = events.prepare(intent="user.login", caller=guesses.as_caller(user), data=data, now=now)

        def operation(connection: Connection) -> bool:
            users = tables.users
            present = connection.scalar(select(users.c.password_hash).where(users.c.user_id == user.user_id))
            if present != user.password_hash or not use_code(connection):
                return False
            connection.execute(delete(_SESSIONS).where(_SESSIONS.c.expires_at <= now))
            connection.execute(insert(_SESSIONS).values(row))
            connection.execute(update(users).where(users.c.user_id == user.user_id).values(last_login_at=now))
            login_rows.forgive(connection, user.username, place)
            record(connection)
            return True

        if not await self._core.store.write(operation):
            raise WrongGuess
        ends = self._refresh_ends(now)
        return self._pair(user.user_id, session_id, secret, now, ends=ends, must_enroll_totp=must_enroll_totp)

    def _pair(
        self,
        user_id: str,
        session_id: str,
        secret: str,
        now: datetime,
        *,
        ends: datetime,
        must_enroll_totp: bool = False,
    ) -> Pair:
        access_ends = (now + timedelta(minutes=self._core.config.access_token_minutes)).replace(microsecond=0)
        claims = Claims(options.CALLER_USER, access_ends, user_id=user_id, session_id=session_id)
        return Pair(self._tokens.issue(claims), access_ends, f"{session_id}.{secret}", ends, must_enroll_totp)

    def _refresh_ends(self, now: datetime) -> datetime:
        return now + timedelta(days=self._core.config.refresh_token_days)

    def _new_secret(self) -> str:
        return base64url(self._core.random(REFRESH_SECRET_BYTES))


def _follows(row: AnyRow, fresh: str, now: datetime) -> bool:
    """Tell whether a session was renewed a moment ago with the token whose successor this is."""
    return compare_digest(row.refresh_hash, secret_hash(fresh)) and now <= row.renewed_at + ANSWERED_AGAIN_FOR


def login_id_of(session_id: str) -> str:
    """Return what people see of a session. Whoever knew the session's id itself could end it at Refresh."""
    return secret_hash(session_id).hex()


def _login(row: AnyRow, session_id: str) -> Login:
    return Login(
        row.login_id,
        row.created_at,
        row.renewed_at,
        row.expires_at,
        row.peer,
        row.user_agent,
        is_current=row.session_id == session_id,
    )
