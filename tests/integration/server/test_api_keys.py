"""API keys: for an application, within its user's rules, good for nothing that takes the person."""

from datetime import timedelta

import jwt
import pytest
from sqlalchemy import delete as delete_rows

from folkmoot.server.store import tables
from folkmoot.trust.encoding import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import PASSWORD, Clock, User, bearer, reason, refused, server
from tests.polling import until

SEES_USERS = auth.RoleRule(
    resource=options.RESOURCE_USER, operation=options.OPERATION_VIEW, scope=options.SCOPE_ORGANIZATION
)
EDITS_USERS = auth.RoleRule(
    resource=options.RESOURCE_USER, operation=options.OPERATION_EDIT, scope=options.SCOPE_ORGANIZATION
)


def create(s, by, *, days=30.0, rules=(), **changes):
    wish = {
        "api_key_id": s.new_id(),
        "name": "pipeline",
        "rules": rules,
        "expires_at": timestamp(s.running.core.clock() + timedelta(days=days)),
    }
    return s.auth.CreateApiKey(auth.CreateApiKeyRequest(**(wish | changes)), metadata=by.metadata)


async def key_of(s, by, **changes) -> User:
    """Return who acts with a new key of a user."""
    answer = await create(s, by, **changes)
    tokens = auth.Tokens(access_token=answer.secret)
    return User(by.username, by.user_id, by.organization_account_id, tokens)


def who_am_i(s, user):
    return s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=user.metadata)


def list_users(s, by):
    return s.admin.ListUsers(admin.ListUsersRequest(), metadata=by.metadata)


def list_keys(s, by, user_id=""):
    return s.auth.ListApiKeys(auth.ListApiKeysRequest(user_id=user_id), metadata=by.metadata)


def delete(s, by, api_key_id):
    return s.auth.DeleteApiKey(auth.DeleteApiKeyRequest(api_key_id=api_key_id), metadata=by.metadata)


async def test_a_key_acts_for_its_user(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        key = await key_of(s, alpha)
        me, he = await who_am_i(s, key), await who_am_i(s, alpha)
        assert me == he
        await list_users(s, key)
        [event] = await s.events("api_key.create")
        assert event.created_by == alpha.user_id


async def test_a_key_does_no_more_than_it_was_made_for(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        key = await key_of(s, alpha, rules=[SEES_USERS])
        assert list((await who_am_i(s, key)).rules) == [SEES_USERS]
        await list_users(s, key)
        request = admin.CreateUserRequest(
            user_id=s.new_id(),
            username="eve",
            password=PASSWORD,
            organization_account_id=alpha.organization_account_id,
        )
        assert reason(await refused(s.admin.CreateUser(request, metadata=key.metadata))) == "NOT_ALLOWED"


async def test_nobody_makes_a_key_with_a_rule_that_he_lacks(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        viewer = await s.user("viewer", alpha.organization_account_id, ["Viewer"])
        assert reason(await refused(create(s, viewer, rules=[EDITS_USERS]))) == "NOT_ALLOWED"
        wider = auth.RoleRule(
            resource=options.RESOURCE_USER, operation=options.OPERATION_VIEW, scope=options.SCOPE_GLOBAL
        )
        assert reason(await refused(create(s, viewer, rules=[wider]))) == "NOT_ALLOWED"
        meaningless = auth.RoleRule(
            resource=options.RESOURCE_NODE, operation=options.OPERATION_CREATE, scope=options.SCOPE_OWN
        )
        assert reason(await refused(create(s, viewer, rules=[meaningless]))) == "INVALID_FIELD"


async def test_a_key_loses_what_its_user_loses_at_once(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        viewer = await s.user("viewer", alpha.organization_account_id, ["Viewer"])
        key = await key_of(s, viewer, rules=[SEES_USERS])
        await list_users(s, key)  # remembered
        change = admin.UpdateUserRequest(user_id=viewer.user_id)
        change.update_mask.paths.append("roles")
        await s.admin.UpdateUser(change, metadata=alpha.metadata)
        assert list((await who_am_i(s, key)).rules) == []


async def test_the_id_of_a_key_or_login_is_no_token_also_while_a_stream_of_its_bearer_is_open(tmp_path):
    """Colleagues see the ids of keys; and by such an id the bearer of a stream is looked up while it lasts."""
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        viewer = await s.user("viewer", alpha.organization_account_id, ["Viewer"])
        key = await key_of(s, alpha)
        [seen] = (await list_keys(s, viewer, alpha.user_id)).api_keys
        session_id = jwt.decode(alpha.tokens.access_token, options={"verify_signature": False})["sid"]
        for by, known in ((key, seen.api_key_id), (alpha, session_id)):
            watching = s.admin.WatchEvents(admin.WatchEventsRequest(), metadata=by.metadata)
            await watching.read()
            thief = {"metadata": bearer(known)}
            assert reason(await refused(s.auth.WhoAmI(auth.WhoAmIRequest(), **thief))) == "TOKEN_INVALID"
            watching.cancel()


async def test_a_login_that_was_ended_elsewhere_a_moment_ago_leaves_no_key_and_no_user_behind(tmp_path):
    """Another instance ended it, and this one remembers its bearer for some seconds: what stays is decided by the rows."""
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        await who_am_i(s, alpha)
        mine = tables.sessions.c.user_id == alpha.user_id
        await s.running.core.store.write(
            lambda connection: connection.execute(delete_rows(tables.sessions).where(mine))
        )
        request = admin.CreateUserRequest(
            user_id=s.new_id(),
            username="eve",
            password=PASSWORD,
            organization_account_id=alpha.organization_account_id,
        )
        assert reason(await refused(create(s, alpha))) == "NOT_ALLOWED"
        assert reason(await refused(s.admin.CreateUser(request, metadata=alpha.metadata))) == "NOT_ALLOWED"


@pytest.mark.parametrize("method", ["CreateApiKey", "ChangePassword", "EnrollTotp", "ConfirmTotp"])
async def test_what_takes_the_person_no_key_does(tmp_path, method):
    async with server(tmp_path) as s:
        key = await key_of(s, await s.root())
        calls = {
            "CreateApiKey": lambda: create(s, key, name="another"),
            "ChangePassword": lambda: s.auth.ChangePassword(
                auth.ChangePasswordRequest(old_password=PASSWORD, new_password="a different password"),
                metadata=key.metadata,
            ),
            "EnrollTotp": lambda: s.auth.EnrollTotp(auth.EnrollTotpRequest(password=PASSWORD), metadata=key.metadata),
            "ConfirmTotp": lambda: s.auth.ConfirmTotp(
                auth.ConfirmTotpRequest(totp_code="123456"), metadata=key.metadata
            ),
        }
        assert reason(await refused(calls[method]())) == "NOT_ALLOWED"


async def test_a_stolen_key_does_not_redirect_the_mails_that_reset_the_password(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        key = await key_of(s, alpha, rules=[SEES_USERS])
        change = admin.UpdateUserRequest(user_id=alpha.user_id, email="eve@evil.example")
        change.update_mask.paths.append("email")
        assert reason(await refused(s.admin.UpdateUser(change, metadata=key.metadata))) == "NOT_ALLOWED"


async def test_a_stolen_key_ends_no_logins_and_no_other_keys(tmp_path):
    """It ends itself: an application that is done cleans up."""
    async with server(tmp_path) as s:
        root = await s.root()
        key, other = await key_of(s, root), await key_of(s, root, name="other")
        end = auth.EndLoginsRequest()
        assert reason(await refused(s.auth.EndLogins(end, metadata=key.metadata))) == "NOT_ALLOWED"
        ids = {each.name: each.api_key_id for each in (await list_keys(s, root)).api_keys}
        gone = auth.DeleteApiKeyRequest(api_key_id=ids["other"])
        assert reason(await refused(s.auth.DeleteApiKey(gone, metadata=key.metadata))) == "NOT_ALLOWED"
        await s.auth.DeleteApiKey(gone, metadata=other.metadata)
        assert reason(await refused(who_am_i(s, other))) == "TOKEN_INVALID"
        await who_am_i(s, root)


async def test_a_deleted_key_is_over_at_once(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        key = await key_of(s, root)
        await who_am_i(s, key)  # remembered
        [listed] = (await list_keys(s, root)).api_keys
        await delete(s, root, listed.api_key_id)
        assert reason(await refused(who_am_i(s, key))) == "TOKEN_INVALID"
        assert reason(await refused(delete(s, root, listed.api_key_id))) == "API_KEY_NOT_FOUND"
        assert len(await s.events("api_key.delete")) == 1


async def test_a_key_ends(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        key = await key_of(s, await s.root(), days=1)
        await who_am_i(s, key)
        clock.ahead += timedelta(days=1)
        assert reason(await refused(who_am_i(s, key))) == "TOKEN_INVALID"


@pytest.mark.parametrize("days", [-1.0, 0.0, 367.0])
async def test_no_key_lives_for_ever(tmp_path, days):
    async with server(tmp_path) as s:
        error = await refused(create(s, await s.root(), days=days))
        assert (reason(error), error.violations[0][0]) == ("INVALID_FIELD", "expires_at")


@pytest.mark.both_databases
async def test_the_secret_is_told_once(tmp_path):
    async with server(tmp_path) as s:
        root, api_key_id = await s.root(), s.new_id()
        expires_at = timestamp(s.running.core.clock() + timedelta(days=1))
        first = await create(s, root, api_key_id=api_key_id, expires_at=expires_at)
        again = await create(s, root, api_key_id=api_key_id, expires_at=expires_at)
        assert (first.secret != "", again.secret) == (True, "")
        assert again.api_key == first.api_key
        assert len(await s.events("api_key.create")) == 1
        other = create(s, root, api_key_id=api_key_id, name="other", expires_at=expires_at)
        assert reason(await refused(other)) == "ID_TAKEN"
        assert reason(await refused(create(s, root))) == "NAME_TAKEN"


async def test_the_id_of_anothers_key_tells_nothing_of_it(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        eve = await s.user("eve", alpha.organization_account_id)
        expires_at = timestamp(s.running.core.clock() + timedelta(days=1))
        made = await create(s, alpha, expires_at=expires_at)
        stolen = create(s, eve, api_key_id=made.api_key.api_key_id, expires_at=expires_at)
        assert reason(await refused(stolen)) == "ID_TAKEN"
        assert reason(await refused(delete(s, eve, made.api_key.api_key_id))) == "API_KEY_NOT_FOUND"
        assert reason(await refused(list_keys(s, eve, alpha.user_id))) == "USER_NOT_FOUND"
        assert (await list_keys(s, eve)).api_keys == []


async def test_an_administrator_ends_keys_of_his_organization(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        ada = await s.user("ada", alpha.organization_account_id, ["Viewer"])
        key = await key_of(s, ada)
        [listed] = (await list_keys(s, alpha, ada.user_id)).api_keys
        await delete(s, alpha, listed.api_key_id)
        assert reason(await refused(who_am_i(s, key))) == "TOKEN_INVALID"


@pytest.mark.parametrize("part", ["id", "secret", "both", "nothing"])
async def test_a_forged_key_is_nobodys(tmp_path, part):
    async with server(tmp_path) as s:
        root = await s.root()
        secret = (await create(s, root)).secret
        _, api_key_id, rest = secret.split("_", 2)
        forged = {
            "id": f"fmk_{s.new_id()}_{rest}",
            "secret": f"fmk_{api_key_id}_{'A' * 43}",
            "both": "fmk_x_y",
            "nothing": "fmk_",
        }[part]
        call = s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(forged))
        assert reason(await refused(call)) == "TOKEN_INVALID"


async def test_the_secret_is_stored_as_a_hash_and_recorded_nowhere(tmp_path, capsys):
    async with server(tmp_path, log_level="debug") as s:
        root = await s.root()
        secret = (await create(s, root)).secret
        await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(secret))
        trail = f"{await s.events()} {await list_keys(s, root)}"
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    rest = secret.split("_", 2)[2]
    assert rest.encode() not in stored
    said = capsys.readouterr()
    assert rest not in trail + said.out + said.err


async def test_when_a_key_was_last_used_is_noted_to_the_minute(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        key = await key_of(s, root)
        [unused] = (await list_keys(s, root)).api_keys
        assert not unused.HasField("last_used_at")
        await who_am_i(s, key)

        async def noted():
            [used] = (await list_keys(s, root)).api_keys
            return used.HasField("last_used_at") and used.last_used_at.seconds % 60 == 0

        await until(noted)


async def test_a_user_has_so_many_keys_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("folkmoot.server.people.api_keys.MOST_PER_USER", 2)
    async with server(tmp_path) as s:
        root = await s.root()
        for name in ("one", "two"):
            await create(s, root, name=name)
        assert reason(await refused(create(s, root, name="three"))) == "TOO_MANY"


async def test_logging_out_with_a_key_ends_nothing(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        key = await key_of(s, root)
        await s.auth.Logout(auth.LogoutRequest(), metadata=key.metadata)
        await who_am_i(s, key)
        await who_am_i(s, root)
