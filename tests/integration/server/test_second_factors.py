"""Second factors: what somebody tries who knows the password, sees a code, or has the database."""

import asyncio
import base64

import pytest

from folkmoot.server.config import Config
from folkmoot.server.people import passwords, totp
from folkmoot.server.people.guesses import FAILURES_BEFORE_LOCK_OUT
from folkmoot.trust import FolkmootError
from folkmoot.v1 import auth_service_pb2 as auth
from folkmoot.v1 import options_pb2 as options
from tests.integration.harness import PASSWORD, ROOT, Clock, bearer, reason, refused, server
from tests.integration.server.factors import begin, enroll, logged_in, login, who_am_i, wrong


def confirm(s, user, code):
    return s.auth.ConfirmTotp(auth.ConfirmTotpRequest(totp_code=code), metadata=user.metadata)


async def test_who_has_a_second_factor_is_asked_for_it(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        assert reason(await refused(login(s, ROOT))) == "TOTP_REQUIRED"
        answer = await login(s, ROOT, code=app.next_code())
        assert not answer.must_enroll_totp
        assert [event.outcome for event in await s.events("user.enroll_totp")] == ["ok"]


async def test_a_code_is_good_once(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        assert reason(await refused(login(s, ROOT, code=app.code()))) == "LOGIN_FAILED", "the code that confirmed"
        code = app.next_code()
        await login(s, ROOT, code=code)
        assert reason(await refused(login(s, ROOT, code=code))) == "LOGIN_FAILED"


async def test_an_earlier_code_is_not_good_after_a_later_one(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        app.next_code()
        earlier = app.code()
        await login(s, ROOT, code=app.code(steps_ahead=1))
        assert reason(await refused(login(s, ROOT, code=earlier))) == "LOGIN_FAILED"


@pytest.mark.both_databases
async def test_of_two_who_show_the_same_code_one_gets_in(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        code = app.next_code()
        calls = [login(s, ROOT, code=code) for _ in range(2)]  # both under way at once
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(isinstance(outcome, auth.LoginResponse) for outcome in outcomes) == [False, True]


async def test_a_wrong_code_is_answered_as_a_wrong_password_is(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        code = app.next_code()
        errors = [
            await refused(login(s, ROOT, code=wrong(code))),
            await refused(login(s, ROOT, "wrong password!", code)),
            await refused(login(s, "nobody", code=code)),
        ]
        assert {(reason(error), error.message) for error in errors} == {("LOGIN_FAILED", errors[0].message)}
        await login(s, ROOT, code=code)


async def test_wrong_codes_lock_out_as_wrong_passwords_do(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        code = app.next_code()
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            assert reason(await refused(login(s, ROOT, code=wrong(code)))) == "LOGIN_FAILED"
        assert reason(await refused(login(s, ROOT, code=code))) == "LOCKED_OUT"


async def test_the_password_alone_does_not_end_a_lock_out(tmp_path):
    """Else who knows the password would show it between any two codes that he guesses."""
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            assert reason(await refused(login(s, ROOT))) == "TOTP_REQUIRED"
            assert reason(await refused(login(s, ROOT, code=wrong(app.code())))) == "LOGIN_FAILED"
        assert reason(await refused(login(s, ROOT))) == "LOCKED_OUT"


async def test_whatever_is_wrong_costs_the_same_work(tmp_path, monkeypatch):
    work: list[str] = []

    def counted(name, original):
        def count(*given):
            work.append(name)
            return original(*given)

        return count

    monkeypatch.setattr(passwords, "_verify", counted("hash", passwords._verify))
    monkeypatch.setattr(totp, "matching_step", counted("code", totp.matching_step))
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        await s.user("without", root.organization_account_id)
        app = await enroll(s, root, clock)
        code = app.next_code()
        costs = []
        for username, password, shown in [
            ("nobody", PASSWORD, code),
            ("without", "wrong password!", code),
            (ROOT, "wrong password!", code),
            (ROOT, PASSWORD, wrong(code)),
            (ROOT, "wrong password!", ""),
        ]:
            work.clear()
            assert reason(await refused(login(s, username, password, shown))) == "LOGIN_FAILED"
            costs.append(tuple(work))
        assert set(costs) == {("code", "hash")}


# ---- setting one up ------------------------------------------------------------------------------------------------


async def test_a_factor_counts_once_its_code_was_seen(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        app = await begin(s, root, clock)
        await login(s, ROOT)
        assert reason(await refused(confirm(s, root, wrong(app.code())))) == "LOGIN_FAILED"
        await confirm(s, root, app.code())
        assert reason(await refused(login(s, ROOT))) == "TOTP_REQUIRED"


async def test_the_last_secret_counts(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        first, second = await begin(s, root, clock), await begin(s, root, clock)
        assert reason(await refused(confirm(s, root, first.code()))) == "LOGIN_FAILED"
        await confirm(s, root, second.code())


async def test_confirming_ends_the_other_logins(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root, other = await s.root(), await s.log_in(ROOT)
        await who_am_i(s, other)
        await enroll(s, root, clock)
        assert reason(await refused(who_am_i(s, other))) == "TOKEN_INVALID"
        await who_am_i(s, root)


async def test_a_stolen_session_does_not_replace_the_factor(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
        await enroll(s, root, clock)
        again = s.auth.EnrollTotp(auth.EnrollTotpRequest(password=PASSWORD), metadata=root.metadata)
        assert reason(await refused(again)) == "TOTP_ALREADY_SET"
        assert reason(await refused(confirm(s, root, "000000"))) == "TOTP_ALREADY_SET"


async def test_setting_one_up_takes_the_password_and_counts_guesses(tmp_path):
    async with server(tmp_path) as s:
        root = await s.root()
        request = auth.EnrollTotpRequest(password="wrong password!")
        answers = [reason(await refused(s.auth.EnrollTotp(request, metadata=root.metadata))) for _ in range(6)]
        assert answers == ["LOGIN_FAILED"] * 5 + ["LOCKED_OUT"]


async def test_confirming_what_was_not_begun_is_refused(tmp_path):
    async with server(tmp_path) as s:
        assert reason(await refused(confirm(s, await s.root(), "123456"))) == "NOT_ALLOWED"


async def test_the_app_gets_the_secret_in_three_forms(tmp_path):
    async with server(tmp_path, public_url="https://hub.example:7443") as s:
        answer = await s.auth.EnrollTotp(auth.EnrollTotpRequest(password=PASSWORD), metadata=(await s.root()).metadata)
        assert answer.uri.startswith("otpauth://totp/hub.example:root%40hub?")
        assert f"secret={answer.secret}" in answer.uri
        assert answer.qr_code.startswith(b"\x89PNG")


async def test_neither_secret_nor_codes_are_stored_in_the_open(tmp_path, capsys):
    clock = Clock()
    async with server(tmp_path, clock=clock, log_level="debug") as s:
        app = await enroll(s, await s.root(), clock)
        await login(s, ROOT, code=app.next_code())
        await refused(login(s, ROOT, code=wrong(app.code())))
        trail = f"{await s.events()}"
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    raw = base64.b32decode(app.secret + "=" * (-len(app.secret) % 8))
    assert raw not in stored
    assert app.secret.encode() not in stored
    said = capsys.readouterr()
    assert app.secret not in trail + said.out + said.err
    assert f'"{app.code()}"' not in trail + said.out + said.err


async def test_a_lost_key_folder_is_answered_as_a_wrong_code_is_and_said_in_the_log(tmp_path, capsys):
    """A database that was restored without its keys: nobody gets in with a code, and nobody learns who has one."""
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        app = await enroll(s, await s.root(), clock)
    (tmp_path / "keys" / "token.pem").unlink()
    async with server(tmp_path, clock=clock) as s:
        assert reason(await refused(login(s, ROOT, code=app.next_code()))) == "LOGIN_FAILED"
        assert reason(await refused(login(s, ROOT, "wrong password!"))) == "LOGIN_FAILED"
    said = capsys.readouterr()
    assert "totp.unreadable" in said.out + said.err


# ---- where every user needs one ------------------------------------------------------------------------------------


async def test_without_a_factor_the_tokens_are_good_for_setting_one_up_alone(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
    async with server(tmp_path, clock=clock, totp="required") as s:
        answer = await login(s, ROOT)
        assert answer.must_enroll_totp
        enrolling = logged_in(root, answer.tokens)
        me = await who_am_i(s, enrolling)
        assert (me.caller, list(me.rules)) == (options.CALLER_ENROLLING_USER, [])
        for call in (
            s.auth.ListLogins(auth.ListLoginsRequest(), metadata=enrolling.metadata),
            s.auth.ListApiKeys(auth.ListApiKeysRequest(), metadata=enrolling.metadata),
            s.auth.ChangePassword(
                auth.ChangePasswordRequest(old_password=PASSWORD, new_password="x" * 12), metadata=enrolling.metadata
            ),
        ):
            assert reason(await refused(call)) == "NOT_ALLOWED"
        await enroll(s, enrolling, clock)
        assert (await who_am_i(s, enrolling)).caller == options.CALLER_USER
        await s.auth.ListLogins(auth.ListLoginsRequest(), metadata=enrolling.metadata)


async def test_sessions_from_before_a_factor_was_demanded_do_no_more(tmp_path):
    clock = Clock()
    async with server(tmp_path, clock=clock) as s:
        root = await s.root()
    async with server(tmp_path, clock=clock, totp="required") as s:
        tokens = (await s.auth.Refresh(auth.RefreshRequest(refresh_token=root.tokens.refresh_token))).tokens
        me = await s.auth.WhoAmI(auth.WhoAmIRequest(), metadata=bearer(tokens.access_token))
        assert me.caller == options.CALLER_ENROLLING_USER


async def test_an_enrolling_user_may_log_out(tmp_path):
    async with server(tmp_path, totp="required") as s:
        root = await s.root()
        await s.auth.Logout(auth.LogoutRequest(), metadata=root.metadata)
        assert reason(await refused(who_am_i(s, root))) == "TOKEN_INVALID"


@pytest.mark.parametrize("totp_setting", ["sometimes", ""])
def test_settings_that_mean_nothing_are_refused(totp_setting, tmp_path):
    with pytest.raises(FolkmootError):
        Config(data=tmp_path, totp=totp_setting)
