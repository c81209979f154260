"""Where people are logged in: what they see of it, what they end, and that what was ended is over at once."""

from datetime import timedelta

import pytest

from folkmoot.server.people import guesses
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import task_service_pb2 as pb
from tests.integration.harness import PASSWORD, ROOT, Clock, reason, refused, server
from tests.integration.server.conftest import Hub
from tests.integration.server.factors import login, who_am_i
from tests.integration.server.sealed import task


def list_logins(s, by, user_id=""):
    return s.auth.ListLogins(auth.ListLoginsRequest(user_id=user_id), metadata=by.metadata)


def end_logins(s, by, user_id="", login_id=""):
    return s.auth.EndLogins(auth.EndLoginsRequest(user_id=user_id, login_id=login_id), metadata=by.metadata)


async def test_people_see_where_they_are_logged_in(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        await s.log_in(ROOT)
        logins = (await list_logins(s, root)).logins
        assert [login.is_current for login in logins] == [False, True], "newest first"
        assert {login.peer for login in logins} == {"127.0.0.1"}
        assert all(login.user_agent.startswith("folkmoot/") for login in logins)
        assert all(login.expires_at.seconds > login.renewed_at.seconds for login in logins)


async def test_a_login_id_is_no_token(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        [login] = (await list_logins(s, root)).logins
        refresh_token = root.tokens.refresh_token
        assert login.login_id not in refresh_token
        assert refresh_token.partition(".")[0] not in login.login_id
        for shown in (login.login_id, f"{login.login_id}.", f"{login.login_id}.x"):
            call = s.auth.Refresh(auth.RefreshRequest(refresh_token=shown))
            assert reason(await refused(call)) == "TOKEN_INVALID"
        await who_am_i(s, root)  # nor did showing it end anything


async def test_the_trail_names_logins_as_people_see_them(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        [login] = (await list_logins(s, root)).logins
        assert login.login_id in (await s.events("user.login"))[-1].data


async def test_one_login_is_ended_at_once(tmp_path):
    async with server(tmp_path) as s:
        root, lost = await s.root(), await s.log_in(ROOT)
        await who_am_i(s, lost)  # remembered
        [its_id] = [login.login_id for login in (await list_logins(s, root)).logins if not login.is_current]
        assert (await end_logins(s, root, login_id=its_id)).ended == 1
        assert reason(await refused(who_am_i(s, lost))) == "TOKEN_INVALID"
        refresh = s.auth.Refresh(auth.RefreshRequest(refresh_token=lost.tokens.refresh_token))
        assert reason(await refused(refresh)) == "TOKEN_INVALID"
        assert (await end_logins(s, root, login_id=its_id)).ended == 0
        await who_am_i(s, root)


@pytest.mark.both_databases
async def test_all_other_logins_are_ended_but_ones_own(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        others = [await s.log_in(ROOT) for _ in range(3)]
        assert (await end_logins(s, root)).ended == 3
        assert {reason(await refused(who_am_i(s, other))) for other in others} == {"TOKEN_INVALID"}
        await who_am_i(s, root)
        assert '"ended":3' in (await s.events("user.end_logins"))[-1].data


async def test_logins_of_others_are_for_who_may_see_and_edit_them(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        ada = await s.user("ada", alpha.organization_account_id, ["Viewer"])
        eve = await s.user("eve", alpha.organization_account_id)
        beta = await s.organization_admin("Beta")
        assert len((await list_logins(s, alpha, ada.user_id)).logins) == 1
        for stranger in (eve, beta):
            assert reason(await refused(list_logins(s, stranger, ada.user_id))) == "USER_NOT_FOUND"
            assert reason(await refused(end_logins(s, stranger, ada.user_id))) == "USER_NOT_FOUND"
        await who_am_i(s, ada)
        # A Viewer sees the colleague, and may not end her logins.
        assert len((await list_logins(s, ada, eve.user_id)).logins) == 1
        assert reason(await refused(end_logins(s, ada, eve.user_id))) == "USER_NOT_FOUND"
        assert (await end_logins(s, alpha, ada.user_id)).ended == 1
        assert reason(await refused(who_am_i(s, ada))) == "TOKEN_INVALID"


async def test_a_login_of_somebody_else_is_not_ended_by_its_id(tmp_path):
    async with server(tmp_path) as s:
        alpha = await s.organization_admin("Alpha")
        eve = await s.user("eve", alpha.organization_account_id)
        [its] = (await list_logins(s, alpha)).logins
        assert (await end_logins(s, eve, login_id=its.login_id)).ended == 0
        await who_am_i(s, alpha)


async def test_ended_and_expired_logins_are_not_listed(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock, refresh_token_days=1) as s:
        await s.root()
        clock.ahead += timedelta(days=2)
        s.users.clear()
        again = await s.log_in(ROOT)
        assert [login.is_current for login in (await list_logins(s, again)).logins] == [True]


async def test_a_stream_ends_with_the_login_that_opened_it(hub: Hub) -> None:
    ada = hub.researchers["Alpha"]
    sealed = task(hub.lung, ("Beta", "Gamma"))
    await hub.create(sealed)
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=ada.metadata)
    for _ in range(2):
        await watching.read()
    await hub.server.auth.Logout(auth.LogoutRequest(), metadata=ada.metadata)
    await hub.tasks.CommitRun(sealed.commit("Beta"), metadata=await hub.node("Beta"))
    assert reason(await refused(watching.read())) == "TOKEN_INVALID", "the result is told to nobody who has logged out"


async def test_a_password_of_ones_own_name_is_refused_when_it_is_changed_too(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        change = auth.ChangePasswordRequest(old_password=PASSWORD, new_password="root@hub root@hub")
        assert reason(await refused(s.auth.ChangePassword(change, metadata=root.metadata))) == "PASSWORD_WEAK"


async def test_a_login_with_the_old_password_does_not_outlive_its_change(tmp_path, monkeypatch):
    """The password was right when it was looked at, and another one when the session begins."""
    async with server(tmp_path) as s:
        root = await s.root()
        ada = await s.user("ada", root.organization_account_id)
        original = guesses.Known.check_password

        async def slowly(known, password):
            user = await original(known, password)
            change = admin.UpdateUserRequest(user_id=ada.user_id, password="a different password")
            change.update_mask.paths.append("password")
            await s.admin.UpdateUser(change, metadata=root.metadata)
            return user

        monkeypatch.setattr(guesses.Known, "check_password", slowly)
        assert reason(await refused(login(s, "ada"))) == "LOGIN_FAILED"
        assert (await list_logins(s, root, ada.user_id)).logins == []
