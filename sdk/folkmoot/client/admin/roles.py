"""Roles: named sets of rules, the default ones and those that organizations make for themselves."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from folkmoot.client.admin.resolving import AccountNames, account_id, is_id, mask_of, new_id
from folkmoot.client.admin.rules import Rule, rule_messages, rules_of
from folkmoot.client.names import moment
from folkmoot.client.session import PAGE_ITEMS, Session
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import errors_pb2


@dataclass(frozen=True)
class Role:
    """A role, as the server tells it."""

    name: str
    description: str
    rules: tuple[Rule, ...]
    role_id: str
    """Empty for default roles, which don't change."""
    organization: str
    """The name of the account that it belongs to; empty if it is everybody's."""
    created_at: datetime | None
    etag: str
    """Changes with every change."""


class AsyncRoles:
    """The roles that the caller may see. `role` is a role's name or id, or a `Role` that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self, name: str, *, rules: Sequence[Rule | str], description: str = "", organization: str = ""
    ) -> Role:
        """Make a role of an organization's account, by name or id; without one it is everybody's.

        Raises NAME_TAKEN, ORGANIZATION_NOT_FOUND, and NOT_ALLOWED for a rule that the caller lacks.
        """
        request = admin.CreateRoleRequest(
            role_id=new_id(),
            name=name,
            description=description,
            rules=rule_messages(rules),
            organization_account_id=await account_id(self._session, organization),
        )
        return await self._shown((await self._session.call(self._session.admin.CreateRole, request)).role)

    async def get(self, role: str) -> Role:
        """A role by name or id. Raises ROLE_NOT_FOUND."""
        if is_id(role):
            async for one in self.list():
                if one.role_id == role:
                    return one
            raise FolkmootError(errors_pb2.ERROR_REASON_ROLE_NOT_FOUND, f"no role that you may see has the id {role}")
        return await self._shown(
            (await self._session.call(self._session.admin.GetRole, admin.GetRoleRequest(name=role))).role
        )

    async def list(self, *, organization: str = "") -> AsyncIterator[Role]:
        """The roles, by name: those of an organization's account, or all."""
        session = self._session
        request = admin.ListRolesRequest(
            page_size=PAGE_ITEMS, organization_account_id=await account_id(session, organization)
        )
        names = AccountNames(session)
        async for page in session.pages(session.admin.ListRoles, request):
            for one in page.roles:
                yield _role(one, await names.of(one.organization_account_id))

    async def update(
        self,
        role: Role | str,
        *,
        name: str | None = None,
        description: str | None = None,
        rules: Sequence[Rule | str] | None = None,
        etag: str = "",
    ) -> Role:
        """Change what is given, and nothing else; what the role's users may do changes at once.

        Raises ROLE_NOT_FOUND, NAME_TAKEN, ETAG_MISMATCH, PROTECTED, and NOT_ALLOWED for a rule that the caller lacks.
        """
        known = await self._known(role)
        changed: dict[str, Any] = {
            "name": name,
            "description": description,
            "rules": None if rules is None else rule_messages(rules),
        }
        request = admin.UpdateRoleRequest(
            role_id=known.role_id, update_mask=mask_of(**changed), etag=etag or _etag(role), **changed
        )
        return await self._shown((await self._session.call(self._session.admin.UpdateRole, request)).role)

    async def delete(self, role: Role | str, *, delete_dependents: bool = False, etag: str = "") -> None:
        """Delete a role, with `delete_dependents` also where users have it. Raises ROLE_NOT_FOUND, HAS_DEPENDENTS, ETAG_MISMATCH, PROTECTED."""
        known = await self._known(role)
        request = admin.DeleteRoleRequest(
            role_id=known.role_id, delete_dependents=delete_dependents, etag=etag or _etag(role)
        )
        await self._session.call(self._session.admin.DeleteRole, request)

    async def rules(self) -> tuple[Rule, ...]:
        """The rules that there are: which resources, operations and scopes mean something."""
        return rules_of((await self._session.call(self._session.admin.ListRules, admin.ListRulesRequest())).rules)

    async def _known(self, role: Role | str) -> Role:
        found = role if isinstance(role, Role) else await self.get(role)
        if not found.role_id:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_PROTECTED, f"{found.name} is one of the default roles, which don't change"
            )
        return found

    async def _shown(self, message: admin.Role) -> Role:
        return _role(message, await AccountNames(self._session).of(message.organization_account_id))


def _etag(role: Role | str) -> str:
    return role.etag if isinstance(role, Role) else ""


def _role(message: admin.Role, organization: str) -> Role:
    return Role(
        name=message.name,
        description=message.description,
        rules=rules_of(message.rules),
        role_id=message.role_id,
        organization=organization,
        created_at=moment(message.created_at) if message.HasField("created_at") else None,
        etag=message.etag,
    )
