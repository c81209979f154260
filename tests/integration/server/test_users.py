"""Users: nobody makes himself, or anybody else, more than he is; what changes rights is felt at once; somebody may do everything."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from sqlalchemy import insert, update

from folkmoot.server.store import login_tables, tables
from folkmoot.trust import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.auth_service_pb2 import RoleRule
from tests.builders import world
from tests.integration.harness import PASSWORD, Server, User, bearer, reason, refused, server, utc_now

NEW_PASSWORD = "another horse, another battery"


def rule(words: str) -> RoleRule:
    """Return the rule in words such as USER EDIT OWN."""
    resource, operation, scope = words.split()
    return RoleRule(
        resource=options.Resource.Value(f"RESOURCE_{resource}"),
        operation=options.Operation.Value(f"OPERATION_{operation}"),
        scope=options.Scope.Value(f"SCOPE_{scope}"),
    )


def rules(*words: str) -> list[RoleRule]:
    return [rule(each) for each in words]


def change(s: Server, by: User, user: User, *, etag: str = "", own: str = "", **fields: Any):
    request = admin.UpdateUserRequest(
        user_id=user.user_id, update_mask=FieldMask(paths=fields), etag=etag, own_password=own, **fields
    )
    return s.admin.UpdateUser(request, metadata=by.metadata)


def remove(s: Server, by: User, user: User, etag: str = ""):
    return s.admin.DeleteUser(admin.DeleteUserRequest(user_id=user.user_id, etag=etag), metadata=by.metadata)


async def seen(s: Server, by: User, user: User) -> admin.User:
    return (await s.admin.GetUser(admin.GetUserRequest(user_id=user.user_id), metadata=by.metadata)).user


async def listed(s: Server, by: User, **wanted: Any) -> list[admin.User]:
    return list((await s.admin.ListUsers(admin.ListUsersRequest(**wanted), metadata=by.metadata)).users)


async def names(s: Server, by: User, **wanted: Any) -> list[str]:
    return [user.username for user in await listed(s, by, **wanted)]


async def whoami(s: Server, user: User) -> auth.WhoAmIResponse:
    return await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=user.metadata)


async def refusal(call: Any) -> str:
    return reason(await refused(call))


# ---- oneself -------------------------------------------------------------------------------------------------------


async def test_everybody_changes_his_own_names_and_mail_address(tmp_path):
    async with server(tmp_path) as s:
        ada = await s.user("ada", await s.account("Alpha"))
        changed = (
            await change(s, ada, ada, email="Ada@Alpha.example", first_name="Ada", last_name="L", own=PASSWORD)
        ).user
        assert (changed.email, changed.first_name, changed.last_name) == ("ada@alpha.example", "Ada", "L")
        assert await seen(s, ada, ada) == changed
        assert (await change(s, ada, ada, email="", own=PASSWORD)).user.email == ""
        told = [event.data for event in await s.events("user.update")]
        assert len(told) == 2
        assert not any("example" in data or "Ada" in data for data in told)


async def test_nobody_changes_his_own_rights_without_a_rule(tmp_path):
    async with server(tmp_path) as s:
        ada = await s.user("ada", await s.account("Alpha"), ["Viewer"])
        tricks: tuple[dict[str, Any], ...] = (
            {"roles": []},
            {"extra_rules": []},
            {"roles": ["Root"]},
            {"roles": [], "email": "a@b"},
        )
        for fields in tricks:
            assert await refusal(change(s, ada, ada, **fields)) == "NOT_ALLOWED"


async def test_stolen_login_sets_no_password_and_takes_no_factor_from_its_user(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        assert await refusal(change(s, root, root, password=NEW_PASSWORD)) == "NOT_ALLOWED"
        request = admin.RemoveTotpRequest(user_id=root.user_id)
        assert await refusal(s.admin.RemoveTotp(request, metadata=root.metadata)) == "NOT_ALLOWED"


async def test_stolen_login_does_not_redirect_the_mails_that_reset_the_password(tmp_path):
    """Nor does it find the password out: what is wrong counts as at a login."""
    async with server(tmp_path) as s:
        ada = await s.user("ada", await s.account("Alpha"))
        await change(s, ada, ada, email="ada@alpha.example", own=PASSWORD)
        await change(s, ada, ada, email="ada@alpha.example", first_name="Ada")  # the same: nothing to prove
        assert await refusal(change(s, ada, ada, email="eve@evil.example")) == "INVALID_FIELD"
        tries = [await refusal(change(s, ada, ada, email="eve@evil.example", own="a guess")) for _ in range(6)]
        assert tries == ["LOGIN_FAILED"] * 5 + ["LOCKED_OUT"]
        assert (await seen(s, ada, ada)).email == "ada@alpha.example"


async def test_api_key_does_not_change_the_mail_address_that_resets_go_to(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        ends = timestamp(utc_now() + timedelta(days=1))
        request = auth.CreateApiKeyRequest(api_key_id=s.new_id(), name="robot", expires_at=ends)
        key = bearer((await s.auth.CreateApiKey(request, metadata=root.metadata)).secret)
        wish = admin.UpdateUserRequest(user_id=root.user_id, update_mask=FieldMask(paths=["email"]), email="a@b")
        assert await refusal(s.admin.UpdateUser(wish, metadata=key)) == "NOT_ALLOWED"


# ---- others --------------------------------------------------------------------------------------------------------


async def test_admin_gives_nobody_more_than_he_has(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        ada = await s.user("ada", alpha.organization_account_id, ["Viewer"])
        before = await seen(s, alpha, ada)
        wish = {"username": "eve", "password": PASSWORD, "organization_account_id": alpha.organization_account_id}
        for fields, expected in (
            ({"roles": ["Collaboration Admin"]}, "NOT_ALLOWED"),
            ({"extra_rules": rules("TASK VIEW GLOBAL")}, "NOT_ALLOWED"),
            ({"extra_rules": rules("ORGANIZATION CREATE GLOBAL")}, "NOT_ALLOWED"),
            ({"extra_rules": rules("RUN SEND OWN")}, "INVALID_FIELD"),
            ({"roles": ["Emperor"]}, "ROLE_NOT_FOUND"),
            ({"password": "short"}, "PASSWORD_WEAK"),
        ):
            assert await refusal(change(s, alpha, ada, **fields)) == expected
            request = admin.CreateUserRequest(user_id=s.new_id(), **(wish | fields))
            assert await refusal(s.admin.CreateUser(request, metadata=alpha.metadata)) == expected
        assert await seen(s, alpha, ada) == before
        assert await names(s, alpha) == ["ada", "admin@alpha"]


async def test_admin_does_not_reach_through_a_user_who_may_do_more(tmp_path):
    """Whoever sets the password, the mail address or the factor of somebody is him."""
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        above = await s.user("above", alpha.organization_account_id, ["Root"])
        tricks: tuple[dict[str, Any], ...] = (
            {"password": NEW_PASSWORD},
            {"email": "evil@alpha.example"},
            {"roles": []},
            {"first_name": "x"},
        )
        for fields in tricks:
            assert await refusal(change(s, alpha, above, **fields)) == "NOT_ALLOWED"
        assert await refusal(remove(s, alpha, above)) == "NOT_ALLOWED"
        request = admin.RemoveTotpRequest(user_id=above.user_id)
        assert await refusal(s.admin.RemoveTotp(request, metadata=alpha.metadata)) == "NOT_ALLOWED"
        end = auth.EndLoginsRequest(user_id=above.user_id)
        assert await refusal(s.auth.EndLogins(end, metadata=alpha.metadata)) == "NOT_ALLOWED"
        assert (await whoami(s, above)).user_id == above.user_id


async def test_coordinator_makes_himself_no_user_at_a_partner_who_sees_more_than_he(tmp_path):
    """A rule for the partner's organization reaches what the coordinator's own does not: the partner's other collaborations."""
    async with server(tmp_path) as s:
        admins = await s.publish(world(("Alpha", "Beta"), now=utc_now()))
        alpha, beta = (admins[name].organization_account_id for name in ("Alpha", "Beta"))
        eve = await s.user("eve", alpha, ["Collaboration Admin"])
        given = rules("USER CREATE COLLABORATION", "USER EDIT COLLABORATION", "USER VIEW COLLABORATION")
        await change(s, await s.root(), eve, extra_rules=given)
        eve = await s.log_in("eve", eve.user_id, alpha)
        wish: dict[str, Any] = {
            "user_id": s.new_id(),
            "username": "puppet",
            "password": PASSWORD,
            "organization_account_id": beta,
        }
        for more in ({"roles": ["Viewer"]}, {"extra_rules": rules("TASK VIEW ORGANIZATION")}):
            request = admin.CreateUserRequest(**wish, **more)
            assert await refusal(s.admin.CreateUser(request, metadata=eve.metadata)) == "NOT_ALLOWED"
        assert await refusal(change(s, eve, admins["Beta"], password=NEW_PASSWORD)) == "NOT_ALLOWED"
        request = admin.CreateUserRequest(**wish, extra_rules=rules("USER VIEW ORGANIZATION"))
        await s.admin.CreateUser(request, metadata=eve.metadata)
        assert "puppet" in await names(s, eve)


async def test_user_who_is_not_seen_is_not_there(tmp_path):
    async with server(tmp_path) as s:
        alpha, beta = await s.organization_admin("Alpha"), await s.organization_admin("Beta")
        for call in (change(s, alpha, beta, first_name="x"), remove(s, alpha, beta)):
            assert await refusal(call) == "USER_NOT_FOUND"


# ---- what changes is felt at once ----------------------------------------------------------------------------------


async def test_login_ends_when_roles_change(tmp_path):
    async with server(tmp_path) as s:
        root, ada = await s.root(), await s.user("ada", await s.account("Alpha"), ["Researcher"])
        assert (await whoami(s, ada)).rules
        await change(s, root, ada, roles=["Viewer"])
        assert await refusal(whoami(s, ada)) == "TOKEN_INVALID"
        refresh = auth.RefreshRequest(refresh_token=ada.tokens.refresh_token)
        assert await refusal(s.auth.Refresh(refresh)) == "TOKEN_INVALID"
        assert await names(s, await s.log_in("ada"))


async def test_password_of_an_admins_choice_replaces_the_old_one_and_what_was_mailed(tmp_path):
    async with server(tmp_path) as s:
        root, ada = await s.root(), await s.user("ada", await s.account("Alpha"))
        now, table = utc_now(), login_tables.reset_tokens
        mailed = {"token_hash": b"x", "user_id": ada.user_id, "purpose": "password", "created_at": now}
        ends = now + timedelta(hours=1)
        store = s.running.core.store
        await store.write(lambda connection: connection.execute(insert(table).values(expires_at=ends, **mailed)))
        await change(s, root, ada, password=NEW_PASSWORD)
        assert await refusal(whoami(s, ada)) == "TOKEN_INVALID"
        assert await refusal(s.log_in("ada")) == "LOGIN_FAILED"
        await s.auth.Login(auth.LoginRequest(username="ada", password=NEW_PASSWORD))
        [row] = await store.read(lambda connection: connection.execute(table.select()).all())
        assert row.used_at is not None


async def test_removed_user_is_gone_with_logins_and_keys_and_his_name_is_free(tmp_path):
    async with server(tmp_path) as s:
        root, account = await s.root(), await s.account("Alpha")
        ada = await s.user("ada", account, ["Viewer"])
        ends = timestamp(utc_now() + timedelta(days=1))
        request = auth.CreateApiKeyRequest(api_key_id=s.new_id(), name="robot", expires_at=ends)
        key = bearer((await s.auth.CreateApiKey(request, metadata=ada.metadata)).secret)
        await s.admin.ListUsers(admin.ListUsersRequest(), metadata=key)
        await remove(s, root, ada)
        assert await refusal(whoami(s, ada)) == "TOKEN_INVALID"
        assert await refusal(s.admin.ListUsers(admin.ListUsersRequest(), metadata=key)) == "TOKEN_INVALID"
        assert await refusal(remove(s, root, ada)) == "USER_NOT_FOUND"
        assert (await s.user("ada", account)).user_id != ada.user_id
        [event] = await s.events("user.delete")
        assert ada.user_id in event.data


async def test_lost_factor_is_taken_by_who_knows_the_user_and_his_logins_end(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        ada = await s.user("ada", alpha.organization_account_id, ["Viewer"])
        now = utc_now()
        factor = {"user_id": ada.user_id, "sealed_secret": b"x", "created_at": now, "confirmed_at": now}
        await s.running.core.store.write(
            lambda connection: connection.execute(insert(login_tables.totp).values(**factor))
        )
        assert (await seen(s, alpha, ada)).has_totp
        request = admin.RemoveTotpRequest(user_id=ada.user_id)
        assert not (await s.admin.RemoveTotp(request, metadata=alpha.metadata)).user.has_totp
        assert await refusal(whoami(s, ada)) == "TOKEN_INVALID"
        await s.admin.RemoveTotp(request, metadata=alpha.metadata)
        assert len(await s.events("user.remove_totp")) == 1


async def test_rights_that_another_instance_took_a_moment_ago_give_nothing(tmp_path):
    """What this instance remembers may be some seconds old: enough to look, never enough to give."""
    async with server(tmp_path) as s:
        root = await s.root()
        eve = await s.user("eve", root.organization_account_id, ["Root"])
        ada = await s.user("ada", root.organization_account_id)
        assert await names(s, eve)
        table = tables.users
        taken = update(table).where(table.c.user_id == eve.user_id).values(roles="[]")
        await s.running.core.store.write(lambda connection: connection.execute(taken))
        assert await names(s, eve)  # remembered
        wish: dict[str, Any] = {
            "username": "puppet",
            "password": PASSWORD,
            "organization_account_id": root.organization_account_id,
        }
        create = admin.CreateUserRequest(user_id=s.new_id(), roles=["Root"], **wish)
        role = admin.CreateRoleRequest(role_id=s.new_id(), name="Emperor", rules=rules("USER EDIT GLOBAL"))
        for call in (
            s.admin.CreateUser(create, metadata=eve.metadata),
            s.admin.CreateRole(role, metadata=eve.metadata),
            change(s, eve, eve, roles=["Root"]),
            change(s, eve, ada, extra_rules=rules("USER EDIT GLOBAL")),
            remove(s, eve, root),
        ):
            assert await refusal(call) in ("NOT_ALLOWED", "USER_NOT_FOUND")
        assert {user.username for user in await listed(s, root) if user.roles or user.extra_rules} == {root.username}


# ---- somebody may do everything ------------------------------------------------------------------------------------


async def test_last_user_who_may_do_everything_stays(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        assert await refusal(remove(s, root, root)) == "PROTECTED"
        assert await refusal(change(s, root, root, roles=["Viewer"])) == "PROTECTED"
        request = admin.DeleteOrganizationRequest(
            organization_account_id=root.organization_account_id, delete_dependents=True
        )
        assert await refusal(s.admin.DeleteOrganization(request, metadata=root.metadata)) == "PROTECTED"
        other = await s.user("other", root.organization_account_id, ["Root"])
        await remove(s, other, root)
        assert await refusal(remove(s, other, other)) == "PROTECTED"


@pytest.mark.both_databases
async def test_of_two_who_take_everything_from_each_other_one_keeps_it(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        other = await s.user("other", root.organization_account_id, ["Root"])
        calls = (change(s, root, other, roles=[]), change(s, other, root, roles=[]))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, admin.UpdateUserResponse) for outcome in outcomes) == 1
        left = await s.log_in(root.username), await s.log_in(other.username)
        assert [bool((await whoami(s, each)).rules) for each in left] in ([True, False], [False, True])


@pytest.mark.both_databases
async def test_nobody_takes_the_id_of_somebody_who_was_deleted_and_with_it_what_he_made(tmp_path):
    """Tasks, sessions and events name their maker by his id, which everybody sees with whom he has worked."""
    async with server(tmp_path) as s:
        root = await s.root()
        ada, beta = await s.user("ada", await s.account("Alpha"), ["Researcher"]), await s.organization_admin("Beta")
        await remove(s, root, ada)
        again = admin.CreateUserRequest(
            user_id=ada.user_id,
            username="eve",
            password=PASSWORD,
            organization_account_id=beta.organization_account_id,
        )
        assert await refusal(s.admin.CreateUser(again, metadata=beta.metadata)) == "ID_TAKEN"
        gone = admin.DeleteOrganizationRequest(organization_account_id=ada.organization_account_id)
        await s.admin.DeleteOrganization(gone, metadata=root.metadata)
        taken = admin.CreateOrganizationRequest(organization_account_id=ada.organization_account_id, name="Eve")
        assert await refusal(s.admin.CreateOrganization(taken, metadata=root.metadata)) == "ID_TAKEN"


# ---- etags, masks, names, filters ----------------------------------------------------------------------------------


async def test_change_of_what_was_changed_meanwhile_is_refused(tmp_path):
    async with server(tmp_path) as s:
        root, ada = await s.root(), await s.user("ada", await s.account("Alpha"))
        read = (await seen(s, root, ada)).etag
        now = (await change(s, root, ada, first_name="Ada", etag=read)).user.etag
        assert now != read
        assert await refusal(change(s, root, ada, first_name="Eve", etag=read)) == "ETAG_MISMATCH"
        assert await refusal(remove(s, root, ada, etag=read)) == "ETAG_MISMATCH"
        assert (await change(s, root, ada, first_name="Ada", etag=now)).user.etag == now
        await remove(s, root, ada, etag=now)


async def test_mask_names_what_can_be_changed(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        for path in ("username", "organization_account_id", "user_id", "etag", "*", "", "email.x"):
            request = admin.UpdateUserRequest(user_id=root.user_id, update_mask=FieldMask(paths=["email", path]))
            error = await refused(s.admin.UpdateUser(request, metadata=root.metadata))
            assert reason(error) == "INVALID_FIELD"
            assert [field for field, _ in error.violations] == [f"update_mask.{path}"]


async def test_two_users_do_not_share_a_mail_address(tmp_path):
    async with server(tmp_path) as s:
        root, account = await s.root(), await s.account("Alpha")
        ada, eve = await s.user("ada", account), await s.user("eve", account)
        await change(s, root, ada, email="ada@alpha.example")
        assert await refusal(change(s, eve, eve, email="ADA@alpha.example", own=PASSWORD)) == "NAME_TAKEN"
        assert await names(s, root, email="Ada@Alpha.Example") == ["ada"]


@pytest.mark.both_databases
async def test_users_are_filtered(tmp_path):
    async with server(tmp_path) as s:
        alpha, root = await s.organization_admin("Alpha"), await s.root()
        await s.user("ada", alpha.organization_account_id, ["Viewer"])
        await s.user("a_a", alpha.organization_account_id, ["Researcher", "Viewer"])
        assert await names(s, root, role="Viewer") == ["a_a", "ada"]
        assert await names(s, root, role="viewer") == []
        assert await names(s, root, username_prefix="a_") == ["a_a"]
        assert await names(s, root, organization_account_id=root.organization_account_id) == ["root@hub"]


async def test_user_is_shown_with_his_last_login_and_lock(tmp_path):
    async with server(tmp_path) as s:
        root, ada = await s.root(), await s.user("ada", await s.account("Alpha"))
        assert (await seen(s, root, ada)).HasField("last_login_at")
        for _ in range(5):
            await refused(s.auth.Login(auth.LoginRequest(username="ada", password="wrong")))
        assert (await seen(s, root, ada)).HasField("locked_until")
