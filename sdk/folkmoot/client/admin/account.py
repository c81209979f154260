"""The caller's own account: who it is, its password, its second factor, where it is logged in, its API keys."""

from dataclasses import dataclass, field
from datetime import datetime

from folkmoot.client.admin.api_keys import AsyncApiKeys
from folkmoot.client.admin.resolving import new_id, user_id
from folkmoot.client.admin.rules import Rule, rules_of
from folkmoot.client.names import moment
from folkmoot.client.session import Session
from folkmoot.v1 import auth_service_pb2 as auth


@dataclass(frozen=True)
class Identity:
    """Who the caller is, by the server's word, and what it may do."""

    user_id: str
    username: str
    organization_account_id: str
    organization_id: str
    """The organization's address; empty until it has founded or asked to join a collaboration."""
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class TotpSecret:
    """A second factor that is being set up: for an authenticator app, and for nobody else."""

    secret: str = field(repr=False)
    """To type, in base32."""
    uri: str = field(repr=False)
    """The same as an otpauth URI."""
    qr_code: bytes = field(repr=False)
    """The same as an image (PNG)."""


@dataclass(frozen=True)
class Login:
    """Where a user is logged in."""

    login_id: str
    """No token: nobody can log in with it."""
    created_at: datetime
    renewed_at: datetime | None
    expires_at: datetime
    origin: str
    """The address that the server saw."""
    user_agent: str
    """The program's name for itself."""
    is_current: bool
    """Whether it is the one of this client."""


class AsyncAccount:
    """The caller's own account; what needs no login works for a client without one."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.api_keys = AsyncApiKeys(session)

    async def show(self) -> Identity:
        """Who the caller is."""
        answer = await self._session.call(self._session.auth.WhoAmI, auth.WhoAmIRequest())
        return Identity(
            user_id=answer.user_id,
            username=answer.username,
            organization_account_id=answer.organization_account_id,
            organization_id=answer.organization_id,
            rules=rules_of(answer.rules),
        )

    async def change_password(self, old: str, new: str) -> None:
        """Change the password; all other logins end. Raises LOGIN_FAILED for a wrong old one, PASSWORD_WEAK."""
        request = auth.ChangePasswordRequest(old_password=old, new_password=new)
        await self._session.call(self._session.auth.ChangePassword, request)

    async def logins(self, *, user: str = "") -> tuple[Login, ...]:
        """Where the caller is logged in, newest first; another user, by name or id, for those who may see it."""
        request = auth.ListLoginsRequest(user_id=await user_id(self._session, user))
        answer = await self._session.call(self._session.auth.ListLogins, request)
        return tuple(map(_login, answer.logins))

    async def end_logins(self, login_id: str = "", *, user: str = "") -> int:
        """End a login; without one, all but this client's. Says how many have ended."""
        request = auth.EndLoginsRequest(user_id=await user_id(self._session, user), login_id=login_id)
        return (await self._session.call(self._session.auth.EndLogins, request)).ended

    async def log_out(self) -> None:
        """End this client's login; another call logs in anew."""
        await self._session.call(self._session.auth.Logout, auth.LogoutRequest())
        self._session.forget_tokens()

    # ---- second factor ---------------------------------------------------------------------------------------------

    async def enroll_totp(self, password: str) -> TotpSecret:
        """Begin to set up a second factor; it counts once `confirm_totp` has seen its code. Raises TOTP_ALREADY_SET, LOGIN_FAILED."""
        answer = await self._session.call(self._session.auth.EnrollTotp, auth.EnrollTotpRequest(password=password))
        return TotpSecret(answer.secret, answer.uri, answer.qr_code)

    async def confirm_totp(self, code: str) -> None:
        """Finish setting up a second factor: from here on, logging in takes its code. All other logins end. Raises LOGIN_FAILED."""
        await self._session.call(self._session.auth.ConfirmTotp, auth.ConfirmTotpRequest(totp_code=code))

    async def request_totp_reset(self, username: str, password: str) -> None:
        """Have a token mailed that removes a lost second factor. Needs no login. Raises LOGIN_FAILED, NOT_CONFIGURED."""
        request = auth.RequestTotpResetRequest(username=username, password=password)
        await self._session.call_anonymously(self._session.auth.RequestTotpReset, request)

    async def reset_totp(self, reset_token: str, password: str) -> None:
        """Remove a second factor with a mailed token; all logins end. Needs no login. Raises RESET_TOKEN_INVALID, LOGIN_FAILED."""
        request = auth.ResetTotpRequest(reset_token=reset_token, password=password)
        await self._session.call_anonymously(self._session.auth.ResetTotp, request)

    # ---- what needs no login ---------------------------------------------------------------------------------------

    async def request_password_reset(self, username_or_email: str) -> None:
        """Have a token mailed that sets a new password; says nothing about whether there is such a user. Raises NOT_CONFIGURED."""
        request = auth.RequestPasswordResetRequest(username_or_email=username_or_email)
        await self._session.call_anonymously(self._session.auth.RequestPasswordReset, request)

    async def reset_password(self, reset_token: str, new_password: str) -> None:
        """Set a password with a mailed token; all logins end. Raises RESET_TOKEN_INVALID, PASSWORD_WEAK."""
        request = auth.ResetPasswordRequest(reset_token=reset_token, new_password=new_password)
        await self._session.call_anonymously(self._session.auth.ResetPassword, request)

    async def complete_setup(self, setup_token: str, *, organization: str, username: str, password: str) -> None:
        """Make a new server's first user, with the token that it printed at its first start. Raises SETUP_TOKEN_INVALID, PASSWORD_WEAK."""
        request = auth.CompleteSetupRequest(
            setup_token=setup_token, organization_name=organization, username=username, password=password
        )
        await self._session.call_anonymously(self._session.auth.CompleteSetup, request)

    async def register(self, organization: str, *, username: str, password: str, email: str = "") -> str:
        """Make an organization's account with its first admin, where a server lets organizations register themselves.

        Gives the account's id. Raises REGISTRATION_CLOSED, NAME_TAKEN, PASSWORD_WEAK.
        """
        request = auth.RegisterOrganizationRequest(
            organization_account_id=new_id(),
            name=organization,
            user_id=new_id(),
            username=username,
            email=email,
            password=password,
        )
        await self._session.call_anonymously(self._session.auth.RegisterOrganization, request)
        return request.organization_account_id


def _login(message: auth.UserLogin) -> Login:
    return Login(
        login_id=message.login_id,
        created_at=moment(message.created_at),
        renewed_at=moment(message.renewed_at) if message.HasField("renewed_at") else None,
        expires_at=moment(message.expires_at),
        origin=message.peer,
        user_agent=message.user_agent,
        is_current=message.is_current,
    )
