"""AuthService: who is calling."""

from typing import Any

import grpc.aio

from folkmoot.server import context
from folkmoot.server.authentication import NodeAuthentication
from folkmoot.server.nonces import Nonces
from folkmoot.server.rpc import rule_messages
from folkmoot.server.sessions import Pair, Sessions
from folkmoot.server.setup import Setup
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class AuthService(AuthServiceServicer):
    """Gives out tokens."""

    def __init__(self, setup: Setup, sessions: Sessions, nonces: Nonces, nodes: NodeAuthentication) -> None:
        self._setup = setup
        self._sessions = sessions
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

    async def Login(self, request: auth.LoginRequest, _rpc: Context) -> auth.LoginResponse:
        return auth.LoginResponse(tokens=_tokens(await self._sessions.log_in(request.username, request.password)))

    async def Refresh(self, request: auth.RefreshRequest, _rpc: Context) -> auth.RefreshResponse:
        return auth.RefreshResponse(tokens=_tokens(await self._sessions.refresh(request.refresh_token)))

    async def Logout(self, _request: auth.LogoutRequest, _rpc: Context) -> auth.LogoutResponse:
        await self._sessions.log_out()
        return auth.LogoutResponse()

    async def WhoAmI(self, _request: auth.WhoAmIRequest, _rpc: Context) -> auth.WhoAmIResponse:
        who = context.caller()
        return auth.WhoAmIResponse(
            caller=who.kind,
            user_id=who.user_id,
            username=who.username,
            node_id=who.node_id,
            organization_account_id=who.organization_account_id,
            organization_id=who.organization_id,
            rules=rule_messages.to_messages(who.rules),
        )

    async def ChangePassword(self, request: auth.ChangePasswordRequest, _rpc: Context) -> auth.ChangePasswordResponse:
        await self._sessions.change_password(request.old_password, request.new_password)
        return auth.ChangePasswordResponse()

    async def GetNonce(self, _request: auth.GetNonceRequest, _rpc: Context) -> auth.GetNonceResponse:
        return auth.GetNonceResponse(nonce=self._nonces.make())

    async def AuthenticateNode(
        self, request: auth.AuthenticateNodeRequest, _rpc: Context
    ) -> auth.AuthenticateNodeResponse:
        invitation = request.invitation if request.HasField("invitation") else None
        token, claims = await self._nodes.authenticate(request.authentication, invitation)
        return auth.AuthenticateNodeResponse(access_token=token, access_expires_at=timestamp(claims.expires_at))


def _tokens(pair: Pair) -> auth.Tokens:
    return auth.Tokens(
        access_token=pair.access_token,
        access_expires_at=timestamp(pair.access_expires_at),
        refresh_token=pair.refresh_token,
        refresh_expires_at=timestamp(pair.refresh_expires_at),
    )
