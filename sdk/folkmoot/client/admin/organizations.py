"""Accounts of organizations at a server. An account gives no membership: that is voted in a collaboration's ledger."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from folkmoot.client.admin.resolving import account, account_id, accounts, mask_of, new_id
from folkmoot.client.names import moment
from folkmoot.client.session import Session
from folkmoot.trust import Reference
from folkmoot.v1 import admin_service_pb2 as admin


@dataclass(frozen=True)
class OrganizationAccount:
    """An organization's account, as the server tells it."""

    organization_account_id: str
    name: str
    """The account's name, which proves nothing: in a collaboration, organizations are called as its ledger says."""
    organization_id: str
    """The organization's address; empty until it has founded or asked to join a collaboration."""
    domain: str
    postal_address: str
    country: str
    created_at: datetime
    etag: str
    """Changes with every change."""


class AsyncOrganizationAccounts:
    """The accounts that the caller may see. `organization` is an account's name, id or address, or an account that was read.

    One that was read is changed and deleted only if nobody else has changed it since (ETAG_MISMATCH).
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def create(
        self, name: str, *, domain: str = "", postal_address: str = "", country: str = ""
    ) -> OrganizationAccount:
        """Make an account. Raises NAME_TAKEN."""
        request = admin.CreateOrganizationRequest(
            organization_account_id=new_id(), name=name, domain=domain, postal_address=postal_address, country=country
        )
        return _account((await self._session.call(self._session.admin.CreateOrganization, request)).organization)

    async def get(self, organization: str) -> OrganizationAccount:
        """An account. Raises ORGANIZATION_NOT_FOUND."""
        return _account(await account(self._session, organization))

    async def list(
        self, *, name_prefix: str = "", collaboration: str = "", country: str = ""
    ) -> AsyncIterator[OrganizationAccount]:
        """The accounts, by name: those of a collaboration (name@fingerprint), of a country, or all."""
        genesis = Reference.parse(collaboration).genesis if collaboration else b""
        request = admin.ListOrganizationsRequest(name_prefix=name_prefix, genesis=genesis, country=country)
        async for one in accounts(self._session, request):
            yield _account(one)

    async def update(
        self,
        organization: OrganizationAccount | str,
        *,
        name: str | None = None,
        domain: str | None = None,
        postal_address: str | None = None,
        country: str | None = None,
        etag: str = "",
    ) -> OrganizationAccount:
        """Change what is given, and nothing else. Raises ORGANIZATION_NOT_FOUND, NAME_TAKEN, ETAG_MISMATCH."""
        changed: dict[str, Any] = {
            "name": name,
            "domain": domain,
            "postal_address": postal_address,
            "country": country,
        }
        request = admin.UpdateOrganizationRequest(
            organization_account_id=await self._id(organization),
            update_mask=mask_of(**changed),
            etag=etag or _etag(organization),
            **changed,
        )
        return _account((await self._session.call(self._session.admin.UpdateOrganization, request)).organization)

    async def delete(
        self, organization: OrganizationAccount | str, *, delete_dependents: bool = False, etag: str = ""
    ) -> None:
        """Delete an account, with `delete_dependents` its users and roles too. What ledgers say of the organization stays.

        Raises ORGANIZATION_NOT_FOUND, HAS_DEPENDENTS, ETAG_MISMATCH, PROTECTED.
        """
        request = admin.DeleteOrganizationRequest(
            organization_account_id=await self._id(organization),
            delete_dependents=delete_dependents,
            etag=etag or _etag(organization),
        )
        await self._session.call(self._session.admin.DeleteOrganization, request)

    async def _id(self, organization: OrganizationAccount | str) -> str:
        if isinstance(organization, OrganizationAccount):
            return organization.organization_account_id
        return await account_id(self._session, organization)


def _etag(organization: OrganizationAccount | str) -> str:
    return organization.etag if isinstance(organization, OrganizationAccount) else ""


def _account(message: admin.Organization) -> OrganizationAccount:
    return OrganizationAccount(
        organization_account_id=message.organization_account_id,
        name=message.name,
        organization_id=message.organization_id,
        domain=message.domain,
        postal_address=message.postal_address,
        country=message.country,
        created_at=moment(message.created_at),
        etag=message.etag,
    )
