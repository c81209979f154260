"""Set-up, logging in, staying logged in: what a thief or a guesser would try."""

from datetime import timedelta

import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2

from folkmoot.server import context
from folkmoot.server.people.guesses import FAILURES_BEFORE_LOCK_OUT, FAILURES_FROM_ANYWHERE
from folkmoot.server.people.sessions import ANSWERED_AGAIN_FOR
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import PASSWORD, ROOT, Clock, bearer, reason, refused, server


def login(s, username=ROOT, password=PASSWORD):
    return s.auth.Login(auth.LoginRequest(username=username, password=password))


def refresh(s, token):
    return s.auth.Refresh(auth.RefreshRequest(refresh_token=token))


def who_am_i(s, metadata):
    return s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=metadata)


def setup(s, token, **changes):
    wish = {"setup_token": token, "username": "eve", "password": PASSWORD, "organization_name": "Eve"}
    return s.auth.CompleteSetup(auth.CompleteSetupRequest(**(wish | changes)))


# ---- set-up --------------------------------------------------------------------------------------------------------


async def test_setup_token_works_once(tmp_path):
    async with server(tmp_path) as s:
        await s.root()
        assert reason(await refused(setup(s, s.running.setup_token))) == "SETUP_DONE"
        [event] = await s.events("server.setup")
        assert (event.created_by, event.outcome) == (s.users[ROOT].user_id, "ok")


async def test_wrong_setup_token_makes_nobody(tmp_path):
    async with server(tmp_path) as s:
        assert reason(await refused(setup(s, "x" * 32))) == "SETUP_TOKEN_INVALID"
        assert reason(await refused(login(s, "eve"))) == "LOGIN_FAILED"


async def test_weak_first_password_leaves_the_setup_open(tmp_path):
    async with server(tmp_path) as s:
        assert reason(await refused(setup(s, s.running.setup_token, password="short"))) == "PASSWORD_WEAK"
        await s.root()


async def test_each_start_prints_the_same_token_until_there_is_a_user(tmp_path):
    async with server(tmp_path) as s:
        first = s.running.setup_token
    async with server(tmp_path) as s:
        assert s.running.setup_token == first
        await s.root()
    async with server(tmp_path) as s:
        assert s.running.setup_token is None


async def test_setup_token_is_stored_nowhere(tmp_path):
    async with server(tmp_path) as s:
        token = (s.running.setup_token or "").encode()
    assert token
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and token in path.read_bytes()]


@pytest.mark.parametrize("lost", ["keys/*", "folkmoot.db*"])
async def test_setup_token_is_another_one_with_another_key_or_database(tmp_path, lost):
    async with server(tmp_path) as s:
        first = s.running.setup_token
    for path in tmp_path.glob(lost):
        path.unlink()
    async with server(tmp_path) as s:
        assert s.running.setup_token not in (None, first)
        assert reason(await refused(setup(s, first))) == "SETUP_TOKEN_INVALID"


# ---- passwords -----------------------------------------------------------------------------------------------------


async def test_unknown_user_and_wrong_password_look_the_same(tmp_path):
    async with server(tmp_path) as s:
        await s.root()
        errors = [await refused(login(s, "nobody")), await refused(login(s, password="wrong password!"))]
        assert [reason(error) for error in errors] == ["LOGIN_FAILED"] * 2
        assert errors[0].message == errors[1].message


@pytest.mark.parametrize("username", [ROOT, "nobody"])
async def test_five_wrong_passwords_lock_a_name_out_whether_somebody_has_it_or_not(tmp_path, username):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        await s.root()
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            assert reason(await refused(login(s, username, "wrong password!"))) == "LOGIN_FAILED"
        error = await refused(login(s, username))
        assert reason(error) == "LOCKED_OUT"
        assert 0 < int(error.metadata["retry_after_seconds"]) <= 60
        assert [event.outcome for event in await s.events("call.denied")] == ["LOCKED_OUT"]


async def test_locked_out_program_is_told_when_to_come_back(tmp_path):
    async with server(tmp_path) as s:
        await s.root()
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            await refused(login(s, password="wrong password!"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await login(s)
        details = status_pb2.Status.FromString(
            dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        ).details
        retry = error_details_pb2.RetryInfo()
        assert [detail.Unpack(retry) for detail in details if detail.type_url.endswith("RetryInfo")] == [True]
        assert 0 < retry.retry_delay.seconds <= 60


async def test_lock_out_ends_and_gets_longer(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        await s.root()
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            await refused(login(s, password="wrong password!"))
        clock.ahead += timedelta(seconds=61)
        assert reason(await refused(login(s, password="wrong password!"))) == "LOGIN_FAILED"
        assert int((await refused(login(s))).metadata["retry_after_seconds"]) > 60
        clock.ahead += timedelta(minutes=3)
        await login(s)
        await refused(login(s, password="wrong password!"))
        await login(s)


@pytest.mark.both_databases
async def test_who_guesses_locks_himself_out_and_not_the_one_whose_name_it_is(tmp_path, monkeypatch):
    """But for so many guesses from so many places that it takes a while to make them."""
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        await s.root()
        place, number = context.place, 0
        monkeypatch.setattr(context, "place", lambda: f"evil-{number // FAILURES_BEFORE_LOCK_OUT}")
        for number in range(FAILURES_FROM_ANYWHERE - 1):  # noqa: B007 -- from place to place
            assert reason(await refused(login(s, password="wrong password!"))) == "LOGIN_FAILED"
        monkeypatch.setattr(context, "place", lambda: "evil-0")
        assert reason(await refused(login(s))) == "LOCKED_OUT"
        monkeypatch.setattr(context, "place", place)
        await login(s)
        monkeypatch.setattr(context, "place", lambda: "evil-0")
        assert reason(await refused(login(s))) == "LOCKED_OUT", "a login elsewhere does not let him guess again"
        for number in range(FAILURES_FROM_ANYWHERE):
            monkeypatch.setattr(context, "place", lambda: f"worse-{number // FAILURES_BEFORE_LOCK_OUT}")  # noqa: B023
            assert reason(await refused(login(s, password="wrong password!"))) == "LOGIN_FAILED"
        monkeypatch.setattr(context, "place", lambda: "a new place")
        assert reason(await refused(login(s))) == "LOCKED_OUT"
        monkeypatch.setattr(context, "place", place)
        await login(s)  # where he is logged in, nobody elsewhere shuts him out


async def test_a_new_password_lets_in_whose_name_others_have_locked_out(tmp_path, monkeypatch):
    async with server(tmp_path) as s:
        root = await s.root()
        ada = await s.user("ada", root.organization_account_id)
        for number in range(FAILURES_FROM_ANYWHERE):
            monkeypatch.setattr(context, "place", lambda: f"evil-{number // FAILURES_BEFORE_LOCK_OUT}")  # noqa: B023
            await refused(login(s, "ada", "wrong password!"))
        monkeypatch.setattr(context, "place", lambda: "a new place")
        assert reason(await refused(login(s, "ada"))) == "LOCKED_OUT"
        change = admin.UpdateUserRequest(user_id=ada.user_id, password="a different password")
        change.update_mask.paths.append("password")
        await s.admin.UpdateUser(change, metadata=root.metadata)
        await login(s, "ada", "a different password")


async def test_failures_are_recorded_but_not_what_was_typed_as_a_name(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        await refused(login(s, password="wrong password!"))
        await refused(login(s, username="my-password-in-the-wrong-field"))
        failed = [event for event in await s.events("user.login") if event.outcome == "LOGIN_FAILED"]
        assert [event.created_by for event in failed] == [root.user_id, ""]
        assert await s.events("call.denied") == []
        assert "wrong-field" not in f"{await s.events()}"


async def test_changing_the_password_ends_the_other_sessions(tmp_path):
    async with server(tmp_path) as s:
        mine, other = await s.root(), await s.log_in(ROOT)
        await who_am_i(s, other.metadata)
        change = auth.ChangePasswordRequest(old_password=PASSWORD, new_password="a different password")
        await s.auth.ChangePassword(change, metadata=mine.metadata)
        assert reason(await refused(who_am_i(s, other.metadata))) == "TOKEN_INVALID"
        assert reason(await refused(refresh(s, other.tokens.refresh_token))) == "TOKEN_INVALID"
        await who_am_i(s, mine.metadata)
        assert reason(await refused(login(s))) == "LOGIN_FAILED"
        await login(s, password="a different password")
        assert [event.outcome for event in await s.events("user.change_password")] == ["ok"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [("wrong password!", "a different password", "LOGIN_FAILED"), (PASSWORD, "short", "PASSWORD_WEAK")],
)
async def test_password_stays_if_it_may_not_be_changed(tmp_path, old, new, expected):
    async with server(tmp_path) as s:
        request = auth.ChangePasswordRequest(old_password=old, new_password=new)
        call = s.auth.ChangePassword(request, metadata=(await s.root()).metadata)
        assert reason(await refused(call)) == expected
        await login(s)


async def test_stolen_token_can_not_guess_the_password_at_leisure(tmp_path):
    async with server(tmp_path) as s:
        metadata = (await s.root()).metadata
        request = auth.ChangePasswordRequest(old_password="wrong password!", new_password="a different password")
        reasons = [reason(await refused(s.auth.ChangePassword(request, metadata=metadata))) for _ in range(6)]
        assert reasons == ["LOGIN_FAILED"] * 5 + ["LOCKED_OUT"]


# ---- tokens --------------------------------------------------------------------------------------------------------


async def test_token_tells_who_one_is(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        me = await who_am_i(s, root.metadata)
        assert (me.caller, me.username, me.user_id) == (options.CALLER_USER, ROOT, root.user_id)
        assert me.organization_account_id == root.organization_account_id
        assert {rule.scope for rule in me.rules} == {options.SCOPE_GLOBAL}


async def test_access_token_ends_and_refresh_gives_another(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        await who_am_i(s, root.metadata)
        clock.ahead += timedelta(minutes=16)
        assert reason(await refused(who_am_i(s, root.metadata))) == "TOKEN_INVALID"
        tokens = (await refresh(s, root.tokens.refresh_token)).tokens
        assert (await who_am_i(s, bearer(tokens.access_token))).username == ROOT


async def test_refresh_token_shown_twice_ends_the_session_for_both_bearers(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        stolen = (await s.root()).tokens.refresh_token
        fresh = (await refresh(s, stolen)).tokens
        await who_am_i(s, bearer(fresh.access_token))
        clock.ahead += ANSWERED_AGAIN_FOR + timedelta(seconds=1)
        assert reason(await refused(refresh(s, stolen))) == "TOKEN_INVALID"
        assert reason(await refused(refresh(s, fresh.refresh_token))) == "TOKEN_INVALID"
        assert reason(await refused(who_am_i(s, bearer(fresh.access_token)))) == "TOKEN_INVALID"
        s.users.clear()
        s.users[ROOT] = root = await s.log_in(ROOT)
        [told] = await s.events("user.refresh")
        assert (told.outcome, told.created_by) == ("TOKEN_INVALID", (await who_am_i(s, root.metadata)).user_id)


async def test_refresh_whose_answer_got_lost_is_answered_again_in_the_same_way(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        lost = (await s.root()).tokens.refresh_token
        answers = [(await refresh(s, lost)).tokens]
        clock.ahead += ANSWERED_AGAIN_FOR / 2
        answers.append((await refresh(s, lost)).tokens)
        assert answers[0].refresh_token == answers[1].refresh_token != lost
        assert answers[0].refresh_expires_at == answers[1].refresh_expires_at, "asking again keeps no login alive"
        for answer in answers:
            await who_am_i(s, bearer(answer.access_token))
        await refresh(s, answers[1].refresh_token)
        assert not await s.events("user.refresh")


async def test_refresh_token_whose_successor_was_used_ends_the_session_at_once(tmp_path):
    async with server(tmp_path) as s:
        stolen = (await s.root()).tokens.refresh_token
        fresh = (await refresh(s, (await refresh(s, stolen)).tokens.refresh_token)).tokens
        assert reason(await refused(refresh(s, stolen))) == "TOKEN_INVALID"
        assert reason(await refused(refresh(s, fresh.refresh_token))) == "TOKEN_INVALID"


async def test_unused_session_ends(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock, refresh_token_days=1) as s:
        root = await s.root()
        clock.ahead += timedelta(hours=23)
        tokens = (await refresh(s, root.tokens.refresh_token)).tokens
        clock.ahead += timedelta(hours=23)
        tokens = (await refresh(s, tokens.refresh_token)).tokens
        clock.ahead += timedelta(hours=25)
        assert reason(await refused(refresh(s, tokens.refresh_token))) == "TOKEN_INVALID"


async def test_logging_out_ends_the_session_at_once(tmp_path):
    async with server(tmp_path) as s:
        await s.root()
        mine = await s.log_in(ROOT)
        await who_am_i(s, mine.metadata)
        await s.auth.Logout(auth.LogoutRequest(), metadata=mine.metadata)
        assert reason(await refused(who_am_i(s, mine.metadata))) == "TOKEN_INVALID"
        assert reason(await refused(refresh(s, mine.tokens.refresh_token))) == "TOKEN_INVALID"
        assert len(await s.events("user.logout")) == 1


@pytest.mark.parametrize("token", ["x", ".", "a.b", "é.é"])
async def test_garbage_is_no_refresh_token(tmp_path, token):
    async with server(tmp_path) as s:
        assert reason(await refused(refresh(s, token))) == "TOKEN_INVALID"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # the same rows are in a file that can be searched
async def test_no_secret_is_stored_in_the_open(tmp_path):
    async with server(tmp_path) as s:
        tokens = (await s.root()).tokens
        secrets = [PASSWORD.encode(), tokens.refresh_token.partition(".")[2].encode(), tokens.access_token.encode()]
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not [secret for secret in secrets if secret in stored]
    assert ROOT.encode() in stored, "the search finds what is there"
