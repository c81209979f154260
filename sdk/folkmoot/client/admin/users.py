"""Users of a server: people and applications of organizations."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from folkmoot.client.admin.resolving import AccountNames, account_id, mask_of, new_id, user, user_id
from folkmoot.client.admin.rules import Rule, rule_messages, rules_of
from folkmoot.client.names import moment
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest


@dataclass(frozen=True)
class User:
    """A user, as the server tells it."""

    user_id: str
    username: str
    organization: str
    """The name of the organization's account; its id if the caller may not see it."""
    organization_account_id: str
    roles: tuple[str, ...]
    extra_rules: tuple[Rule, ...]
    """What the user may do besides what the roles allow."""
    email: str
    first_name: str
    last_name: str
    has_totp: bool
    """Whether a second factor is set up."""
    created_at: datetime
    last_login_at: datetime | None
    locked_until: datetime | None
    """Until when the name is locked out after wrong passwords; None if it is not."""
    etag: str
    """Changes with every change."""


class AsyncUsers:
    """The users that the caller may see. Where a user is named, `user` is the name, the id, or a `User` that was read.

    A `User` that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self,
        username: str,
        *,
        password: str,
        organization: str = "",
        roles: Sequence[str] = (),
        extra_rules: Sequence[Rule | str] = (),
        email: str = "",
        first_name: str = "",
        last_name: str = "",
    ) -> User:
        """Make a user of an organization's account, by name or id; of the own one by default.

        Raises NAME_TAKEN, ROLE_NOT_FOUND, ORGANIZATION_NOT_FOUND, PASSWORD_WEAK, and NOT_ALLOWED for a rule that the caller lacks.
        """
        session = self._session
        request = admin.CreateUserRequest(
            user_id=new_id(),
            username=username,
            password=password,
            organization_account_id=await account_id(session, organization) or await self._own_account(),
            roles=roles,
            email=email,
            first_name=first_name,
            last_name=last_name,
            extra_rules=rule_messages(extra_rules),
        )
        return await self._shown((await session.call(session.admin.CreateUser, request)).user)

    async def get(self, user: str) -> User:
        """A user by name or id. Raises USER_NOT_FOUND."""
        return await self._shown(await _found(self._session, user))

    async def list(
        self, *, organization: str = "", username_prefix: str = "", role: str = "", email: str = ""
    ) -> AsyncIterator[User]:
        """The users, by name: those of an organization's account, with a role, with a mail address, or all."""
        session = self._session
        request = admin.ListUsersRequest(
            page_size=PAGE_ITEMS,
            organization_account_id=await account_id(session, organization),
            username_prefix=username_prefix,
            role=role,
            email=email,
        )
        names = AccountNames(session)
        async for page in session.pages(session.admin.ListUsers, request):
            for one in page.users:
                yield _user(one, await names.of(one.organization_account_id))

    async def update(
        self,
        user: User | str,
        *,
        email: str | None = None,
        first_name: str | None = None,
        last_name: str | None = None,
        roles: Sequence[str] | None = None,
        extra_rules: Sequence[Rule | str] | None = None,
        password: str | None = None,
        own_password: str = "",
        etag: str = "",
    ) -> User:
        """Change what is given, and nothing else; where rules or the password change, the user's logins end.

        Who changes his own mail address gives his password. Raises USER_NOT_FOUND, ROLE_NOT_FOUND, PASSWORD_WEAK,
        LOGIN_FAILED, LOCKED_OUT, ETAG_MISMATCH, NOT_ALLOWED, PROTECTED.
        """
        changed: dict[str, Any] = {
            "email": email,
            "first_name": first_name,
            "last_name": last_name,
            "roles": roles,
            "extra_rules": None if extra_rules is None else rule_messages(extra_rules),
            "password": password,
        }
        request = admin.UpdateUserRequest(
            user_id=await _id(self._session, user),
            update_mask=mask_of(**changed),
            own_password=own_password,
            etag=etag or _etag(user),
            **changed,
        )
        return await self._shown((await self._session.call(self._session.admin.UpdateUser, request)).user)

    async def delete(self, user: User | str, *, etag: str = "") -> None:
        """Delete a user: logins and API keys end, tasks stay. Raises USER_NOT_FOUND, ETAG_MISMATCH, NOT_ALLOWED, PROTECTED."""
        request = admin.DeleteUserRequest(user_id=await _id(self._session, user), etag=etag or _etag(user))
        await self._session.call(self._session.admin.DeleteUser, request)

    async def remove_totp(self, user: User | str) -> User:
        """Take a lost second factor from a user whom you know; the user's logins end. Raises USER_NOT_FOUND, NOT_ALLOWED."""
        request = admin.RemoveTotpRequest(user_id=await _id(self._session, user))
        return await self._shown((await self._session.call(self._session.admin.RemoveTotp, request)).user)

    async def _own_account(self) -> str:
        return (await self._session.call(self._session.auth.WhoAmI, WhoAmIRequest())).organization_account_id

    async def _shown(self, message: admin.User) -> User:
        return _user(message, await AccountNames(self._session).of(message.organization_account_id))


_found = user


async def _id(session: Session, user: User | str) -> str:
    return user.user_id if isinstance(user, User) else await user_id(session, user)


def _etag(user: User | str) -> str:
    return user.etag if isinstance(user, User) else ""


def _user(message: admin.User, organization: str) -> User:
    return User(
        user_id=message.user_id,
        username=message.username,
        organization=organization,
        organization_account_id=message.organization_account_id,
        roles=tuple(message.roles),
        extra_rules=rules_of(message.extra_rules),
        email=message.email,
        first_name=message.first_name,
        last_name=message.last_name,
        has_totp=message.has_totp,
        created_at=moment(message.created_at),
        last_login_at=moment(message.last_login_at) if message.HasField("last_login_at") else None,
        locked_until=moment(message.locked_until) if message.HasField("locked_until") else None,
        etag=message.etag,
    )
