"""Callers: who the bearer of a token is, and what it may do now.

A bearer shows an access token of a login, an access token of a node, or an API key. Rights are looked up at each call and
remembered for a few seconds; whatever changes rights here has them looked up again at once, and other instances follow
within those seconds. A stream outlives what let it in: whoever serves one asks for its caller as he is now, and is told of changes.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from sqlalchemy import Connection, select

from folkmoot.server.background import Background
from folkmoot.server.context import Caller
from folkmoot.server.core import Core
from folkmoot.server.people import api_keys, rights
from folkmoot.server.store import login_tables, tables
from folkmoot.server.tokens import Claims, Tokens, token_invalid
from folkmoot.server.wakers import RIGHTS_TOPIC
from folkmoot.v1 import options_pb2 as options

REMEMBERED_FOR = timedelta(seconds=5)
MOST_REMEMBERED = 10_000
_USERS = (options.CALLER_USER, options.CALLER_ENROLLING_USER)
_Name: TypeAlias = tuple[str, str]
"""What a caller is remembered by, and of which kind it is: an id is no secret, and whoever shows one is nobody."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    who: Caller
    until: datetime


class Callers:
    """The callers behind tokens."""

    def __init__(self, core: Core, tokens: Tokens, background: Background) -> None:
        self._core = core
        self._background = background
        self._tokens = tokens
        self._remembered: OrderedDict[_Name, _Remembered] = OrderedDict()
        self._forgotten = 0
        self._told: list[Callable[[], None]] = []

    async def caller(self, token: str) -> Caller:
        """Return the bearer of a token, with what it may do now; raise TOKEN_INVALID."""
        return await self._remembering(("bearer", token), lambda now: self._find(token, now))

    async def present(self, who: Caller) -> Caller:
        """Return a caller with what it may do now; raise TOKEN_INVALID if the login or API key has ended by which it called."""
        if who.kind not in _USERS:
            return who
        name = ("session", who.session_id) if who.session_id else ("api key", who.api_key_id)
        return await self._remembering(name, lambda now: self._again(who, now))

    def on_changed(self, told: Callable[[], None]) -> None:
        """Have it called whenever callers' rights are to be looked up again."""
        self._told.append(told)

    async def _remembering(self, name: _Name, find: Callable[[datetime], Awaitable[tuple[Caller, datetime]]]) -> Caller:
        """Return the caller of that name, as `find` tells; it tells also until when that is good."""
        now = self._core.clock()
        remembered = self._remembered.get(name)
        if remembered is not None and now < remembered.until:
            return remembered.who
        forgotten = self._forgotten
        who, ends = await find(now)
        if forgotten == self._forgotten:  # else rights changed while they were looked up
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.popitem(last=False)
            self._remembered[name] = _Remembered(who, min(now + REMEMBERED_FOR, ends))
        return who

    def listening(self) -> AbstractContextManager[None]:
        """Follow what other instances of the server say about rights as long as this context lasts."""
        return self._core.waker.listen(RIGHTS_TOPIC, self.forget_here)

    def forget(self) -> None:
        """Look every caller's rights up again, in all instances of the server."""
        self.forget_here()
        self._core.waker.wake([RIGHTS_TOPIC])

    def forget_here(self) -> None:
        """Look every caller's rights up again, in this instance."""
        self._remembered.clear()
        self._forgotten += 1
        for told in self._told:
            told()

    async def _find(self, token: str, now: datetime) -> tuple[Caller, datetime]:
        """Return who it is, and until when the token is good."""
        if api_keys.is_one(token):
            return await self._by_api_key(token, now)
        claims = self._tokens.read(token, now)
        if claims.kind != options.CALLER_USER:
            return await self._node_behind(claims), claims.expires_at
        return await self._by_session(claims.session_id, now), claims.expires_at

    async def _again(self, who: Caller, now: datetime) -> tuple[Caller, datetime]:
        """Return who it is now, and until when that is good."""
        if who.session_id:
            return await self._by_session(who.session_id, now), now + REMEMBERED_FOR
        key_id = who.api_key_id
        found, key = await self._core.store.read(lambda connection: api_keys.user_of_key(connection, key_id, now))
        return found, key.expires_at

    async def _by_session(self, session_id: str, now: datetime) -> Caller:
        demands_totp = self._core.config.totp_is_required
        return await self._core.store.read(
            lambda connection: _user_behind(connection, session_id, now, demands_totp=demands_totp)
        )

    async def _by_api_key(self, token: str, now: datetime) -> tuple[Caller, datetime]:
        who, key = await self._core.store.read(lambda connection: api_keys.user_behind(connection, token, now))
        if api_keys.is_use_told(key, now):
            told = self._core.store.write(api_keys.telling_use(key.api_key_id, now))
            self._background.begin(told, "api_key.use")
        return who, key.expires_at

    async def _node_behind(self, claims: Claims) -> Caller:
        """Return the machine. Whether it is admitted now, the ledger says, which is in memory from here on."""
        await self._core.ledgers.state(claims.genesis)
        return Caller(
            claims.kind, node_id=claims.node_id, organization_id=claims.organization_id, genesis=claims.genesis
        )


def _user_behind(connection: Connection, session_id: str, now: datetime, *, demands_totp: bool) -> Caller:
    sessions, users, organizations, totp = tables.sessions, tables.users, tables.organizations, login_tables.totp
    row = connection.execute(
        select(users, organizations.c.organization_id, sessions.c.by_provider, totp.c.confirmed_at)
        .join(sessions, sessions.c.user_id == users.c.user_id)
        .join(organizations, organizations.c.organization_account_id == users.c.organization_account_id)
        .join(totp, totp.c.user_id == users.c.user_id, isouter=True)
        .where(sessions.c.session_id == session_id, sessions.c.expires_at > now)
    ).one_or_none()
    if row is None:
        raise token_invalid("The login was ended.")
    is_enrolling = demands_totp and not row.by_provider and row.confirmed_at is None
    return Caller(
        options.CALLER_ENROLLING_USER if is_enrolling else options.CALLER_USER,
        user_id=row.user_id,
        username=row.username,
        organization_account_id=row.organization_account_id,
        organization_id=row.organization_id or "",
        session_id=session_id,
        rules=frozenset() if is_enrolling else rights.rules_of(connection, row),
    )
