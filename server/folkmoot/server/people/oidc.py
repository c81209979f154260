"""The OpenID Connect provider at which people log in: what is asked of it, and how its answers are checked.

OpenID Connect Core 1.0 with PKCE (RFC 7636), and the device authorization grant (RFC 8628). An id_token counts only if the
provider's keys have signed it, for this server, for the login that was begun, and its time is not over. Who somebody is, is
issuer and subject; a mail address counts only if the provider says that it has verified it.

Nothing is asked at the server's start: a provider that can't be reached keeps people from logging in there, and nothing else.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any

import jwt

from folkmoot.server import libraries
from folkmoot.server.config import Config
from folkmoot.server.core import Clock
from folkmoot.server.people.accounts import mail_address
from folkmoot.transport.timeouts import CALL_SECONDS
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

SCOPE = "openid email profile"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Those of which the provider alone has the key that signs."""
DISCOVERY_LIFE = timedelta(hours=1)
KEYS_REST = timedelta(minutes=1)
"""How often keys are fetched again for an id_token whose key is not among them: anybody can name one."""
CLOCK_SKEW_SECONDS = 60
_DISCOVERY = "/.well-known/openid-configuration"
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_CLIENT = "authlib.integrations.httpx_client"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, as the provider says."""

    issuer: str
    subject: str
    email: str
    """In lower case; empty unless the provider has verified it."""


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """A login that was begun for another device."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    interval_seconds: int
    life: timedelta


class Refused(Exception):  # noqa: N818 -- it is an answer
    """The provider refuses; `code` is its word for why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Provider:
    """The provider of this server's settings."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._issuer = config.oidc_issuer
        self._client_id = config.oidc_client_id
        secret_file = config.oidc_client_secret_file
        self._secret = secret_file.read_text().strip() if secret_file else None
        self._clock = clock
        self._discovered: tuple[datetime, Mapping[str, Any]] | None = None
        self._keys: jwt.PyJWKSet | None = None
        self._keys_fetched_at: datetime | None = None
        if self._issuer:
            libraries.require("authlib", "httpx2", setting="oidc_issuer", extra="oidc")

    def check_configured(self) -> None:
        """Raise NOT_CONFIGURED if there is none."""
        if not self._issuer:
            text = "This server knows no OpenID Connect provider: log in with user name and password"
            raise FolkmootError(errors_pb2.ERROR_REASON_NOT_CONFIGURED, text)

    # ---- authorization code ----------------------------------------------------------------------------------------

    async def authorization_uri(self, *, redirect_uri: str, state: str, verifier: str, nonce: str) -> str:
        """Return where the browser goes; raise PROVIDER_UNREACHABLE."""
        async with self._client(redirect_uri) as client:
            endpoint = await self._endpoint(client, "authorization_endpoint")
            uri, _ = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, nonce=nonce)
            return str(uri)

    async def redeem_code(self, code: str, *, redirect_uri: str, verifier: str, nonce: str) -> Identity:
        """Return who logged in; raise Refused, PROVIDER_UNREACHABLE."""
        async with self._client(redirect_uri) as client:
            endpoint = await self._endpoint(client, "token_endpoint")
            tokens = await client.fetch_token(
                endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
            )
            return await self._identity(client, tokens, nonce)

    # ---- another device --------------------------------------------------------------------------------------------

    async def begin_device(self) -> DeviceGrant:
        """Begin a login on another device; raise Refused, PROVIDER_UNREACHABLE."""
        async with self._client() as client:
            endpoint = await self._endpoint(client, "device_authorization_endpoint")
            answer = await client.post(
                endpoint,
                data={"client_id": self._client_id, "scope": SCOPE},
                auth=client.client_auth(client.token_endpoint_auth_method),
            )
            grant = _read(answer)
            if "error" in grant:
                raise Refused(str(grant["error"]))
            return DeviceGrant(
                device_code=str(grant["device_code"]),
                user_code=str(grant["user_code"]),
                verification_uri=str(grant["verification_uri"]),
                verification_uri_complete=str(grant.get("verification_uri_complete", "")),
                interval_seconds=max(1, int(grant.get("interval", 5))),
                life=timedelta(seconds=int(grant["expires_in"])),
            )

    async def redeem_device(self, device_code: str) -> Identity:
        """Return who logged in; raise Refused, also while the person has not agreed, PROVIDER_UNREACHABLE."""
        async with self._client() as client:
            endpoint = await self._endpoint(client, "token_endpoint")
            tokens = await client.fetch_token(endpoint, grant_type=_DEVICE_GRANT, device_code=device_code)
            return await self._identity(client, tokens, nonce=None)

    # ---- what the provider says ------------------------------------------------------------------------------------

    async def _identity(self, client: Any, tokens: Mapping[str, Any], nonce: str | None) -> Identity:
        claims = await self._verified(client, str(tokens.get("id_token", "")), nonce)
        about = claims
        if "email" not in claims:
            endpoint = await self._endpoint(client, "userinfo_endpoint")
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            about = _read(await client.get(endpoint, headers=bearer, auth=None))
            if about.get("sub") != claims["sub"]:
                raise Refused("another subject at the userinfo endpoint")
        is_verified = about.get("email_verified") in (True, "true")
        return Identity(claims["iss"], claims["sub"], mail_address(str(about.get("email", ""))) if is_verified else "")

    async def _verified(self, client: Any, id_token: str, nonce: str | None) -> dict[str, Any]:
        """Return what an id_token says; raise Refused unless it is the provider's, for us, for this login, and now."""
        try:
            key = await self._key(client, jwt.get_unverified_header(id_token).get("kid"))
            claims: dict[str, Any] = jwt.decode(
                id_token,
                key,
                algorithms=ALGORITHMS,
                audience=self._client_id,
                issuer=self._issuer,
                leeway=CLOCK_SKEW_SECONDS,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(f"the id_token: {error}") from error
        # Who is named beside others as the one that it is for is also named as the one that asked for it.
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if several else self._client_id) != self._client_id:
            raise Refused("the id_token is for somebody else")
        if nonce is not None and not compare_digest(str(claims.get("nonce", "")), nonce):
            raise Refused("the id_token is of another login")
        return claims

    async def _key(self, client: Any, key_id: str | None) -> jwt.PyJWK:
        """Return the provider's key of that name, looking for new ones if there is none."""
        now = self._clock()
        found = _find(self._keys, key_id)
        if found is None and (self._keys_fetched_at is None or now - self._keys_fetched_at >= KEYS_REST):
            answer = await client.get(await self._endpoint(client, "jwks_uri"), auth=None)
            self._keys, self._keys_fetched_at = jwt.PyJWKSet.from_dict(_read(answer)), now
            found = _find(self._keys, key_id)
        if found is None:
            raise Refused("the id_token is signed with a key that is not the provider's")
        return found

    async def _endpoint(self, client: Any, name: str) -> str:
        """Return an address of the provider."""
        now = self._clock()
        if self._discovered is None or now - self._discovered[0] >= DISCOVERY_LIFE:
            found = _read(await client.get(self._issuer.rstrip("/") + _DISCOVERY, auth=None))
            if found.get("issuer") != self._issuer:
                raise unreachable(f"the provider calls itself {found.get('issuer')}, and not {self._issuer}")
            self._discovered = now, found
        endpoint = self._discovered[1].get(name)
        if not endpoint:
            raise unreachable(f"the provider has no {name}")
        return str(endpoint)

    @asynccontextmanager
    async def _client(self, redirect_uri: str | None = None) -> AsyncIterator[Any]:
        """Open a client; what goes wrong with it leaves as Refused or PROVIDER_UNREACHABLE."""
        # Takes as long as the server's start: in a thread, so that others are served meanwhile.
        library = await asyncio.to_thread(importlib.import_module, _CLIENT)
        http = await asyncio.to_thread(importlib.import_module, "httpx2")
        try:
            async with library.AsyncOAuth2Client(
                self._client_id,
                self._secret,
                token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
                scope=SCOPE,
                redirect_uri=redirect_uri,
                code_challenge_method="S256",
                timeout=CALL_SECONDS,
            ) as client:
                yield client
        except library.OAuthError as error:
            raise Refused(str(error.error)) from error
        except (http.HTTPError, http.InvalidURL, ValueError, KeyError) as error:
            raise unreachable(f"{type(error).__name__}: {error}") from error


def unreachable(why: str) -> FolkmootError:
    """Return the error of a provider that does not answer as it should."""
    return FolkmootError(
        errors_pb2.ERROR_REASON_PROVIDER_UNREACHABLE, f"The OpenID Connect provider does not answer as it should: {why}"
    )


def _read(answer: Any) -> dict[str, Any]:
    """Return what an answer says; raise ValueError if it is no object in JSON."""
    found = answer.json()
    if not isinstance(found, dict):
        raise ValueError("no object in JSON")  # noqa: TRY004 -- it is the provider that is wrong
    return found


def _find(keys: jwt.PyJWKSet | None, key_id: str | None) -> jwt.PyJWK | None:
    signing = [key for key in (keys.keys if keys else []) if key.public_key_use in (None, "sig")]
    if key_id is None:
        return signing[0] if len(signing) == 1 else None
    return next((key for key in signing if key.key_id == key_id), None)
