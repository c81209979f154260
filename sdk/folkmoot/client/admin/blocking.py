"""A user's access to a server for scripts and notebooks: the same as `AsyncServerClient`, without `await`."""

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Self

from folkmoot.client.admin.aio import AsyncServerClient, Source
from folkmoot.client.logins import Credentials, TotpCode
from folkmoot.client.loop import blocking, iterating

if TYPE_CHECKING:
    from folkmoot.client.admin.sync import (
        Account,
        Collaborations,
        Events,
        OrganizationAccounts,
        Roles,
        Users,
    )


class ServerFacade:
    """The parts that every synchronous client has of its asynchronous one."""

    def __init__(self, core: AsyncServerClient) -> None:
        self._core = core

    @cached_property
    def account(self) -> "Account":
        """The caller's own account."""
        from folkmoot.client.admin.sync import Account

        return Account(self._core.account)

    @cached_property
    def collaborations(self) -> "Collaborations":
        """The collaborations that the caller may see, by the server's word."""
        from folkmoot.client.admin.sync import Collaborations

        return Collaborations(self._core.collaborations)

    @cached_property
    def events(self) -> "Events":
        """The audit trail."""
        from folkmoot.client.admin.sync import Events

        return Events(self._core.events)

    @cached_property
    def organization_accounts(self) -> "OrganizationAccounts":
        """The accounts of organizations."""
        from folkmoot.client.admin.sync import OrganizationAccounts

        return OrganizationAccounts(self._core.organization_accounts)

    @cached_property
    def roles(self) -> "Roles":
        """The roles."""
        from folkmoot.client.admin.sync import Roles

        return Roles(self._core.roles)

    @cached_property
    def users(self) -> "Users":
        """The users."""
        from folkmoot.client.admin.sync import Users

        return Users(self._core.users)

    server_info = blocking(AsyncServerClient.server_info)
    usage = iterating(AsyncServerClient.usage)
    close = blocking(AsyncServerClient.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ServerClient(ServerFacade):
    """A user's access to a server.

        with ServerClient(server="localhost:7443", certificate_authority="ca.pem", username="root", password="...") as server:
            server.users.create("ada", password="...", organization="Alpha", roles=["Researcher"])
            for user in server.users.list(organization="Alpha"):
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
        super().__init__(
            AsyncServerClient(
                server=server,
                username=username,
                password=password,
                totp_code=totp_code,
                api_key=api_key,
                login=login,
                certificate_authority=certificate_authority,
                insecure=insecure,
            )
        )
