"""The parts of a client of a server, for scripts and notebooks: the same as the asynchronous ones, without `await`."""

from folkmoot.client.admin.account import AsyncAccount
from folkmoot.client.admin.api_keys import AsyncApiKeys
from folkmoot.client.admin.collaborations import AsyncCollaborations
from folkmoot.client.admin.events import AsyncEvents
from folkmoot.client.admin.organizations import AsyncOrganizationAccounts
from folkmoot.client.admin.roles import AsyncRoles
from folkmoot.client.admin.studies import AsyncStudies
from folkmoot.client.admin.users import AsyncUsers
from folkmoot.client.loop import blocking, iterating


class ApiKeys:
    """The caller's keys; another user's, by name or id, for those who may see or end them."""

    def __init__(self, core: AsyncApiKeys) -> None:
        self._core = core

    create = blocking(AsyncApiKeys.create)
    list = blocking(AsyncApiKeys.list)
    delete = blocking(AsyncApiKeys.delete)


class Account:
    """The caller's own account; what needs no login works for a client without one."""

    def __init__(self, core: AsyncAccount) -> None:
        self._core = core
        self.api_keys = ApiKeys(core.api_keys)

    show = blocking(AsyncAccount.show)
    change_password = blocking(AsyncAccount.change_password)
    logins = blocking(AsyncAccount.logins)
    end_logins = blocking(AsyncAccount.end_logins)
    log_out = blocking(AsyncAccount.log_out)
    enroll_totp = blocking(AsyncAccount.enroll_totp)
    confirm_totp = blocking(AsyncAccount.confirm_totp)
    request_totp_reset = blocking(AsyncAccount.request_totp_reset)
    reset_totp = blocking(AsyncAccount.reset_totp)
    request_password_reset = blocking(AsyncAccount.request_password_reset)
    reset_password = blocking(AsyncAccount.reset_password)
    complete_setup = blocking(AsyncAccount.complete_setup)
    register = blocking(AsyncAccount.register)


class Collaborations:
    """The collaborations that the caller may see, named by their references."""

    def __init__(self, core: AsyncCollaborations) -> None:
        self._core = core

    list = iterating(AsyncCollaborations.list)
    get = blocking(AsyncCollaborations.get)
    nodes = iterating(AsyncCollaborations.nodes)
    node = blocking(AsyncCollaborations.node)


class Events:
    """The events that the caller may see.

    Both take the same filters: `intent` such as "user.create"; `by`, a user's name or id, or a node's id; `organization`, an account's
    name or id, or the address of a node's organization; `outcome`, "ok" or an error's reason; `request_id`, a call.
    """

    def __init__(self, core: AsyncEvents) -> None:
        self._core = core

    list = iterating(AsyncEvents.list)
    watch = iterating(AsyncEvents.watch)


class OrganizationAccounts:
    """The accounts that the caller may see. `organization` is an account's name, id or address, or an account that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, core: AsyncOrganizationAccounts) -> None:
        self._core = core

    create = blocking(AsyncOrganizationAccounts.create)
    get = blocking(AsyncOrganizationAccounts.get)
    list = iterating(AsyncOrganizationAccounts.list)
    update = blocking(AsyncOrganizationAccounts.update)
    delete = blocking(AsyncOrganizationAccounts.delete)


class Roles:
    """The roles that the caller may see. `role` is a role's name or id, or a `Role` that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, core: AsyncRoles) -> None:
        self._core = core

    create = blocking(AsyncRoles.create)
    get = blocking(AsyncRoles.get)
    list = iterating(AsyncRoles.list)
    update = blocking(AsyncRoles.update)
    delete = blocking(AsyncRoles.delete)
    rules = blocking(AsyncRoles.rules)


class Studies:
    """The studies of one collaboration. `study` is a study's name or id, or a `Study` that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, core: AsyncStudies) -> None:
        self._core = core

    create = blocking(AsyncStudies.create)
    get = blocking(AsyncStudies.get)
    list = iterating(AsyncStudies.list)
    update = blocking(AsyncStudies.update)
    delete = blocking(AsyncStudies.delete)


class Users:
    """The users that the caller may see. Where a user is named, `user` is the name, the id, or a `User` that was read.

    A `User` that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, core: AsyncUsers) -> None:
        self._core = core

    create = blocking(AsyncUsers.create)
    get = blocking(AsyncUsers.get)
    list = iterating(AsyncUsers.list)
    update = blocking(AsyncUsers.update)
    delete = blocking(AsyncUsers.delete)
    remove_totp = blocking(AsyncUsers.remove_totp)
