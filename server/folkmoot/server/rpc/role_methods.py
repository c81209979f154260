"""The methods of AdminService about roles, and the rules that they are made of."""

from typing import Any

import grpc.aio

from folkmoot.server import masks
from folkmoot.server.people.custom_roles import Role, Roles
from folkmoot.server.people.roles import RULES
from folkmoot.server.rpc import rule_messages
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin

Context = grpc.aio.ServicerContext[Any, Any]


class RoleMethods:
    """Part of AdminService."""

    _roles: Roles

    async def CreateRole(self, request: admin.CreateRoleRequest, _rpc: Context) -> admin.CreateRoleResponse:
        role = await self._roles.create(
            role_id=request.role_id,
            name=request.name,
            description=request.description,
            rules=rule_messages.from_messages(request.rules),
            organization_account_id=request.organization_account_id,
        )
        return admin.CreateRoleResponse(role=_role(role))

    async def ListRoles(self, request: admin.ListRolesRequest, _rpc: Context) -> admin.ListRolesResponse:
        found, token = await self._roles.find(
            organization_account_id=request.organization_account_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return admin.ListRolesResponse(roles=[_role(role) for role in found], next_page_token=token)

    async def GetRole(self, request: admin.GetRoleRequest, _rpc: Context) -> admin.GetRoleResponse:
        return admin.GetRoleResponse(role=_role(await self._roles.get(request.name)))

    async def UpdateRole(self, request: admin.UpdateRoleRequest, _rpc: Context) -> admin.UpdateRoleResponse:
        changes = rule_messages.with_rules(masks.changes(request), "rules")
        return admin.UpdateRoleResponse(
            role=_role(await self._roles.update(request.role_id, changes, etag=request.etag))
        )

    async def DeleteRole(self, request: admin.DeleteRoleRequest, _rpc: Context) -> admin.DeleteRoleResponse:
        await self._roles.delete(request.role_id, delete_dependents=request.delete_dependents, etag=request.etag)
        return admin.DeleteRoleResponse()

    async def ListRules(self, _request: admin.ListRulesRequest, _rpc: Context) -> admin.ListRulesResponse:
        return admin.ListRulesResponse(rules=rule_messages.to_messages(RULES))


def _role(role: Role) -> admin.Role:
    return admin.Role(
        name=role.name,
        description=role.description,
        rules=rule_messages.to_messages(role.rules),
        role_id=role.role_id,
        organization_account_id=role.organization_account_id,
        created_at=timestamp(role.created_at) if role.created_at else None,
        etag=role.etag,
    )
