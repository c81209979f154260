"""A user's access to a server, without any collaboration: what administrators and operators need. `ServerClient` is the same without `await`."""

import os
from collections.abc import AsyncIterator
from datetime import date
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from folkmoot.client.logins import Credentials, TotpCode, credentials_of
from folkmoot.client.session import Session
from folkmoot.transport import ServerAddress
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2

if TYPE_CHECKING:
    from folkmoot.client.admin.account import AsyncAccount
    from folkmoot.client.admin.collaborations import AsyncCollaborations
    from folkmoot.client.admin.events import AsyncEvents
    from folkmoot.client.admin.info import ServerInfo
    from folkmoot.client.admin.organizations import AsyncOrganizationAccounts
    from folkmoot.client.admin.roles import AsyncRoles
    from folkmoot.client.admin.usage import Usage
    from folkmoot.client.admin.users import AsyncUsers

Source = str | os.PathLike[str]


class AsyncServerClient:
    """A user's access to a server.

        async with AsyncServerClient(server="localhost:7443", certificate_authority="ca.pem", username="root", password="...") as server:
            await server.users.create("ada", password="...", organization="Alpha", roles=["Researcher"])
            async for user in server.users.list(organization="Alpha"):
                print(user.username, user.roles)

    Log in with `username` and `password` (`totp_code`: the present code of a second factor, or what asks for it), with `api_key` or
    FOLKMOOT_API_KEY, or with `login`, at the server's identity provider (`CodeLogin`, `DeviceLogin`). Nothing is sent before the first
    use. Raises INVALID_FIELD for two ways to log in at once.
    """

    def __init__(
        self,
        *,
        server: str,
        username: str = "",
        password: str = "",
        totp_code: TotpCode | None = None,
        api_key: str = "",
        login: Credentials | None = None,
        certificate_authority: Source | None = None,
        insecure: bool = False,
    ) -> None:
        authority = read_authority(Path(certificate_authority)) if certificate_authority else None
        credentials = credentials_of(
            username=username, password=password, totp_code=totp_code, api_key=api_key, login=login
        )
        self.session = Session(ServerAddress(server, authority, insecure), credentials)

    # Each part is imported when it is used: most programs use one or two, and `import folkmoot.client` has to be quick.

    @cached_property
    def account(self) -> "AsyncAccount":
        """The caller's own account."""
        from folkmoot.client.admin.account import AsyncAccount

        return AsyncAccount(self.session)

    @cached_property
    def collaborations(self) -> "AsyncCollaborations":
        """The collaborations that the caller may see, by the server's word."""
        from folkmoot.client.admin.collaborations import AsyncCollaborations

        return AsyncCollaborations(self.session)

    @cached_property
    def events(self) -> "AsyncEvents":
        """The audit trail."""
        from folkmoot.client.admin.events import AsyncEvents

        return AsyncEvents(self.session)

    @cached_property
    def organization_accounts(self) -> "AsyncOrganizationAccounts":
        """The accounts of organizations."""
        from folkmoot.client.admin.organizations import AsyncOrganizationAccounts

        return AsyncOrganizationAccounts(self.session)

    @cached_property
    def roles(self) -> "AsyncRoles":
        """The roles."""
        from folkmoot.client.admin.roles import AsyncRoles

        return AsyncRoles(self.session)

    @cached_property
    def users(self) -> "AsyncUsers":
        """The users."""
        from folkmoot.client.admin.users import AsyncUsers

        return AsyncUsers(self.session)

    async def server_info(self) -> "ServerInfo":
        """What the server says of itself; needs no login."""
        from folkmoot.client.admin.info import server_info

        return await server_info(self.session)

    async def usage(
        self, *, organization: str = "", since: date | None = None, until: date | None = None
    ) -> "AsyncIterator[Usage]":
        """What organizations have used, by day (UTC), then by organization; the 30 days until today by default.

        `organization`: an account's name or id, or the organization's address. Raises ORGANIZATION_NOT_FOUND.
        """
        from folkmoot.client.admin.usage import usage

        async for one in usage(self.session, organization=organization, since=since, until=until):
            yield one

    async def close(self) -> None:
        """Close the connection."""
        await self.session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def read_authority(path: Path) -> bytes:
    """Read the certificate of the authority that vouches for the server. Raises INVALID_FIELD, naming the file."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_INVALID_FIELD, f"the certificate authority {path} can't be read: {error.strerror}"
        ) from error
