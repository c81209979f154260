"""The methods of AdminService about accounts: organizations and users."""

from typing import Any

import grpc.aio

from folkmoot.server import masks
from folkmoot.server.core import Core
from folkmoot.server.people import organizations, users
from folkmoot.server.people.accounts import Organization, User
from folkmoot.server.people.organizations import Organizations
from folkmoot.server.people.users import Seen, Users
from folkmoot.server.rpc import rule_messages
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin

Context = grpc.aio.ServicerContext[Any, Any]


class AccountMethods:
    """Part of AdminService."""

    _core: Core
    _organizations: Organizations
    _users: Users

    # ---- organizations ---------------------------------------------------------------------------------------------

    async def CreateOrganization(
        self, request: admin.CreateOrganizationRequest, _rpc: Context
    ) -> admin.CreateOrganizationResponse:
        account = Organization(
            organization_account_id=request.organization_account_id,
            name=request.name,
            created_at=self._core.clock(),
            domain=request.domain,
            postal_address=request.postal_address,
            country=request.country,
        )
        return admin.CreateOrganizationResponse(organization=_organization(await self._organizations.create(account)))

    async def ListOrganizations(
        self, request: admin.ListOrganizationsRequest, _rpc: Context
    ) -> admin.ListOrganizationsResponse:
        wanted = organizations.Wanted(name_prefix=request.name_prefix, genesis=request.genesis, country=request.country)
        found, token = await self._organizations.find(
            wanted, page_size=request.page_size, page_token=request.page_token
        )
        return admin.ListOrganizationsResponse(
            organizations=[_organization(account) for account in found], next_page_token=token
        )

    async def GetOrganization(
        self, request: admin.GetOrganizationRequest, _rpc: Context
    ) -> admin.GetOrganizationResponse:
        account = await self._organizations.get(request.organization_account_id)
        return admin.GetOrganizationResponse(organization=_organization(account))

    async def UpdateOrganization(
        self, request: admin.UpdateOrganizationRequest, _rpc: Context
    ) -> admin.UpdateOrganizationResponse:
        account = await self._organizations.update(
            request.organization_account_id, masks.changes(request), etag=request.etag
        )
        return admin.UpdateOrganizationResponse(organization=_organization(account))

    async def DeleteOrganization(
        self, request: admin.DeleteOrganizationRequest, _rpc: Context
    ) -> admin.DeleteOrganizationResponse:
        await self._organizations.delete(
            request.organization_account_id, delete_dependents=request.delete_dependents, etag=request.etag
        )
        return admin.DeleteOrganizationResponse()

    # ---- users -----------------------------------------------------------------------------------------------------

    async def CreateUser(self, request: admin.CreateUserRequest, _rpc: Context) -> admin.CreateUserResponse:
        user = User(
            user_id=request.user_id,
            username=request.username,
            organization_account_id=request.organization_account_id,
            created_at=self._core.clock(),
            roles=tuple(request.roles),
            email=request.email,
            first_name=request.first_name,
            last_name=request.last_name,
            extra_rules=frozenset(rule_messages.from_messages(request.extra_rules)),
        )
        return admin.CreateUserResponse(user=_user(await self._users.create(user, request.password)))

    async def ListUsers(self, request: admin.ListUsersRequest, _rpc: Context) -> admin.ListUsersResponse:
        wanted = users.Wanted(
            organization_account_id=request.organization_account_id,
            username_prefix=request.username_prefix,
            role=request.role,
            email=request.email,
        )
        found, token = await self._users.find(wanted, page_size=request.page_size, page_token=request.page_token)
        return admin.ListUsersResponse(users=[_user(seen) for seen in found], next_page_token=token)

    async def GetUser(self, request: admin.GetUserRequest, _rpc: Context) -> admin.GetUserResponse:
        return admin.GetUserResponse(user=_user(await self._users.get(request.user_id)))

    async def UpdateUser(self, request: admin.UpdateUserRequest, _rpc: Context) -> admin.UpdateUserResponse:
        changes = rule_messages.with_rules(masks.changes(request), "extra_rules")
        return admin.UpdateUserResponse(
            user=_user(
                await self._users.update(request.user_id, changes, etag=request.etag, own_password=request.own_password)
            )
        )

    async def DeleteUser(self, request: admin.DeleteUserRequest, _rpc: Context) -> admin.DeleteUserResponse:
        await self._users.delete(request.user_id, etag=request.etag)
        return admin.DeleteUserResponse()

    async def RemoveTotp(self, request: admin.RemoveTotpRequest, _rpc: Context) -> admin.RemoveTotpResponse:
        return admin.RemoveTotpResponse(user=_user(await self._users.remove_totp(request.user_id)))


def _organization(account: Organization) -> admin.Organization:
    return admin.Organization(
        organization_account_id=account.organization_account_id,
        name=account.name,
        organization_id=account.organization_id,
        created_at=timestamp(account.created_at),
        domain=account.domain,
        postal_address=account.postal_address,
        country=account.country,
        etag=account.etag,
    )


def _user(seen: Seen) -> admin.User:
    user = seen.user
    return admin.User(
        user_id=user.user_id,
        username=user.username,
        organization_account_id=user.organization_account_id,
        roles=user.roles,
        created_at=timestamp(user.created_at),
        email=user.email,
        first_name=user.first_name,
        last_name=user.last_name,
        extra_rules=rule_messages.to_messages(user.extra_rules),
        has_totp=seen.has_totp,
        last_login_at=timestamp(seen.last_login_at) if seen.last_login_at else None,
        locked_until=timestamp(seen.locked_until) if seen.locked_until else None,
        etag=user.etag,
    )
