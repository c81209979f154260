"""Organizations, users, roles: lists reach as far as the caller's rules, and nobody makes himself more than he is."""

from itertools import chain

import pytest

from folkmoot.v1 import admin_service_pb2 as admin
from tests.builders import organization, world
from tests.integration.harness import PASSWORD, Server, User, reason, refused, server, utc_now

pytestmark = pytest.mark.both_databases


def create_user(s: Server, by: User, **changes):
    wish = {
        "user_id": s.new_id(),
        "username": "ada",
        "password": PASSWORD,
        "organization_account_id": by.organization_account_id,
        "roles": ["Viewer"],
    }
    return s.admin.CreateUser(admin.CreateUserRequest(**(wish | changes)), metadata=by.metadata)


def create_organization(s: Server, by: User, account_id: str, name: str):
    request = admin.CreateOrganizationRequest(organization_account_id=account_id, name=name)
    return s.admin.CreateOrganization(request, metadata=by.metadata)


async def users(s: Server, by: User, **changes) -> list[str]:
    answer = await s.admin.ListUsers(admin.ListUsersRequest(**changes), metadata=by.metadata)
    return [user.username for user in answer.users]


async def organizations(s: Server, by: User) -> list[str]:
    answer = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(), metadata=by.metadata)
    return [each.name for each in answer.organizations]


# ---- organizations -------------------------------------------------------------------------------------------------


async def test_account_is_made_once(tmp_path):
    async with server(tmp_path) as s:
        root, account_id = await s.root(), s.new_id()
        first = await create_organization(s, root, account_id, "Alpha")
        assert await create_organization(s, root, account_id, "Alpha") == first
        assert reason(await refused(create_organization(s, root, account_id, "Beta"))) == "ID_TAKEN"
        assert reason(await refused(create_organization(s, root, s.new_id(), "Alpha"))) == "NAME_TAKEN"
        assert [event.outcome for event in await s.events("organization.create")] == ["ok"]


async def test_admin_of_an_organization_makes_no_others(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        assert reason(await refused(create_organization(s, alpha, s.new_id(), "Beta"))) == "NOT_ALLOWED"


async def test_wrong_fields_are_named(tmp_path):
    async with server(tmp_path) as s:
        error = await refused(create_organization(s, await s.root(), "1", " "))
        assert reason(error) == "INVALID_FIELD"
        assert [field for field, _ in error.violations] == ["organization_account_id", "name"]


async def test_organizations_are_seen_as_far_as_the_scope_reaches(tmp_path):
    async with server(tmp_path) as s:
        await s.publish(world(("Alpha", "Beta"), nodes=False, now=utc_now()))
        await s.organization_admin("Gamma")
        alpha = s.users["admin@alpha"]
        coordinator = await s.user("coordinator", alpha.organization_account_id, ["Collaboration Admin"])
        assert await organizations(s, await s.root()) == ["Alpha", "Beta", "Gamma", "Hub"]
        assert await organizations(s, coordinator) == ["Alpha", "Beta"]
        assert await organizations(s, alpha) == ["Alpha"]


# ---- users ---------------------------------------------------------------------------------------------------------


async def test_user_is_made_once(tmp_path):
    async with server(tmp_path) as s:
        alpha, user_id = await s.organization_admin("Alpha"), s.new_id()
        first = await create_user(s, alpha, user_id=user_id)
        assert await create_user(s, alpha, user_id=user_id) == first
        for changes in ({"username": "eve"}, {"password": "another password"}, {"roles": ["Researcher"]}):
            assert reason(await refused(create_user(s, alpha, user_id=user_id, **changes))) == "ID_TAKEN"
        assert reason(await refused(create_user(s, alpha))) == "NAME_TAKEN"
        assert [event.created_by for event in await s.events("user.create")][1:] == [alpha.user_id]


async def test_user_logs_in_with_his_roles(tmp_path):
    async with server(tmp_path) as s:
        await create_user(s, await s.organization_admin("Alpha"), roles=["Researcher", "Viewer"])
        ada = await s.log_in("ada")
        [listed] = [
            u
            for u in (await s.admin.ListUsers(admin.ListUsersRequest(), metadata=ada.metadata)).users
            if u.username == "ada"
        ]
        assert list(listed.roles) == ["Researcher", "Viewer"]


async def test_admin_makes_users_of_his_own_organization_only(tmp_path):
    async with server(tmp_path) as s:
        alpha, beta = await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        call = create_user(s, alpha, organization_account_id=beta.organization_account_id)
        assert reason(await refused(call)) == "NOT_ALLOWED"
        assert await users(s, beta) == ["admin@beta"]


@pytest.mark.parametrize("role", ["Root", "Collaboration Admin"])
async def test_nobody_gives_a_rule_that_he_lacks(tmp_path, role):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        error = await refused(create_user(s, alpha, roles=["Viewer", role]))
        assert reason(error) == "NOT_ALLOWED"
        assert "rules that you lack" in error.message
        assert await users(s, alpha) == ["admin@alpha"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"roles": ["Emperor"]}, "ROLE_NOT_FOUND"),
        ({"organization_account_id": "01a1f817-b23d-7deb-be64-fa73a42686fb"}, "ORGANIZATION_NOT_FOUND"),
        ({"password": "too short"}, "PASSWORD_WEAK"),
        ({"username": "twelve-letters", "password": "Twelve-Letters"}, "PASSWORD_WEAK"),
        ({"username": "Ada"}, "INVALID_FIELD"),
    ],
)
async def test_user_who_can_not_be_is_refused_and_not_half_made(tmp_path, changes, expected):
    async with server(tmp_path) as s:
        root = await s.root()
        assert reason(await refused(create_user(s, root, **changes))) == expected
        assert await users(s, root) == ["root@hub"]


async def test_users_are_seen_as_far_as_the_scope_reaches(tmp_path):
    async with server(tmp_path) as s:
        alpha, beta = await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        assert await users(s, alpha) == ["admin@alpha"]
        assert await users(s, alpha, organization_account_id=beta.organization_account_id) == []
        assert await users(s, await s.root()) == ["admin@alpha", "admin@beta", "root@hub"]


async def test_pages_neither_skip_nor_repeat(tmp_path):
    async with server(tmp_path) as s:
        root, names = await s.root(), [f"user{number:02}" for number in range(7)]
        for name in names:
            await create_user(s, root, username=name)
        seen, token = [], ""
        while True:
            request = admin.ListUsersRequest(page_size=3, page_token=token)
            page = await s.admin.ListUsers(request, metadata=root.metadata)
            seen.append([user.username for user in page.users])
            if not (token := page.next_page_token):
                break
            await create_user(s, root, username=f"aaa{len(seen)}")  # comes before, so it must not shift the next page
        assert [*chain(*seen)] == ["root@hub", *names]
        assert [len(page) for page in seen] == [3, 3, 2]


async def test_page_token_of_another_list_is_refused(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        await s.account("Alpha")
        page = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(page_size=1), metadata=root.metadata)
        call = s.admin.ListUsers(admin.ListUsersRequest(page_token=page.next_page_token), metadata=root.metadata)
        assert reason(await refused(call)) == "PAGE_TOKEN_INVALID"


async def test_every_list_pages(tmp_path):
    """Each list is read in pages of one, and gives what it gives in one page."""
    async with server(tmp_path) as s:
        lung, heart = (world(("Alpha", "Beta"), name=name, now=utc_now()) for name in ("lung", "heart"))
        await s.publish(lung)
        await s.publish(heart)
        for name in ("Gamma", "Delta"):
            await s.submit_join_request(lung.join_request(organization(name)), await s.organization_admin(name))
        metadata = (await s.root()).metadata
        lists = [
            (s.admin.ListOrganizations, admin.ListOrganizationsRequest, "organizations", {}),
            (s.admin.ListUsers, admin.ListUsersRequest, "users", {}),
            (s.admin.ListCollaborations, admin.ListCollaborationsRequest, "collaborations", {}),
            (s.admin.ListNodes, admin.ListNodesRequest, "nodes", {}),
            (s.admin.ListJoinRequests, admin.ListJoinRequestsRequest, "join_requests", {"genesis": lung.genesis}),
            (s.admin.ListEvents, admin.ListEventsRequest, "events", {}),
        ]
        for method, request, field, filters in lists:
            whole = list(getattr(await method(request(**filters), metadata=metadata), field))
            assert len(whole) > 1, field
            parts, token = [], ""
            while True:
                page = await method(request(page_size=1, page_token=token, **filters), metadata=metadata)
                parts += getattr(page, field)
                if not (token := page.next_page_token):
                    break
            assert parts == whole, field


async def test_roles_are_listed_with_their_rules(tmp_path):
    async with server(tmp_path) as s:
        viewer = await s.user("viewer", await s.account("Alpha"), ["Viewer"])
        roles = (await s.admin.ListRoles(admin.ListRolesRequest(), metadata=viewer.metadata)).roles
        assert [role.name for role in roles] == [
            "Collaboration Admin",
            "Organization Admin",
            "Researcher",
            "Root",
            "Viewer",
        ]
        assert all(role.rules and role.description for role in roles)


async def test_server_tells_what_it_is_to_anybody(tmp_path):
    async with server(tmp_path) as s:
        info = await s.admin.GetServerInfo(admin.GetServerInfoRequest())
        assert (info.protocol_min, info.protocol_max) == (1, 1)
        assert info.version
