"""New passwords, and second factors that are lost.

Who knows the password changes it. Who has lost it, or the second factor, gets a token by mail: 256 random bits, stored as a
hash, good once, for one purpose, for an hour. A mailbox alone never opens an account that has a second factor: a mailed
token removes the factor only together with the password, and only with a password that the mailbox alone has not set.

What anybody may ask for by a name is answered before it is looked up, so that neither answer nor time tells who exists.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Update, case, delete, func, insert, or_, select, update

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.core import Core
from folkmoot.server.nodes.attempts import Places
from folkmoot.server.people import accounts, subjects
from folkmoot.server.people.guesses import AnyRow, Guesses
from folkmoot.server.people.mail import Letter, Mail
from folkmoot.server.people.passwords import Passwords, check_strength
from folkmoot.server.store import login_rows, login_tables, tables
from folkmoot.server.tokens import secret_hash
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

LIFE = timedelta(minutes=60)
MOST_PER_USER = 3
"""Mails for one purpose that a user gets while a token lives. Who asks for more gets the same answer, and no mail."""
TOKEN_BYTES = 32
PASSWORD, TOTP = "password", "totp"
_TOKENS, _TOTP, _USERS = login_tables.reset_tokens, login_tables.totp, tables.users


@dataclass(frozen=True, slots=True)
class _Mailed:
    """A token that is to be mailed."""

    token: str
    username: str
    email: str


class Resets:
    """Gives users new passwords, and takes lost second factors from them."""

    def __init__(
        self, core: Core, guesses: Guesses, passwords: Passwords, mail: Mail, forget: Callable[[], None]
    ) -> None:
        self._core = core
        self._guesses = guesses
        self._passwords = passwords
        self._mail = mail
        self._forget = forget
        self._places = Places()

    # ---- passwords -------------------------------------------------------------------------------------------------

    async def change_password(self, old: str, new: str) -> None:
        """Change the caller's password and end its other sessions; raise LOGIN_FAILED, LOCKED_OUT, PASSWORD_WEAK."""
        who = subjects.logged_in_caller("change the password")
        async with self._guesses.turn(who.username, "user.change_password") as known:
            user = await known.check_password(old)
        hashed = await self._hash(new, user)
        record = events.prepare(
            intent="user.change_password", data={"user_id": who.user_id}, now=(now := self._core.clock())
        )

        def operation(connection: Connection) -> None:
            connection.execute(_setting_password(who.user_id, hashed))
            login_rows.end_sessions(connection, who.user_id, but=who.session_id)
            accounts.end_resets(connection, who.user_id, now)
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())

    def request_password_reset(self, username_or_email: str, *, place: str) -> None:
        """Have a token mailed, if there is such a user with an address; raise NOT_CONFIGURED, TOO_MANY."""
        self._mail.check_configured()
        now = self._core.clock()
        self._places.count(place, now)
        address = accounts.mail_address(username_or_email)
        is_meant = or_(_USERS.c.username == username_or_email, _USERS.c.email == address)
        # Who logs in at the provider alone has no password, and gets none by mail: his second factor is there.
        is_meant &= _USERS.c.password_hash != accounts.NO_PASSWORD

        async def write() -> Letter | None:
            mailed = await self._core.store.write(self._making(PASSWORD, is_meant, username_or_email, now))
            return self._letter(mailed, "a new password", "folkmoot account reset-password", "your password stays")

        self._mail.post(write)

    async def reset_password(self, token: str, new: str) -> None:
        """Set a password with a mailed token; raise RESET_TOKEN_INVALID, PASSWORD_WEAK."""
        user = await self._user_of(token, PASSWORD)
        hashed = await self._hash(new, user)
        now = self._core.clock()
        record = events.prepare(intent="user.reset_password", data={"user_id": user.user_id}, now=now)

        def operation(connection: Connection) -> None:
            _use(connection, token, PASSWORD, now)
            connection.execute(_setting_password(user.user_id, hashed).values(email_is_vouched=True))
            connection.execute(update(_TOTP).where(_TOTP.c.user_id == user.user_id).values(password_is_mailed=True))
            accounts.end_logins(connection, user.user_id)
            accounts.end_resets(connection, user.user_id, now)
            login_rows.forgive_all(connection, user.username)
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())

    # ---- second factors --------------------------------------------------------------------------------------------

    async def request_totp_reset(self, username: str, password: str) -> None:
        """Have a token mailed to who knows the password; raise LOGIN_FAILED, LOCKED_OUT, NOT_CONFIGURED, TOO_MANY."""
        self._mail.check_configured()
        async with self._guesses.turn(username, "user.request_totp_reset") as known:
            user = await known.check_password(password)
        now = self._core.clock()
        # Who has no factor, or a password that the mailbox alone has set, gets the same answer and no mail.
        may = (_TOTP.c.user_id == user.user_id) & _TOTP.c.confirmed_at.is_not(None) & ~_TOTP.c.password_is_mailed
        is_meant = (_USERS.c.user_id == user.user_id) & _USERS.c.user_id.in_(select(_TOTP.c.user_id).where(may))

        async def write() -> Letter | None:
            mailed = await self._core.store.write(self._making(TOTP, is_meant, username, now))
            return self._letter(mailed, "no second factor", "folkmoot account totp reset", "your factor stays")

        self._mail.post(write)

    async def reset_totp(self, token: str, password: str) -> None:
        """Remove a second factor with a mailed token and the password; raise RESET_TOKEN_INVALID, LOGIN_FAILED, LOCKED_OUT."""
        user = await self._user_of(token, TOTP)
        async with self._guesses.turn(user.username, "user.reset_totp") as known:
            await known.check_password(password)
        now = self._core.clock()
        record = events.prepare(intent="user.reset_totp", data={"user_id": user.user_id}, now=now)

        def operation(connection: Connection) -> None:
            _use(connection, token, TOTP, now)
            mine = select(_TOTP.c.password_is_mailed).where(_TOTP.c.user_id == user.user_id)
            if connection.scalar(mine) is not False:
                raise _token_invalid()
            accounts.remove_totp(connection, user.user_id)
            accounts.end_logins(connection, user.user_id)
            accounts.end_resets(connection, user.user_id, now)
            record(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())

    # ---- tokens ----------------------------------------------------------------------------------------------------

    def _making(
        self, purpose: str, is_meant: ColumnElement[bool], name: str, now: datetime
    ) -> Callable[[Connection], _Mailed | None]:
        """Return what makes a token for the user who is meant, unless there is none, or he had enough."""
        token = base64.urlsafe_b64encode(self._core.random(TOKEN_BYTES)).decode().rstrip("=")
        author = events.author(now=now, caller=context.ANYONE)
        # Somebody's name may be another's address: whose mailbox it is for certain wins, then the name.
        is_proven = (_USERS.c.email == accounts.mail_address(name)) & _USERS.c.email_is_vouched
        in_order = case((is_proven, 0), (_USERS.c.username == name, 1), else_=2)

        def operation(connection: Connection) -> _Mailed | None:
            user = connection.execute(select(_USERS).where(is_meant).order_by(in_order)).first()
            if user is None or not user.email:
                return None
            connection.execute(delete(_TOKENS).where(_TOKENS.c.expires_at <= now))
            same = (_TOKENS.c.user_id == user.user_id) & (_TOKENS.c.purpose == purpose)
            if (connection.scalar(select(func.count()).where(same)) or 0) >= MOST_PER_USER:
                return None
            row = {"user_id": user.user_id, "purpose": purpose, "created_at": now, "expires_at": now + LIFE}
            connection.execute(insert(_TOKENS).values(token_hash=secret_hash(token), **row))
            author(f"user.request_{purpose}_reset", {"user_id": user.user_id})(connection)
            return _Mailed(token, user.username, user.email)

        return operation

    async def _user_of(self, token: str, purpose: str) -> AnyRow:
        """Return the user to whom a token was mailed; raise RESET_TOKEN_INVALID."""
        is_good = _is_good(token, purpose, self._core.clock())
        found = select(_USERS).join(_TOKENS, _TOKENS.c.user_id == _USERS.c.user_id).where(is_good)
        user = await self._core.store.read(lambda connection: connection.execute(found).one_or_none())
        if user is None:
            raise _token_invalid()
        return user

    async def _hash(self, password: str, user: AnyRow) -> str:
        """Return the hash of a new password of the user; raise PASSWORD_WEAK."""
        account_id: str = user.organization_account_id
        account = await self._core.store.read(lambda connection: accounts.find_organization(connection, account_id))
        organization = account.name if account else ""
        check_strength(password, user.username, user.email or "", user.first_name, user.last_name, organization)
        async with self._passwords.slot():
            return await self._passwords.make(password)

    def _letter(self, mailed: _Mailed | None, wish: str, command: str, else_: str) -> Letter | None:
        if mailed is None:
            return None
        server = self._core.config.public_url
        text = f"""Somebody, probably you, asked for {wish} for the user {mailed.username} at {server}.

If it was you, give this token to `{command}`. It is good once, for an hour:

{mailed.token}

If it was not you, do nothing: {else_} as it is.
"""
        return Letter(mailed.email, f"Folkmoot: {wish}", text)


def _setting_password(user_id: str, hashed: str) -> Update:
    return update(_USERS).where(_USERS.c.user_id == user_id).values(password_hash=hashed)


def _is_good(token: str, purpose: str, now: datetime) -> ColumnElement[bool]:
    is_it = (_TOKENS.c.token_hash == secret_hash(token)) & (_TOKENS.c.purpose == purpose)
    return is_it & _TOKENS.c.used_at.is_(None) & (_TOKENS.c.expires_at > now)


def _use(connection: Connection, token: str, purpose: str, now: datetime) -> None:
    """Use a token up; raise RESET_TOKEN_INVALID if somebody did before."""
    if connection.execute(update(_TOKENS).where(_is_good(token, purpose, now)).values(used_at=now)).rowcount != 1:
        raise _token_invalid()


def _token_invalid() -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_RESET_TOKEN_INVALID,
        "The token is not one that was mailed for this, was used before, or its hour is over",
    )
