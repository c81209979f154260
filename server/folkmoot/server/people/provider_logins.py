"""Logins by the OpenID Connect provider: begun here, agreed to there, finished here, once.

What a login needs until then (the PKCE verifier, the nonce, the device's code) is sealed in a row that is known by the hash
of what the client keeps, so that any instance finishes it. Who it is then, `provider_users` says.
"""

import base64
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, func, insert, select, update

from folkmoot.server import context
from folkmoot.server.audit import events
from folkmoot.server.core import Core, try_later
from folkmoot.server.nodes.attempts import Places
from folkmoot.server.people.oidc import Identity, Provider, Refused, unreachable
from folkmoot.server.people.provider_users import user_of_identity
from folkmoot.server.people.sealing import Sealer
from folkmoot.server.people.sessions import Pair, Sessions
from folkmoot.server.store import login_tables
from folkmoot.server.tokens import secret_hash
from folkmoot.transport.channel import is_loopback
from folkmoot.transport.validation import invalid
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

CODE, DEVICE = "code", "device"
CODE_LIFE = timedelta(minutes=10)
LONGEST_LIFE = timedelta(minutes=30)
MOST_OPEN = 10_000
MOST_FROM_ONE_PLACE = 500
"""Logins that are begun within an hour: people of a whole organization come from one address."""
SLOWER_SECONDS = 5
_PENDING, _TOO_FAST = "authorization_pending", "slow_down"
_LOGINS = login_tables.provider_logins


@dataclass(frozen=True, slots=True)
class CodeLogin:
    """A login that was begun in a browser. Who began it keeps `code_login_id`; the browser sees all the rest."""

    authorization_uri: str
    state: str
    code_login_id: str


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login that was begun for another device."""

    device_login_id: str
    verification_uri: str
    verification_uri_complete: str
    user_code: str
    interval_seconds: int
    expires_at: datetime


class ProviderLogins:
    """Logins by the provider."""

    def __init__(self, core: Core, sessions: Sessions, provider: Provider, sealer: Sealer) -> None:
        self._core = core
        self._sessions = sessions
        self._provider = provider
        self._sealer = sealer
        self._places = Places(MOST_FROM_ONE_PLACE)
        self._strangers = events.Strangers()

    # ---- in a browser ----------------------------------------------------------------------------------------------

    async def start_code(self, redirect_uri: str, *, place: str) -> CodeLogin:
        """Return where the browser goes, and what finishes the login; raise NOT_CONFIGURED, PROVIDER_UNREACHABLE, TOO_MANY."""
        self._provider.check_configured()
        if not is_redirect_allowed(redirect_uri, self._core.config.oidc_redirect_uris):
            text = "must be http on a loopback address, or one of the server's setting oidc_redirect_uris"
            raise invalid([("redirect_uri", text)])
        self._places.count(place, self._core.clock())
        code_login_id, state, verifier, nonce = (self._random_text() for _ in range(4))
        uri = await self._provider.authorization_uri(
            redirect_uri=redirect_uri, state=state, verifier=verifier, nonce=nonce
        )
        secret = {"redirect_uri": redirect_uri, "state": state, "verifier": verifier, "nonce": nonce}
        await self._keep(CODE, code_login_id, secret, CODE_LIFE)
        return CodeLogin(uri, state, code_login_id)

    async def finish_code(self, code_login_id: str, state: str, code: str, *, user_agent: str) -> Pair:
        """Return tokens; raise LOGIN_FAILED, NOT_CONFIGURED, PROVIDER_UNREACHABLE. Whatever comes of it, the login ends."""
        self._provider.check_configured()
        begun = await self._core.store.write(lambda connection: self._take(connection, CODE, code_login_id))
        if begun is None or not compare_digest(begun["state"].encode(), state.encode()):
            raise await self._failed("the login was not begun here, was finished, or its time is over")
        try:
            identity = await self._provider.redeem_code(
                code, redirect_uri=begun["redirect_uri"], verifier=begun["verifier"], nonce=begun["nonce"]
            )
        except Refused as refused:
            raise await self._failed(refused.code) from refused
        return await self._open(identity, user_agent)

    # ---- on another device -----------------------------------------------------------------------------------------

    async def start_device(self, *, place: str) -> DeviceLogin:
        """Begin a login on another device; raise NOT_CONFIGURED, PROVIDER_UNREACHABLE, TOO_MANY."""
        self._provider.check_configured()
        self._places.count(place, self._core.clock())
        try:
            grant = await self._provider.begin_device()
        except Refused as refused:
            raise unreachable(refused.code) from refused
        device_login_id = self._random_text()
        secret = {"device_code": grant.device_code}
        expires_at = await self._keep(
            DEVICE, device_login_id, secret, min(grant.life, LONGEST_LIFE), interval_seconds=grant.interval_seconds
        )
        return DeviceLogin(
            device_login_id,
            grant.verification_uri,
            grant.verification_uri_complete,
            grant.user_code,
            grant.interval_seconds,
            expires_at,
        )

    async def finish_device(self, device_login_id: str, *, user_agent: str) -> Pair:
        """Return tokens; raise LOGIN_PENDING, LOGIN_FAILED, NOT_CONFIGURED, PROVIDER_UNREACHABLE."""
        self._provider.check_configured()
        wait, begun = await self._core.store.write(lambda connection: self._ask(connection, device_login_id))
        if wait:
            raise _pending(wait)
        if begun is None:
            raise await self._failed("the login was not begun here, was finished, or its time is over")
        try:
            identity = await self._provider.redeem_device(begun["device_code"])
        except Refused as refused:
            raise await self._not_agreed(device_login_id, refused) from refused
        if await self._core.store.write(lambda connection: self._take(connection, DEVICE, device_login_id)) is None:
            raise await self._failed("the login was finished meanwhile")
        return await self._open(identity, user_agent)

    async def _not_agreed(self, device_login_id: str, refused: Refused) -> FolkmootError:
        """Return what to answer when the provider gives no tokens: not yet, or never."""
        if refused.code not in (_PENDING, _TOO_FAST):
            await self._core.store.write(lambda connection: self._take(connection, DEVICE, device_login_id))
            return await self._failed(refused.code)
        slower = SLOWER_SECONDS if refused.code == _TOO_FAST else 0

        def operation(connection: Connection) -> int:
            mine = _LOGINS.c.login_hash == secret_hash(device_login_id)
            later = update(_LOGINS).where(mine).values(interval_seconds=_LOGINS.c.interval_seconds + slower)
            return connection.scalar(later.returning(_LOGINS.c.interval_seconds)) or SLOWER_SECONDS

        return _pending(timedelta(seconds=await self._core.store.write(operation)))

    # ---- rows ------------------------------------------------------------------------------------------------------

    async def _keep(
        self, kind: str, known_as: str, secret: dict[str, str], life: timedelta, *, interval_seconds: int = 0
    ) -> datetime:
        """Keep what a login needs until it is finished; raise TOO_MANY."""
        now, login_hash = self._core.clock(), secret_hash(known_as)
        sealed = self._sealer.seal(json.dumps(secret).encode(), purpose=kind, owner=login_hash.hex())
        row = {
            "login_hash": login_hash,
            "kind": kind,
            "sealed": sealed,
            "interval_seconds": interval_seconds,
            "expires_at": now + life,
        }

        def operation(connection: Connection) -> None:
            connection.execute(delete(_LOGINS).where(_LOGINS.c.expires_at <= now))
            if (connection.scalar(select(func.count()).select_from(_LOGINS)) or 0) >= MOST_OPEN:
                raise try_later(errors_pb2.ERROR_REASON_TOO_MANY, "Too many logins have been begun", CODE_LIFE)
            connection.execute(insert(_LOGINS).values(row))

        await self._core.store.write(operation)
        return now + life

    def _take(self, connection: Connection, kind: str, known_as: str) -> dict[str, str] | None:
        """Return what a login needs, once; None if it was not begun, was taken, or its time is over."""
        is_it = (_LOGINS.c.login_hash == secret_hash(known_as)) & (_LOGINS.c.kind == kind)
        taken = delete(_LOGINS).where(is_it, _LOGINS.c.expires_at > self._core.clock()).returning(_LOGINS)
        row = connection.execute(taken).one_or_none()
        return None if row is None else self._opened(row)

    def _ask(self, connection: Connection, device_login_id: str) -> tuple[timedelta, dict[str, str] | None]:
        """Return how long to wait before the provider may be asked again, or what a login needs; note that it is asked."""
        now = self._core.clock()
        is_it = (_LOGINS.c.login_hash == secret_hash(device_login_id)) & (_LOGINS.c.kind == DEVICE)
        row = connection.execute(select(_LOGINS).where(is_it, _LOGINS.c.expires_at > now)).one_or_none()
        if row is None:
            return timedelta(), None
        if row.asked_at is not None:
            wait = row.asked_at + timedelta(seconds=row.interval_seconds) - now
            if wait > timedelta():
                return wait, None
        connection.execute(update(_LOGINS).where(is_it).values(asked_at=now))
        return timedelta(), self._opened(row)

    def _opened(self, row: Any) -> dict[str, str]:
        opened = self._sealer.open(row.sealed, purpose=row.kind, owner=row.login_hash.hex())
        secret: dict[str, str] = json.loads(opened)
        return secret

    async def _open(self, identity: Identity, user_agent: str) -> Pair:
        now = self._core.clock()
        user_id, author = uuid7(now, self._core.random), events.author(now=now, caller=context.ANYONE)
        user = await self._core.store.write(
            lambda connection: user_of_identity(
                connection,
                identity,
                new_users_in=self._core.config.oidc_new_users,
                new_user_id=user_id,
                now=now,
                author=author,
            )
        )
        if user is None:
            raise await self._failed("nobody here has that identity, or its verified mail address")
        return await self._sessions.open_by_provider(user, user_agent=user_agent)

    async def _failed(self, why: str) -> FolkmootError:
        """Return the refusal of a login; the cause stands in the log."""
        now = self._core.clock()
        self._core.log.info("login.refused_by_provider", why=why)
        if self._strangers.may_be_recorded(now):
            data = {"by_provider": True}
            record = events.prepare(
                intent="user.login", caller=context.ANYONE, data=data, now=now, outcome="LOGIN_FAILED"
            )
            await self._core.store.write(record)
        text = "The login was not agreed to, has ended, or you are no user of this server: begin anew"
        return FolkmootError(errors_pb2.ERROR_REASON_LOGIN_FAILED, text)

    def _random_text(self) -> str:
        return base64.urlsafe_b64encode(self._core.random(32)).decode().rstrip("=")


def is_redirect_allowed(uri: str, named: str) -> bool:
    """Tell whether the provider may send a browser there: to this machine, or where the settings say."""
    try:
        parts = urlsplit(uri)
        host, has_user = parts.hostname or "", "@" in parts.netloc
    except ValueError:
        return False
    is_local = parts.scheme == "http" and is_loopback(host) and not has_user and not parts.fragment
    return is_local or uri in {each.strip() for each in named.split(",")} - {""}


def _pending(wait: timedelta) -> FolkmootError:
    return try_later(errors_pb2.ERROR_REASON_LOGIN_PENDING, "The person has not agreed yet", wait)
