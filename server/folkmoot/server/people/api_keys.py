"""API keys: with one, an application acts for a user, within rules that the user has.

A key is `fmk_ID_SECRET`. The secret is 256 random bits, told once and stored as a hash: nobody guesses it, so that no slow
hash is needed at every call. What a key may do is looked up at each call: what its user may do now, as far as the key may.
Only a person who is logged in makes keys; a key makes no other.
"""

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from folkmoot.server import access, context
from folkmoot.server.audit import events
from folkmoot.server.context import Caller, Rule
from folkmoot.server.core import Core
from folkmoot.server.people import rights, subjects
from folkmoot.server.people.roles import check_meaningful, lacking
from folkmoot.server.store import login_tables, tables
from folkmoot.server.tokens import secret_hash, token_invalid
from folkmoot.transport.validation import invalid
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options

PREFIX = "fmk_"
SECRET_BYTES = 32
LONGEST_LIFE = timedelta(days=366)
MOST_PER_USER = 50
_KEYS = login_tables.api_keys
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret."""

    api_key_id: str
    name: str
    user_id: str
    rules: frozenset[Rule]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = None


class ApiKeys:
    """The API keys of users."""

    def __init__(self, core: Core, forget: Callable[[], None]) -> None:
        self._core = core
        self._forget = forget

    async def create(
        self, *, api_key_id: str, name: str, rules: Iterable[Rule], expires_at: datetime
    ) -> tuple[ApiKey, str]:
        """Make a key of the caller; return it with what to send, which is empty when it is there already."""
        who, now = subjects.logged_in_caller("make an API key"), self._core.clock()
        if not now < expires_at <= now + LONGEST_LIFE:
            raise invalid([("expires_at", "must be in the future, and no more than a year from now")])
        wanted = ApiKey(api_key_id, name, who.user_id, check_meaningful(rules, "rules"), now, expires_at)
        if missing := lacking(wanted.rules, who.rules):
            raise access.not_allowed(f"You lack {access.words(*min(missing))}: a key has no more rules than its user")
        secret = base64.urlsafe_b64encode(self._core.random(SECRET_BYTES)).decode().rstrip("=")
        data = {"api_key_id": api_key_id, "rules": list(rights.in_words(wanted.rules))}
        record = events.prepare(intent="api_key.create", data=data, now=now)

        def operation(connection: Connection) -> tuple[ApiKey, str]:
            known = connection.execute(select(_KEYS).where(_KEYS.c.api_key_id == api_key_id)).one_or_none()
            if known is not None:
                return _same(_api_key(known), wanted), ""
            rights.as_of_now(connection, who)  # a key outlives logins: it is made by one that goes on
            _check_room(connection, wanted)
            connection.execute(insert(_KEYS).values(_row(wanted, secret)))
            record(connection)
            return wanted, f"{PREFIX}{api_key_id}_{secret}"

        return await self._core.store.write(operation)

    async def list(self, user_id: str) -> list[ApiKey]:
        """Return the keys of a user, empty: of the caller, by name; raise USER_NOT_FOUND."""
        who = context.caller()

        def operation(connection: Connection) -> list[ApiKey]:
            owner = subjects.visible(connection, who, user_id, options.OPERATION_VIEW)
            found = select(_KEYS).where(_KEYS.c.user_id == owner).order_by(_KEYS.c.name)
            return [_api_key(row) for row in connection.execute(found)]

        return await self._core.store.read(operation)

    async def delete(self, api_key_id: str) -> None:
        """End a key of the caller, or of a user whom he may edit; raise API_KEY_NOT_FOUND."""
        who = context.caller()
        author = events.author(now=self._core.clock())

        def operation(connection: Connection) -> None:
            owner = connection.scalar(select(_KEYS.c.user_id).where(_KEYS.c.api_key_id == api_key_id))
            is_itself = bool(owner) and api_key_id == who.api_key_id
            if not owner or not (is_itself or subjects.reaches(connection, who, owner, options.OPERATION_EDIT)):
                text = f"There is no API key {api_key_id} of yours, or of a user whom you may edit"
                raise FolkmootError(errors_pb2.ERROR_REASON_API_KEY_NOT_FOUND, text)
            connection.execute(delete(_KEYS).where(_KEYS.c.api_key_id == api_key_id))
            author("api_key.delete", {"api_key_id": api_key_id, "user_id": owner})(connection)

        await self._core.store.write(operation, then=lambda _: self._forget())


# ---- who shows a key -----------------------------------------------------------------------------------------------


def is_one(token: str) -> bool:
    """Tell whether a token has the form of an API key."""
    return token.startswith(PREFIX)


def user_behind(connection: Connection, token: str, now: datetime) -> tuple[Caller, Row[Any]]:
    """Return the user for whom the bearer of a key acts, and the key's row; raise TOKEN_INVALID."""
    api_key_id, _, secret = token.removeprefix(PREFIX).partition("_")
    key = connection.execute(select(_KEYS).where(_KEYS.c.api_key_id == api_key_id)).one_or_none()
    if key is None or not compare_digest(key.secret_hash, secret_hash(secret)) or now >= key.expires_at:
        raise _invalid()
    return _acting(connection, key), key


def user_of_key(connection: Connection, api_key_id: str, now: datetime) -> tuple[Caller, Row[Any]]:
    """Return the same for a key that was shown before; raise TOKEN_INVALID if it has ended since."""
    key = connection.execute(select(_KEYS).where(_KEYS.c.api_key_id == api_key_id)).one_or_none()
    if key is None or now >= key.expires_at:
        raise _invalid()
    return _acting(connection, key), key


def _invalid() -> FolkmootError:
    return token_invalid("The API key is not one of this server's, was deleted, or its time is over.")


def _acting(connection: Connection, key: Row[Any]) -> Caller:
    """Return the user for whom a key acts, within what it may."""
    users, organizations = tables.users, tables.organizations
    user = connection.execute(
        select(users, organizations.c.organization_id)
        .join(organizations, organizations.c.organization_account_id == users.c.organization_account_id)
        .where(users.c.user_id == key.user_id)
    ).one()
    return Caller(
        options.CALLER_USER,
        user_id=user.user_id,
        username=user.username,
        organization_account_id=user.organization_account_id,
        organization_id=user.organization_id or "",
        api_key_id=key.api_key_id,
        rules=restricted(rights.rules_of(connection, user), rights.read_rules(key.rules)),
    )


def restricted(users: frozenset[Rule], keys: frozenset[Rule]) -> frozenset[Rule]:
    """Return what a key may do: what both allow, each as far as the one that reaches less; all if the key names nothing."""
    if not keys:
        return users
    mine, its = _reaches(users), _reaches(keys)
    return frozenset(Rule(*right, min(mine[right], its[right])) for right in mine.keys() & its.keys())


def is_use_told(key: Row[Any], now: datetime) -> bool:
    """Tell whether it is to be noted that a key is used: it is noted to the minute."""
    return key.last_used_at is None or now - key.last_used_at >= _MINUTE


def telling_use(api_key_id: str, now: datetime) -> Callable[[Connection], None]:
    """Return what notes that a key is used."""
    minute = now.replace(second=0, microsecond=0)
    noted = update(_KEYS).where(_KEYS.c.api_key_id == api_key_id).values(last_used_at=minute)

    def operation(connection: Connection) -> None:
        connection.execute(noted)

    return operation


def _reaches(rules: Iterable[Rule]) -> dict[tuple[Any, Any], Any]:
    reaches: dict[tuple[Any, Any], Any] = {}
    for rule in rules:
        right = (rule.resource, rule.operation)
        reaches[right] = max(reaches.get(right, 0), rule.scope)
    return reaches


def _check_room(connection: Connection, wanted: ApiKey) -> None:
    mine = _KEYS.c.user_id == wanted.user_id
    if connection.execute(select(_KEYS.c.name).where(mine, _KEYS.c.name == wanted.name)).first():
        text = f"You have an API key called '{wanted.name}'"
        raise FolkmootError(errors_pb2.ERROR_REASON_NAME_TAKEN, text, metadata={"name": wanted.name})
    if (connection.scalar(select(func.count()).where(mine)) or 0) >= MOST_PER_USER:
        text = f"You have {MOST_PER_USER} API keys: delete one first"
        raise FolkmootError(errors_pb2.ERROR_REASON_TOO_MANY, text)


def _same(known: ApiKey, wanted: ApiKey) -> ApiKey:
    """Return the key that is there; raise ID_TAKEN unless it is the one that is wanted."""
    if (known.user_id, known.name, known.rules, known.expires_at) != (
        wanted.user_id,
        wanted.name,
        wanted.rules,
        wanted.expires_at,
    ):
        text = f"The id {wanted.api_key_id} was used for something else"
        raise FolkmootError(errors_pb2.ERROR_REASON_ID_TAKEN, text)
    return known


def _row(key: ApiKey, secret: str) -> dict[str, object]:
    return {
        "api_key_id": key.api_key_id,
        "user_id": key.user_id,
        "name": key.name,
        "rules": rights.write_rules(key.rules),
        "secret_hash": secret_hash(secret),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
    }


def _api_key(row: Row[Any]) -> ApiKey:
    rules = rights.read_rules(row.rules)
    return ApiKey(row.api_key_id, row.name, row.user_id, rules, row.created_at, row.expires_at, row.last_used_at)
