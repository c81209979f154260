"""Roles that people make: no way around what nobody may give, felt at once by who has them, and never the default ones."""

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.v1 import admin_service_pb2 as admin
from tests.integration.harness import Server, User, refused, server
from tests.integration.server.test_users import change as change_user
from tests.integration.server.test_users import names, refusal, remove, rules, seen, whoami


async def make(s: Server, by: User, name: str, *words: str, account: str | None = None) -> admin.Role:
    request = admin.CreateRoleRequest(
        role_id=s.new_id(),
        name=name,
        rules=rules(*words),
        organization_account_id=by.organization_account_id if account is None else account,
    )
    return (await s.admin.CreateRole(request, metadata=by.metadata)).role


def change(s: Server, by: User, role: admin.Role, *, etag: str = "", **fields: Any):
    request = admin.UpdateRoleRequest(role_id=role.role_id, update_mask=FieldMask(paths=fields), etag=etag, **fields)
    return s.admin.UpdateRole(request, metadata=by.metadata)


def delete(s: Server, by: User, role: admin.Role, *, delete_dependents: bool = False, etag: str = ""):
    request = admin.DeleteRoleRequest(role_id=role.role_id, delete_dependents=delete_dependents, etag=etag)
    return s.admin.DeleteRole(request, metadata=by.metadata)


async def listed(s: Server, by: User, **wanted: Any) -> list[str]:
    answer = await s.admin.ListRoles(admin.ListRolesRequest(**wanted), metadata=by.metadata)
    return [role.name for role in answer.roles]


# ---- what a role allows --------------------------------------------------------------------------------------------


async def test_change_of_a_role_is_felt_at_once_by_who_is_logged_in(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        role = await make(s, alpha, "Clerk", "USER VIEW ORGANIZATION")
        ada = await s.user("ada", alpha.organization_account_id, ["Clerk"])
        assert await names(s, ada) == ["ada", "admin@alpha"]
        await change(s, alpha, role, rules=rules("USER VIEW OWN"))
        assert await names(s, ada) == ["ada"]
        await change(s, alpha, role, rules=rules("ROLE VIEW ORGANIZATION"))
        assert await refusal(s.admin.ListUsers(admin.ListUsersRequest(), metadata=ada.metadata)) == "NOT_ALLOWED"


async def test_role_is_made_once_and_read_by_name(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        request = admin.CreateRoleRequest(
            role_id=s.new_id(),
            name="Clerk",
            description="Keeps the list of users.",
            rules=rules("USER VIEW ORGANIZATION"),
            organization_account_id=alpha.organization_account_id,
        )
        first = (await s.admin.CreateRole(request, metadata=alpha.metadata)).role
        assert (await s.admin.CreateRole(request, metadata=alpha.metadata)).role == first
        read = await s.admin.GetRole(admin.GetRoleRequest(name="Clerk"), metadata=alpha.metadata)
        assert read.role == first
        request.description = "Something else."
        assert await refusal(s.admin.CreateRole(request, metadata=alpha.metadata)) == "ID_TAKEN"
        assert len(await s.events("role.create")) == 1


# ---- nobody gives what he lacks ------------------------------------------------------------------------------------


async def test_role_holds_no_rule_that_its_maker_lacks(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        role = await make(s, alpha, "Clerk")
        for words, expected, fields in (
            ("TASK VIEW GLOBAL", "NOT_ALLOWED", []),
            ("ORGANIZATION DELETE GLOBAL", "NOT_ALLOWED", []),
            ("ORGANIZATION VIEW OWN", "INVALID_FIELD", ["rules[1]"]),
            ("NODE CREATE GLOBAL", "INVALID_FIELD", ["rules[1]"]),
        ):
            assert await refusal(make(s, alpha, "Emperor", words)) == expected
            error = await refused(change(s, alpha, role, rules=rules("USER VIEW OWN", words)))
            assert (error.reason_name, [field for field, _ in error.violations]) == (expected, fields)


async def test_role_that_somebody_above_has_is_not_edited_below(tmp_path):
    """Neither to take from him what he has, nor to give to him, or to oneself, what the editor lacks."""
    async with server(tmp_path) as s:
        root, alpha = await s.root(), await s.organization_admin("Alpha")
        clerk = await make(s, alpha, "Clerk", "USER VIEW ORGANIZATION")
        await s.user("above", alpha.organization_account_id, ["Root", "Clerk"])
        assert await refusal(change(s, alpha, clerk, rules=[])) == "NOT_ALLOWED"
        assert await refusal(change(s, alpha, clerk, name="Porter")) == "NOT_ALLOWED"
        assert await refusal(delete(s, alpha, clerk, delete_dependents=True)) == "NOT_ALLOWED"
        wide = await make(s, root, "Wide", "TASK VIEW GLOBAL", account=alpha.organization_account_id)
        for call in (change(s, alpha, wide, description="mine now"), delete(s, alpha, wide)):
            assert await refusal(call) == "NOT_ALLOWED"


async def test_role_of_one_organization_is_given_in_no_other(tmp_path):
    async with server(tmp_path) as s:
        root, alpha, beta = await s.root(), await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        await make(s, alpha, "Clerk", "USER VIEW ORGANIZATION")
        bob = await s.user("bob", beta.organization_account_id)
        for by in (beta, root):
            assert await refusal(change_user(s, by, bob, roles=["Clerk"])) == "ROLE_NOT_FOUND"
        request = admin.GetRoleRequest(name="Clerk")
        assert await refusal(s.admin.GetRole(request, metadata=beta.metadata)) == "ROLE_NOT_FOUND"
        assert "Clerk" not in await listed(s, beta)


async def test_role_for_everybody_takes_a_rule_for_the_whole_server(tmp_path):
    async with server(tmp_path) as s:
        root, alpha, beta = await s.root(), await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        assert await refusal(make(s, alpha, "Clerk", account="")) == "NOT_ALLOWED"
        assert await refusal(make(s, alpha, "Clerk", account=beta.organization_account_id)) == "NOT_ALLOWED"
        assert await refusal(make(s, root, "Clerk", account=s.new_id())) == "ORGANIZATION_NOT_FOUND"
        role = await make(s, root, "Clerk", "USER VIEW ORGANIZATION", account="")
        bob = await s.user("bob", beta.organization_account_id)
        await change_user(s, beta, bob, roles=["Clerk"])
        assert await refusal(change(s, beta, role, description="ours")) == "NOT_ALLOWED"
        assert await names(s, await s.log_in("bob")) == ["admin@beta", "bob"]


async def test_role_is_not_called_like_another_whatever_the_case(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        await make(s, alpha, "Clerk")
        porter = await make(s, alpha, "Porter")
        for name in ("Root", "root", "VIEWER", "Clerk", "clerk"):
            assert await refusal(make(s, alpha, name)) == "NAME_TAKEN"
            assert await refusal(change(s, alpha, porter, name=name)) == "NAME_TAKEN"


# ---- those who have it ---------------------------------------------------------------------------------------------


async def test_role_that_somebody_has_goes_only_if_it_is_said_so(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        role = await make(s, alpha, "Clerk", "USER VIEW ORGANIZATION")
        ada = await s.user("ada", alpha.organization_account_id, ["Clerk", "Viewer"])
        error = await refused(delete(s, alpha, role))
        assert (error.reason_name, error.metadata["users"]) == ("HAS_DEPENDENTS", "1")
        await delete(s, alpha, role, delete_dependents=True)
        assert list((await seen(s, alpha, ada)).roles) == ["Viewer"]
        assert await refusal(delete(s, alpha, role)) == "ROLE_NOT_FOUND"
        again = await make(s, alpha, "Clerk", "ROLE CREATE ORGANIZATION")
        assert again.role_id != role.role_id
        assert not [each for each in (await whoami(s, ada)).rules if each == again.rules[0]]


@pytest.mark.both_databases
async def test_role_keeps_its_users_under_another_name(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        role = await make(s, alpha, "Clerk", "USER VIEW ORGANIZATION")
        ada = await s.user("ada", alpha.organization_account_id, ["Clerk", "Viewer"])
        renamed = (await change(s, alpha, role, name="Archivist", etag=role.etag)).role
        assert list((await seen(s, alpha, ada)).roles) == ["Archivist", "Viewer"]
        assert await names(s, ada)
        assert await refusal(change(s, alpha, role, name="Clerk", etag=role.etag)) == "ETAG_MISMATCH"
        assert renamed.etag != role.etag


async def test_last_who_may_do_everything_by_a_role_of_his_own_keeps_it(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        everything = await s.admin.GetRole(admin.GetRoleRequest(name="Root"), metadata=root.metadata)
        request = admin.CreateRoleRequest(role_id=s.new_id(), name="Operator", rules=everything.role.rules)
        role = (await s.admin.CreateRole(request, metadata=root.metadata)).role
        other = await s.user("other", root.organization_account_id, ["Operator"])
        await remove(s, other, root)
        assert await refusal(change(s, other, role, rules=[])) == "PROTECTED"
        assert await refusal(delete(s, other, role, delete_dependents=True)) == "PROTECTED"


# ---- lists ---------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_roles_are_listed_by_name_among_the_default_ones_in_pages(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        for name in ("Archivist", "Porter", "Zoologist"):
            await make(s, alpha, name)
        whole = await listed(s, alpha)
        assert set(whole) > {"Archivist", "Porter", "Root", "Zoologist", "Viewer"}
        parts, token = [], ""
        while True:
            request = admin.ListRolesRequest(page_size=2, page_token=token)
            page = await s.admin.ListRoles(request, metadata=alpha.metadata)
            parts += [role.name for role in page.roles]
            if not (token := page.next_page_token):
                break
        assert parts == whole
        own = await listed(s, alpha, organization_account_id=alpha.organization_account_id)
        assert own == ["Archivist", "Porter", "Zoologist"]


async def test_default_roles_are_nobodys_to_change(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        for role in (await s.admin.ListRoles(admin.ListRolesRequest(), metadata=root.metadata)).roles:
            assert (role.role_id, role.etag) == ("", "")
            assert await refusal(change(s, root, role, description="x")) == "INVALID_FIELD"
