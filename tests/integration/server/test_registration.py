"""Registration: only where the operator lets organizations in, and what a stranger would try with it."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from folkmoot.server.nodes.attempts import MOST_FROM_ONE_PLACE
from folkmoot.server.people.guesses import FAILURES_BEFORE_LOCK_OUT
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from tests.integration.harness import PASSWORD, bearer, reason, refused, server
from tests.integration.server.factors import login


def wish(s, **changes):
    fields = {
        "organization_account_id": s.new_id(),
        "name": "Alpha Hospital",
        "user_id": s.new_id(),
        "username": "ada",
        "email": "Ada@alpha.example",
        "password": PASSWORD,
    }
    return auth.RegisterOrganizationRequest(**(fields | changes))


async def test_closed_is_the_default(tmp_path):
    async with server(tmp_path) as s:
        assert reason(await refused(s.auth.RegisterOrganization(wish(s)))) == "REGISTRATION_CLOSED"
        assert reason(await refused(login(s, "ada"))) == "LOGIN_FAILED"


@pytest.mark.both_databases
async def test_an_organization_registers_itself_with_its_first_administrator(tmp_path):
    async with server(tmp_path, registration="open") as s:
        await s.root()
        request = wish(s)
        await s.auth.RegisterOrganization(request)
        await s.auth.RegisterOrganization(request)  # the same again
        tokens = (await login(s, "ada")).tokens
        me = await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(tokens.access_token))
        assert me.organization_account_id == request.organization_account_id
        assert me.rules
        [event] = await s.events("organization.register")
        assert event.created_by == request.user_id


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "Hub"}, "NAME_TAKEN"),
        ({"name": "hUB"}, "NAME_TAKEN"),
        ({"username": "root@hub"}, "NAME_TAKEN"),
        ({"password": "short"}, "PASSWORD_WEAK"),
        ({"password": "alpha hospital ada"}, "PASSWORD_WEAK"),
        ({"email": "no address"}, "INVALID_FIELD"),
    ],
)
async def test_nothing_is_half_made(tmp_path, changes, expected):
    async with server(tmp_path, registration="open") as s:
        await s.root()
        assert reason(await refused(s.auth.RegisterOrganization(wish(s, **changes)))) == expected
        await s.auth.RegisterOrganization(wish(s))


async def test_nobody_moves_into_an_account_that_is_there(tmp_path):
    async with server(tmp_path, registration="open") as s:
        root = await s.root()
        for ids in (
            {"organization_account_id": root.organization_account_id},
            {"user_id": root.user_id},
            {"organization_account_id": root.organization_account_id, "user_id": root.user_id},
        ):
            assert reason(await refused(s.auth.RegisterOrganization(wish(s, **ids)))) == "ID_TAKEN"


async def test_nobody_registers_or_renames_himself_to_the_account_that_the_providers_newcomers_are_put_into(tmp_path):
    """He would administer them all: set their passwords, and read along."""
    async with server(tmp_path, registration="open", oidc_new_users="Staff") as s:
        assert reason(await refused(s.auth.RegisterOrganization(wish(s, name="staff")))) == "NAME_TAKEN"
        request = wish(s)
        await s.auth.RegisterOrganization(request)
        ada = bearer((await login(s, "ada")).tokens.access_token)
        change = admin.UpdateOrganizationRequest(
            organization_account_id=request.organization_account_id, name="Staff", update_mask=FieldMask(paths=["name"])
        )
        assert reason(await refused(s.admin.UpdateOrganization(change, metadata=ada))) == "NAME_TAKEN"
        root = await s.root()
        await s.admin.UpdateOrganization(change, metadata=root.metadata)  # who runs the server says where they go


async def test_registering_again_is_no_way_around_the_lock_out(tmp_path):
    async with server(tmp_path, registration="open") as s:
        request = wish(s)
        await s.auth.RegisterOrganization(request)
        guess = wish(s, organization_account_id=request.organization_account_id, user_id=request.user_id)
        guess.password = "another password!"
        answers = [
            reason(await refused(s.auth.RegisterOrganization(guess))) for _ in range(FAILURES_BEFORE_LOCK_OUT + 1)
        ]
        assert answers == ["LOGIN_FAILED"] * FAILURES_BEFORE_LOCK_OUT + ["LOCKED_OUT"]


async def test_one_place_registers_so_many_and_no_more(tmp_path):
    async with server(tmp_path, registration="open") as s:
        for number in range(MOST_FROM_ONE_PLACE):
            await s.auth.RegisterOrganization(wish(s, name=f"Org {number}", username=f"u{number}", email=""))
        assert reason(await refused(s.auth.RegisterOrganization(wish(s)))) == "TOO_MANY"
