"""AuthService: who is calling."""

from collections.abc import Iterable
from typing import Any

import grpc.aio

from folkmoot.server import context
from folkmoot.server.authentication import NodeAuthentication
from folkmoot.server.context import Rule
from folkmoot.server.core import Core
from folkmoot.server.nonces import Nonces
from folkmoot.server.peers import place_of
from folkmoot.server.people import accounts, registration
from folkmoot.server.people.accounts import Organization, User
from folkmoot.server.people.api_keys import ApiKey
from folkmoot.server.people.logins import Logins
from folkmoot.server.people.sessions import Login, Pair
from folkmoot.server.people.setup import Setup
from folkmoot.trust.encoding import timestamp
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class AuthService(AuthServiceServicer):
    """Gives out tokens."""

    def __init__(self, core: Core, setup: Setup, logins: Logins, nonces: Nonces, nodes: NodeAuthentication) -> None:
        self._core = core
        self._setup = setup
        self._logins = logins
        self._nonces = nonces
        self._nodes = nodes

    async def CompleteSetup(self, request: auth.CompleteSetupRequest, _rpc: Context) -> auth.CompleteSetupResponse:
        user = await self._setup.complete(
            token=request.setup_token,
            username=request.username,
            password=request.password,
            organization_name=request.organization_name,
        )
        return auth.CompleteSetupResponse(user_id=user.user_id, organization_account_id=user.organization_account_id)

    # ---- logins ----------------------------------------------------------------------------------------------------

    async def Login(self, request: auth.LoginRequest, rpc: Context) -> auth.LoginResponse:
        pair = await self._logins.sessions.log_in(
            request.username, request.password, request.totp_code, user_agent=_user_agent(rpc)
        )
        return auth.LoginResponse(tokens=_tokens(pair), must_enroll_totp=pair.must_enroll_totp)

    async def Refresh(self, request: auth.RefreshRequest, _rpc: Context) -> auth.RefreshResponse:
        return auth.RefreshResponse(tokens=_tokens(await self._logins.sessions.refresh(request.refresh_token)))

    async def Logout(self, _request: auth.LogoutRequest, _rpc: Context) -> auth.LogoutResponse:
        await self._logins.sessions.log_out()
        return auth.LogoutResponse()

    async def ListLogins(self, request: auth.ListLoginsRequest, _rpc: Context) -> auth.ListLoginsResponse:
        found = await self._logins.sessions.list_logins(request.user_id)
        return auth.ListLoginsResponse(logins=[_login(login) for login in found])

    async def EndLogins(self, request: auth.EndLoginsRequest, _rpc: Context) -> auth.EndLoginsResponse:
        return auth.EndLoginsResponse(ended=await self._logins.sessions.end_logins(request.user_id, request.login_id))

    async def WhoAmI(self, _request: auth.WhoAmIRequest, _rpc: Context) -> auth.WhoAmIResponse:
        who = context.caller()
        return auth.WhoAmIResponse(
            caller=who.kind,
            user_id=who.user_id,
            username=who.username,
            node_id=who.node_id,
            organization_account_id=who.organization_account_id,
            organization_id=who.organization_id,
            rules=_rules(who.rules),
        )

    # ---- passwords and second factors ------------------------------------------------------------------------------

    async def ChangePassword(self, request: auth.ChangePasswordRequest, _rpc: Context) -> auth.ChangePasswordResponse:
        await self._logins.resets.change_password(request.old_password, request.new_password)
        return auth.ChangePasswordResponse()

    async def RequestPasswordReset(
        self, request: auth.RequestPasswordResetRequest, _rpc: Context
    ) -> auth.RequestPasswordResetResponse:
        self._logins.resets.request_password_reset(request.username_or_email, place=place_of(context.origin()))
        return auth.RequestPasswordResetResponse()

    async def ResetPassword(self, request: auth.ResetPasswordRequest, _rpc: Context) -> auth.ResetPasswordResponse:
        await self._logins.resets.reset_password(request.reset_token, request.new_password)
        return auth.ResetPasswordResponse()

    async def EnrollTotp(self, request: auth.EnrollTotpRequest, _rpc: Context) -> auth.EnrollTotpResponse:
        begun = await self._logins.factors.enroll(request.password)
        return auth.EnrollTotpResponse(secret=begun.secret, uri=begun.uri, qr_code=begun.qr_code)

    async def ConfirmTotp(self, request: auth.ConfirmTotpRequest, _rpc: Context) -> auth.ConfirmTotpResponse:
        await self._logins.factors.confirm(request.totp_code)
        return auth.ConfirmTotpResponse()

    async def RequestTotpReset(
        self, request: auth.RequestTotpResetRequest, _rpc: Context
    ) -> auth.RequestTotpResetResponse:
        await self._logins.resets.request_totp_reset(request.username, request.password)
        return auth.RequestTotpResetResponse()

    async def ResetTotp(self, request: auth.ResetTotpRequest, _rpc: Context) -> auth.ResetTotpResponse:
        await self._logins.resets.reset_totp(request.reset_token, request.password)
        return auth.ResetTotpResponse()

    # ---- API keys --------------------------------------------------------------------------------------------------

    async def CreateApiKey(self, request: auth.CreateApiKeyRequest, _rpc: Context) -> auth.CreateApiKeyResponse:
        key, secret = await self._logins.api_keys.create(
            api_key_id=request.api_key_id,
            name=request.name,
            rules=[Rule(rule.resource, rule.operation, rule.scope) for rule in request.rules],
            expires_at=moment_at(nanoseconds(request.expires_at)),
        )
        return auth.CreateApiKeyResponse(api_key=_api_key(key), secret=secret)

    async def ListApiKeys(self, request: auth.ListApiKeysRequest, _rpc: Context) -> auth.ListApiKeysResponse:
        found = await self._logins.api_keys.list(request.user_id)
        return auth.ListApiKeysResponse(api_keys=[_api_key(key) for key in found])

    async def DeleteApiKey(self, request: auth.DeleteApiKeyRequest, _rpc: Context) -> auth.DeleteApiKeyResponse:
        await self._logins.api_keys.delete(request.api_key_id)
        return auth.DeleteApiKeyResponse()

    # ---- registration ----------------------------------------------------------------------------------------------

    async def RegisterOrganization(
        self, request: auth.RegisterOrganizationRequest, _rpc: Context
    ) -> auth.RegisterOrganizationResponse:
        now = self._core.clock()
        account = Organization(
            organization_account_id=request.organization_account_id, name=request.name, created_at=now
        )
        user = User(
            user_id=request.user_id,
            username=request.username,
            organization_account_id=account.organization_account_id,
            created_at=now,
            roles=(registration.ROLE,),
            email=accounts.mail_address(request.email),
        )
        await self._logins.registration.register(account, user, request.password, place=place_of(context.origin()))
        return auth.RegisterOrganizationResponse()

    # ---- the OpenID Connect provider -------------------------------------------------------------------------------

    async def StartCodeLogin(self, request: auth.StartCodeLoginRequest, _rpc: Context) -> auth.StartCodeLoginResponse:
        begun = await self._logins.provider.start_code(request.redirect_uri, place=place_of(context.origin()))
        return auth.StartCodeLoginResponse(
            authorization_uri=begun.authorization_uri, state=begun.state, code_login_id=begun.code_login_id
        )

    async def FinishCodeLogin(self, request: auth.FinishCodeLoginRequest, rpc: Context) -> auth.FinishCodeLoginResponse:
        pair = await self._logins.provider.finish_code(
            request.code_login_id, request.state, request.code, user_agent=_user_agent(rpc)
        )
        return auth.FinishCodeLoginResponse(tokens=_tokens(pair))

    async def StartDeviceLogin(
        self, _request: auth.StartDeviceLoginRequest, _rpc: Context
    ) -> auth.StartDeviceLoginResponse:
        begun = await self._logins.provider.start_device(place=place_of(context.origin()))
        return auth.StartDeviceLoginResponse(
            device_login_id=begun.device_login_id,
            verification_uri=begun.verification_uri,
            verification_uri_complete=begun.verification_uri_complete,
            user_code=begun.user_code,
            interval_seconds=begun.interval_seconds,
            expires_at=timestamp(begun.expires_at),
        )

    async def FinishDeviceLogin(
        self, request: auth.FinishDeviceLoginRequest, rpc: Context
    ) -> auth.FinishDeviceLoginResponse:
        pair = await self._logins.provider.finish_device(request.device_login_id, user_agent=_user_agent(rpc))
        return auth.FinishDeviceLoginResponse(tokens=_tokens(pair))

    # ---- machines --------------------------------------------------------------------------------------------------

    async def GetNonce(self, _request: auth.GetNonceRequest, _rpc: Context) -> auth.GetNonceResponse:
        return auth.GetNonceResponse(nonce=self._nonces.make())

    async def AuthenticateNode(
        self, request: auth.AuthenticateNodeRequest, _rpc: Context
    ) -> auth.AuthenticateNodeResponse:
        invitation = request.invitation if request.HasField("invitation") else None
        token, claims = await self._nodes.authenticate(request.authentication, invitation)
        return auth.AuthenticateNodeResponse(access_token=token, access_expires_at=timestamp(claims.expires_at))


def _user_agent(rpc: Context) -> str:
    """Return the program's name for itself, without what a terminal would obey."""
    given = dict(rpc.invocation_metadata() or ()).get("user-agent", "")
    return "".join(character for character in str(given) if character.isprintable())


def _tokens(pair: Pair) -> auth.Tokens:
    return auth.Tokens(
        access_token=pair.access_token,
        access_expires_at=timestamp(pair.access_expires_at),
        refresh_token=pair.refresh_token,
        refresh_expires_at=timestamp(pair.refresh_expires_at),
    )


def _login(login: Login) -> auth.UserLogin:
    return auth.UserLogin(
        login_id=login.login_id,
        created_at=timestamp(login.created_at),
        renewed_at=timestamp(login.renewed_at),
        expires_at=timestamp(login.expires_at),
        peer=login.peer,
        user_agent=login.user_agent,
        is_current=login.is_current,
    )


def _api_key(key: ApiKey) -> auth.ApiKey:
    return auth.ApiKey(
        api_key_id=key.api_key_id,
        name=key.name,
        user_id=key.user_id,
        rules=_rules(key.rules),
        created_at=timestamp(key.created_at),
        expires_at=timestamp(key.expires_at),
        last_used_at=timestamp(key.last_used_at) if key.last_used_at else None,
    )


def _rules(rules: Iterable[Rule]) -> list[auth.RoleRule]:
    return [auth.RoleRule(resource=rule.resource, operation=rule.operation, scope=rule.scope) for rule in sorted(rules)]
