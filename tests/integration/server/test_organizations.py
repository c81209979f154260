"""Accounts of organizations: changed, found and deleted; what ledgers say of an organization stays."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.link_pb2 import PolicySummary
from tests.builders import world
from tests.integration.harness import Server, User, refused, server, utc_now
from tests.integration.server.links import attached
from tests.integration.server.test_custom_roles import make
from tests.integration.server.test_users import refusal, whoami


def change(s: Server, by: User, account: str, *, etag: str = "", **fields: Any):
    mask = FieldMask(paths=fields)
    request = admin.UpdateOrganizationRequest(organization_account_id=account, update_mask=mask, etag=etag, **fields)
    return s.admin.UpdateOrganization(request, metadata=by.metadata)


def delete(s: Server, by: User, account: str, *, delete_dependents: bool = False, etag: str = ""):
    request = admin.DeleteOrganizationRequest(
        organization_account_id=account, delete_dependents=delete_dependents, etag=etag
    )
    return s.admin.DeleteOrganization(request, metadata=by.metadata)


async def listed(s: Server, by: User, **wanted: Any) -> list[str]:
    answer = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(**wanted), metadata=by.metadata)
    return [account.name for account in answer.organizations]


async def test_account_is_changed_as_it_was_read(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        account = alpha.organization_account_id
        request = admin.GetOrganizationRequest(organization_account_id=account)
        read = (await s.admin.GetOrganization(request, metadata=alpha.metadata)).organization
        fields = {"domain": "alpha.example", "postal_address": "1 Road\nTown", "country": "Norway"}
        changed = (await change(s, alpha, account, etag=read.etag, **fields)).organization
        assert (changed.name, changed.domain, changed.country) == ("Alpha", "alpha.example", "Norway")
        assert (await s.admin.GetOrganization(request, metadata=alpha.metadata)).organization == changed
        assert await refusal(change(s, alpha, account, name="Omega", etag=read.etag)) == "ETAG_MISMATCH"
        assert await refusal(change(s, alpha, account, name="Hub")) == "NAME_TAKEN"
        error = await refused(change(s, alpha, account, name=""))
        assert (error.reason_name, [field for field, _ in error.violations]) == ("INVALID_FIELD", ["name"])


@pytest.mark.both_databases
async def test_account_goes_with_its_users_and_roles_only_if_it_is_said_so(tmp_path):
    async with server(tmp_path) as s:
        root, alpha = await s.root(), await s.organization_admin("Alpha")
        await make(s, alpha, "Clerk")
        error = await refused(delete(s, root, alpha.organization_account_id))
        assert error.reason_name == "HAS_DEPENDENTS"
        assert (error.metadata["users"], error.metadata["roles"]) == ("1", "1")
        await delete(s, root, alpha.organization_account_id, delete_dependents=True)
        assert await listed(s, root) == ["Hub"]
        assert await refusal(whoami(s, alpha)) == "TOKEN_INVALID"
        assert await refusal(s.log_in("admin@alpha")) == "LOGIN_FAILED"
        assert await refusal(s.admin.GetRole(admin.GetRoleRequest(name="Clerk"), metadata=root.metadata)) == (
            "ROLE_NOT_FOUND"
        )
        [event] = await s.events("organization.delete")
        assert alpha.organization_account_id in event.data


async def test_ledger_does_not_forget_an_organization_whose_account_is_deleted(tmp_path):
    async with server(tmp_path) as s:
        root, lung = await s.root(), world(("Alpha", "Beta"), now=utc_now())
        beta = (await s.publish(lung))["Beta"]

        async def ledger() -> list[bytes]:
            request = keys.GetLedgerRequest(genesis=lung.genesis)
            answers = s.keys.GetLedger(request, metadata=root.metadata)
            return [answer.SerializeToString() async for answer in answers]

        before = await ledger()
        request = admin.GetCollaborationRequest(genesis=lung.genesis)
        seen = await s.admin.GetCollaboration(request, metadata=root.metadata)
        await delete(s, root, beta.organization_account_id, delete_dependents=True)
        assert await ledger() == before
        assert await s.admin.GetCollaboration(request, metadata=root.metadata) == seen
        assert [member.name for member in seen.collaboration.members] == ["Alpha", "Beta"]
        assert await s.node_metadata(lung, "Beta", "beta-1")


async def test_accounts_are_filtered(tmp_path):
    async with server(tmp_path) as s:
        root, lung = await s.root(), world(("Alpha", "Beta"), nodes=False, now=utc_now())
        admins = await s.publish(lung)
        await s.organization_admin("Alps")
        await change(s, root, admins["Beta"].organization_account_id, country="Norway")
        assert await listed(s, root, name_prefix="aLp") == ["Alpha", "Alps"]
        assert await listed(s, root, genesis=lung.genesis) == ["Alpha", "Beta"]
        assert await listed(s, root, country="Norway") == ["Beta"]
        stranger = s.users["admin@alps"]
        assert await listed(s, stranger, genesis=lung.genesis) == []


async def test_collaborations_and_nodes_are_filtered(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        lung, heart = (
            world(("Alpha", each), name=name, now=utc_now()) for each, name in (("Beta", "lung"), ("Gamma", "heart"))
        )
        await s.publish(lung)
        await s.publish(heart)

        async def collaborations(**wanted: Any) -> set[str]:
            request = admin.ListCollaborationsRequest(**wanted)
            answer = await s.admin.ListCollaborations(request, metadata=root.metadata)
            return {each.name for each in answer.collaborations}

        async def nodes(**wanted: Any) -> set[str]:
            answer = await s.admin.ListNodes(admin.ListNodesRequest(**wanted), metadata=root.metadata)
            return {each.name for each in answer.nodes}

        assert await collaborations(name_prefix="LU") == {"lung"}
        assert await collaborations(organization_id=heart["Gamma"].address) == {"heart"}
        assert await nodes(organization_id=heart["Gamma"].address) == {"gamma-1"}
        assert await nodes(genesis=lung.genesis, connection=admin.CONNECTION_AWAY) == {"alpha-1", "beta-1"}
        assert await nodes(connection=admin.CONNECTION_ONLINE) == set()
        assert await nodes(label="cohort") == set()
        async with attached(s, heart, "Gamma", policy=PolicySummary(labels=["cohort"], slots=1)):
            assert await nodes(connection=admin.CONNECTION_ONLINE) == {"gamma-1"}
            assert await nodes(label="cohort", page_size=1) == {"gamma-1"}
            assert await nodes(label="cohort", connection=admin.CONNECTION_AWAY) == set()
            request = admin.GetNodeRequest(genesis=heart.genesis, node_id=heart["Gamma"].nodes["gamma-1"].fingerprint)
            node = (await s.admin.GetNode(request, metadata=root.metadata)).node
            assert (node.name, list(node.policy.labels)) == ("gamma-1", ["cohort"])
