"""What a user logs in with: name and password with or without a second factor, an API key, or a login at an identity provider.

    Client(..., username="ada", password="...", totp_code=lambda: input("Code: "))
    Client(..., api_key="...")                       # or FOLKMOOT_API_KEY in the environment
    Client(..., login=CodeLogin())                   # folkmoot.client.provider: in a browser, or on another device

Nothing here is stored, and nothing of it stands in a message or a log.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from folkmoot.client.session import Session
from folkmoot.transport import RemoteError
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import LoginRequest, LoginResponse, RefreshRequest, Tokens

log = logging.getLogger("folkmoot.client")

API_KEY_VARIABLE = "FOLKMOOT_API_KEY"

TotpCode = str | Callable[[], str]
"""The present code of a second factor, or what asks for it when the server does."""


class Credentials(Protocol):
    """What gives tokens."""

    async def tokens(self, session: Session, /, *, refused: Tokens | None) -> Tokens:
        """New tokens; `refused` are those that the server no longer takes, None at first. Raises what the server says."""


@dataclass(frozen=True)
class PasswordLogin:
    """A user's name and password, and the code of the second factor if the server asks for one."""

    username: str
    password: str = field(repr=False)
    totp_code: TotpCode | None = field(default=None, repr=False)

    async def tokens(self, session: Session, *, refused: Tokens | None) -> Tokens:
        """Renew the login, or begin one. Raises LOGIN_FAILED, LOCKED_OUT, TOTP_REQUIRED if there is no code to give."""
        return await refreshed(session, refused) or await self._login(session)

    async def _login(self, session: Session) -> Tokens:
        request = LoginRequest(username=self.username, password=self.password)
        try:
            answer = await session.call_anonymously(session.auth.Login, request)
        except RemoteError as error:
            if error.reason != errors_pb2.ERROR_REASON_TOTP_REQUIRED or self.totp_code is None:
                raise
            request.totp_code = self.totp_code if isinstance(self.totp_code, str) else self.totp_code()
            answer = await session.call_anonymously(session.auth.Login, request)
        return _entered(answer)


@dataclass(frozen=True)
class ApiKey:
    """A key with which an application acts for a user."""

    secret: str = field(repr=False)

    async def tokens(self, _session: Session, *, refused: Tokens | None) -> Tokens:
        """The key itself. Raises TOKEN_INVALID once the server has refused it: another attempt would not help."""
        if refused is not None:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_TOKEN_INVALID,
                "the server does not take this API key: it is mistyped, was deleted, or has expired. "
                "Make another one: `folkmoot api-key create`",
            )
        return Tokens(access_token=self.secret)


_ENDED = (errors_pb2.ERROR_REASON_TOKEN_INVALID, errors_pb2.ERROR_REASON_INVALID_FIELD)
"""What a server says of a refresh token that is none any more, or never was."""


async def refreshed(session: Session, tokens: Tokens | None) -> Tokens | None:
    """Tokens for a refresh token; None if there is none, or the server takes it no more: a new login is needed.

    Raises what else the server says: one that has a fault, or too much to do, has ended no login.
    """
    if tokens is None or not tokens.refresh_token:
        return None
    request = RefreshRequest(refresh_token=tokens.refresh_token)
    try:
        return (await session.call_anonymously(session.auth.Refresh, request)).tokens
    except RemoteError as error:
        if error.reason in _ENDED:
            return None
        raise


def credentials_of(
    *,
    username: str = "",
    password: str = "",
    totp_code: TotpCode | None = None,
    api_key: str = "",
    login: Credentials | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Credentials | None:
    """What a caller gave to log in with; the API key of the environment if that is nothing, None if there is none either.

    Raises INVALID_FIELD for two ways at once, and for half of one.
    """
    given = [name for name, value in (("username", username), ("api_key", api_key), ("login", login)) if value]
    if len(given) > 1:
        raise _wrong("login", f"give one way to log in, not {' and '.join(given)}")
    if bool(username) != bool(password):
        raise _wrong("password" if username else "username", "username and password belong together")
    if username:
        return PasswordLogin(username, password, totp_code)
    if login is not None:
        return login
    secret = api_key or environment.get(API_KEY_VARIABLE, "")
    return ApiKey(secret) if secret else None


def _entered(answer: LoginResponse) -> Tokens:
    if answer.must_enroll_totp:
        log.warning(
            "this server demands a second factor, and takes nothing else from you until you have set one up: "
            "`folkmoot account totp enroll`, or client.account.enroll_totp"
        )
    return answer.tokens


def _wrong(field_name: str, text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((field_name, text),))
