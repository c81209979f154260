"""API keys: with one, an application acts for a user, within rules that the user has."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from folkmoot.client.admin.resolving import is_id, new_id, user_id
from folkmoot.client.admin.rules import Rule, rule_messages, rules_of
from folkmoot.client.names import moment
from folkmoot.client.session import Session
from folkmoot.trust import FolkmootError
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import errors_pb2

LIFETIME = timedelta(days=90)
"""How long a key is good if nobody says otherwise; a year at most."""


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret."""

    api_key_id: str
    name: str
    user_id: str
    rules: tuple[Rule, ...]
    """What it may do, as far as the user may; empty: all that the user may."""
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    """To the minute; None if it never was."""


@dataclass(frozen=True)
class NewApiKey:
    """A key that was made just now, with its secret, which is told only once."""

    api_key: ApiKey
    secret: str = field(repr=False)


class AsyncApiKeys:
    """The caller's keys; another user's, by name or id, for those who may see or end them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self, name: str, *, rules: Sequence[Rule | str] = (), expires_in: timedelta = LIFETIME
    ) -> NewApiKey:
        """Make a key for a purpose; it may do what `rules` say, or all that the caller may. Raises NAME_TAKEN, NOT_ALLOWED, TOO_MANY."""
        request = auth.CreateApiKeyRequest(
            api_key_id=new_id(),
            name=name,
            rules=rule_messages(rules),
            expires_at=timestamp(datetime.now(UTC) + expires_in),
        )
        answer = await self._session.call(self._session.auth.CreateApiKey, request)
        return NewApiKey(_api_key(answer.api_key), answer.secret)

    async def list(self, *, user: str = "") -> tuple[ApiKey, ...]:
        """The keys, by name."""
        request = auth.ListApiKeysRequest(user_id=await user_id(self._session, user))
        answer = await self._session.call(self._session.auth.ListApiKeys, request)
        return tuple(map(_api_key, answer.api_keys))

    async def delete(self, api_key: str, *, user: str = "") -> None:
        """End a key, by name or id. Raises API_KEY_NOT_FOUND, naming those there are."""
        found = api_key if is_id(api_key) else await self._named(api_key, user)
        await self._session.call(self._session.auth.DeleteApiKey, auth.DeleteApiKeyRequest(api_key_id=found))

    async def _named(self, name: str, user: str) -> str:
        keys = await self.list(user=user)
        for one in keys:
            if one.name == name:
                return one.api_key_id
        raise FolkmootError(
            errors_pb2.ERROR_REASON_API_KEY_NOT_FOUND,
            f"no key is called {name!r}; there are {', '.join(one.name for one in keys) or 'none'}",
        )


def _api_key(message: auth.ApiKey) -> ApiKey:
    return ApiKey(
        api_key_id=message.api_key_id,
        name=message.name,
        user_id=message.user_id,
        rules=rules_of(message.rules),
        created_at=moment(message.created_at),
        expires_at=moment(message.expires_at),
        last_used_at=moment(message.last_used_at) if message.HasField("last_used_at") else None,
    )
