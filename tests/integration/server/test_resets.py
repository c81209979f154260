"""Lost passwords and second factors, with a real mail server: what somebody tries who has the mailbox, or only a name."""

import inspect
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from folkmoot.server.nodes.attempts import MOST_FROM_ONE_PLACE
from folkmoot.server.people import mail, passwords
from folkmoot.server.people.guesses import FAILURES_BEFORE_LOCK_OUT
from folkmoot.server.people.resets import MOST_PER_USER, Resets
from folkmoot.server.store import tables
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from tests.integration.harness import PASSWORD, Clock, Server, User, reason, refused, server
from tests.integration.server.factors import enroll, login, who_am_i
from tests.integration.server.mailbox import mailbox
from tests.polling import until

NEW = "a different password"
ADA = "ada@alpha.example"


@pytest.fixture(scope="module")
def mails(tmp_path_factory):
    with mailbox(tmp_path_factory.mktemp("mail")) as box:
        yield box


@pytest.fixture
def box(mails, monkeypatch):
    """The mail server, empty, and trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(mails.authority))
    for mail_file in mails.folder.iterdir():
        mail_file.unlink()
    return mails


async def ada_of(s: Server) -> User:
    """Return a user with a mail address."""
    root = await s.root()
    user = await s.user("ada", root.organization_account_id, ["Viewer"])
    change = admin.UpdateUserRequest(user_id=user.user_id, email=ADA)
    change.update_mask.paths.append("email")
    await s.admin.UpdateUser(change, metadata=root.metadata)
    return await s.log_in("ada", user.user_id, user.organization_account_id)


def request_password(s, name="ada"):
    return s.auth.RequestPasswordReset(auth.RequestPasswordResetRequest(username_or_email=name))


def reset_password(s, token, new=NEW):
    return s.auth.ResetPassword(auth.ResetPasswordRequest(reset_token=token, new_password=new))


def request_totp(s, name="ada", password=PASSWORD):
    return s.auth.RequestTotpReset(auth.RequestTotpResetRequest(username=name, password=password))


def reset_totp(s, token, password=PASSWORD):
    return s.auth.ResetTotp(auth.ResetTotpRequest(reset_token=token, password=password))


# ---- passwords -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ada", "Ada@Alpha.example"])
async def test_a_mailed_token_sets_a_password_once_and_ends_all_logins(tmp_path, box, name):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        ada = await ada_of(s)
        await who_am_i(s, ada)
        for _ in range(FAILURES_BEFORE_LOCK_OUT):
            await refused(login(s, "ada", "a forgotten one"))
        await request_password(s, name)
        token = await box.token(ADA)
        assert reason(await refused(reset_password(s, token, "short"))) == "PASSWORD_WEAK"
        assert reason(await refused(reset_password(s, token, "ada@alpha.example"))) == "PASSWORD_WEAK"
        await reset_password(s, token)
        assert reason(await refused(who_am_i(s, ada))) == "TOKEN_INVALID"
        refresh = s.auth.Refresh(auth.RefreshRequest(refresh_token=ada.tokens.refresh_token))
        assert reason(await refused(refresh)) == "TOKEN_INVALID"
        await login(s, "ada", NEW)
        assert reason(await refused(login(s, "ada"))) == "LOGIN_FAILED"
        assert reason(await refused(reset_password(s, token))) == "RESET_TOKEN_INVALID"
        [event] = await s.events("user.reset_password")
        assert ada.user_id in event.data


async def test_the_answer_is_the_same_whether_there_is_such_a_user(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        answers = [await request_password(s, name) for name in ("nobody", "nobody@alpha.example", "root@hub", "ada")]
        assert all(answer == auth.RequestPasswordResetResponse() for answer in answers)
        await box.token(ADA)
        assert len(list(box.folder.glob("*.eml"))) == 1, "who does not exist, or has no address, gets no mail"


async def test_nothing_that_depends_on_the_user_stands_between_question_and_answer(tmp_path, box, monkeypatch):
    """The time of the answer tells nothing: the look at the database, the token and the mail come behind it."""
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        posted, hashed = [], []
        monkeypatch.setattr(mail.Mail, "post", lambda _mail, write: posted.append(write))
        monkeypatch.setattr(passwords, "_verify", lambda *_given: hashed.append(1))
        for name in ("ada", "nobody"):
            await request_password(s, name)
        assert (len(posted), hashed) == (2, [])
        assert not inspect.iscoroutinefunction(Resets.request_password_reset), "it can't wait for anything"
        assert await s.events("user.request_password_reset") == []
        letters = [await write() for write in posted]
        assert [letter and letter.to for letter in letters] == [ADA, None]


async def test_a_mail_server_that_is_down_for_a_while_keeps_nobody_waiting_and_loses_nothing(
    tmp_path, box, monkeypatch
):
    monkeypatch.setattr(mail, "RETRY_SECONDS", (0.01, 0.01))
    outcomes, original = (
        [ConnectionRefusedError("down"), ConnectionRefusedError("still down")],
        mail.MailServer.hand_over,
    )

    async def at_the_third_time(self, message, to):
        if outcomes:
            raise outcomes.pop()
        await original(self, message, to)

    monkeypatch.setattr(mail.MailServer, "hand_over", at_the_third_time)
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        await reset_password(s, await box.token(ADA))


async def test_without_a_mail_server_people_are_told_to_ask_somebody(tmp_path):
    async with server(tmp_path) as s:
        assert reason(await refused(request_password(s))) == "NOT_CONFIGURED"
        assert reason(await refused(request_totp(s))) == "NOT_CONFIGURED"


async def test_a_user_gets_so_many_mails_and_the_asker_the_same_answer(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        await ada_of(s)
        for _ in range(MOST_PER_USER + 2):
            await request_password(s)
        await box.token(ADA, MOST_PER_USER)
        assert len(await s.events("user.request_password_reset")) == MOST_PER_USER
        clock.ahead += timedelta(minutes=61)
        s.users.clear()
        await request_password(s)
        await box.token(ADA, MOST_PER_USER + 1)
        assert len(box.mails(ADA)) == MOST_PER_USER + 1


async def test_one_place_asks_so_often_and_no_more(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        for number in range(MOST_FROM_ONE_PLACE):
            await request_password(s, f"nobody{number}")
        assert reason(await refused(request_password(s))) == "TOO_MANY"


async def test_a_token_is_good_for_an_hour(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        token = await box.token(ADA)
        clock.ahead += timedelta(minutes=60)
        assert reason(await refused(reset_password(s, token))) == "RESET_TOKEN_INVALID"


@pytest.mark.parametrize("token", ["x", "A" * 43, "fmk_a_b"])
async def test_a_guessed_token_is_nobodys(tmp_path, box, token):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        assert reason(await refused(reset_password(s, token))) == "RESET_TOKEN_INVALID"
        assert reason(await refused(reset_totp(s, token))) == "RESET_TOKEN_INVALID"


async def test_a_token_mailed_before_the_password_was_changed_is_void(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        ada = await ada_of(s)
        await request_password(s)
        token = await box.token(ADA)
        change = auth.ChangePasswordRequest(old_password=PASSWORD, new_password=NEW)
        await s.auth.ChangePassword(change, metadata=ada.metadata)
        assert reason(await refused(reset_password(s, token))) == "RESET_TOKEN_INVALID"


async def test_the_token_is_stored_as_a_hash_and_stands_in_no_log(tmp_path, box, capsys):
    async with server(tmp_path, log_level="debug", **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        token = await box.token(ADA)
        trail = f"{await s.events()}"
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert token.encode() not in stored
    said = capsys.readouterr()
    assert token not in trail + said.out + said.err
    assert ADA not in said.out + said.err


async def test_the_mail_is_to_the_user_alone_and_names_server_and_user(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        await box.token(ADA)
        [mailed] = box.mails(ADA)
        assert mailed["To"] == ADA
        assert "the user ada at https://hub.example:7443" in mailed.get_content()


async def test_nothing_is_mailed_past_a_certificate_that_is_not_trusted(tmp_path, box, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    failures, original = [], mail.failure_of

    def noted(error):
        failures.append(original(error))
        return failures[-1]

    monkeypatch.setattr(mail, "failure_of", noted)
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        await until(lambda: failures)
    assert failures[0].is_permanent
    assert box.mails(ADA) == []


# ---- second factors ------------------------------------------------------------------------------------------------


async def test_a_lost_factor_is_removed_with_mailbox_and_password(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        ada = await ada_of(s)
        await enroll(s, ada, clock)
        assert reason(await refused(request_totp(s, password="wrong password!"))) == "LOGIN_FAILED"
        await request_totp(s)
        token = await box.token(ADA)
        assert reason(await refused(reset_totp(s, token, "wrong password!"))) == "LOGIN_FAILED"
        await reset_totp(s, token)
        assert reason(await refused(who_am_i(s, ada))) == "TOKEN_INVALID"
        assert not (await login(s, "ada")).must_enroll_totp
        assert reason(await refused(reset_totp(s, token))) == "RESET_TOKEN_INVALID"
        assert [event.outcome for event in await s.events("user.reset_totp")] == ["LOGIN_FAILED", "ok"]


async def test_a_reset_token_for_a_password_does_not_reset_the_second_factor(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        await enroll(s, await ada_of(s), clock)
        await request_password(s)
        assert reason(await refused(reset_totp(s, await box.token(ADA)))) == "RESET_TOKEN_INVALID"


async def test_a_reset_token_for_the_second_factor_does_not_set_a_password(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        await enroll(s, await ada_of(s), clock)
        await request_totp(s)
        assert reason(await refused(reset_password(s, await box.token(ADA)))) == "RESET_TOKEN_INVALID"


@pytest.mark.both_databases
async def test_a_mailbox_alone_never_resets_both_factors(tmp_path, box):
    """First a password by mail, then, with that password, the factor by mail: here is where it ends."""
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        ada = await ada_of(s)
        app = await enroll(s, ada, clock)
        await request_password(s)
        await reset_password(s, await box.token(ADA))
        assert reason(await refused(login(s, "ada", NEW))) == "TOTP_REQUIRED", "the factor stays"
        await request_totp(s, password=NEW)  # the same answer, no mail
        await request_password(s)  # what was queued before it is done when this one has arrived
        await box.token(ADA, 2)
        assert [mailed["Subject"] for mailed in box.mails(ADA)] == ["Folkmoot: a new password"] * 2
        # Whoever shows the factor as well is not the mailbox alone: from then on both may be reset again.
        await login(s, "ada", NEW, app.next_code())
        await request_totp(s, password=NEW)
        await reset_totp(s, await box.token(ADA, 3), NEW)
        await login(s, "ada", NEW)


async def test_a_factor_token_from_before_the_password_was_mailed_is_void(tmp_path, box):
    clock = Clock()
    async with server(tmp_path, clock=clock, **box.settings(tmp_path)) as s:
        await enroll(s, await ada_of(s), clock)
        await request_totp(s)
        factor_token = await box.token(ADA)
        await request_password(s)
        await reset_password(s, await box.token(ADA, 2))
        assert reason(await refused(reset_totp(s, factor_token, NEW))) == "RESET_TOKEN_INVALID"


async def test_asking_for_a_factor_reset_counts_wrong_passwords(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        await ada_of(s)
        for name in ("ada", "nobody"):
            answers = [reason(await refused(request_totp(s, name, "wrong password!"))) for _ in range(6)]
            assert answers == ["LOGIN_FAILED"] * 5 + ["LOCKED_OUT"]


async def test_a_password_of_ones_organizations_name_is_refused_by_mail_too(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        alpha = await s.account("University Hospital")
        ada = await s.user("ada", alpha)
        change = admin.UpdateUserRequest(user_id=ada.user_id, email=ADA)
        change.update_mask.paths.append("email")
        await s.admin.UpdateUser(change, metadata=(await s.root()).metadata)
        await request_password(s)
        token = await box.token(ADA)
        assert reason(await refused(reset_password(s, token, "university hospital 2026"))) == "PASSWORD_WEAK"
        await reset_password(s, token)


# ---- mails that wait, people who have no password -------------------------------------------------------------------


async def test_a_mail_that_waits_when_the_server_stops_is_tried_once_more(tmp_path, box, monkeypatch):
    monkeypatch.setattr(mail, "RETRY_SECONDS", (600,))
    settings = box.settings(tmp_path)
    original = mail.MailServer.hand_over
    waits: list[str] = []

    async def away_at_first(mail_server, message, to):
        if not waits:
            waits.append(to)
            raise ConnectionRefusedError("refused")
        await original(mail_server, message, to)

    monkeypatch.setattr(mail.MailServer, "hand_over", away_at_first)
    async with server(tmp_path / "data", **settings) as s:
        await ada_of(s)
        await request_password(s)
        await until(lambda: waits)
    assert len(box.mails(ADA)) == 1


async def test_a_mail_that_can_not_be_handed_over_before_the_server_stops_is_said_to_be_lost(
    tmp_path, box, monkeypatch, capsys
):
    monkeypatch.setattr(mail, "RETRY_SECONDS", (600, 600))
    waits: list[str] = []

    async def away(_mail_server, _message, to):
        waits.append(to)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(mail.MailServer, "hand_over", away)
    async with server(tmp_path / "data", **box.settings(tmp_path)) as s:
        await ada_of(s)
        await request_password(s)
        await until(lambda: waits)
    told = "".join(capsys.readouterr())
    assert "mail.failed" in told
    assert "keeps no mails" in told
    assert ADA not in told


async def test_who_logs_in_at_the_provider_alone_gets_no_password_by_mail(tmp_path, box):
    """His second factor is there: a mailbox is no way around it."""
    async with server(tmp_path / "data", **box.settings(tmp_path)) as s:
        ada = await ada_of(s)
        nobodys = update(tables.users).where(tables.users.c.user_id == ada.user_id).values(password_hash="")
        await s.running.core.store.write(lambda connection: connection.execute(nobodys))
        await request_password(s)
        await request_password(s, ADA)
    assert box.mails(ADA) == []


async def test_who_calls_himself_by_somebodys_address_keeps_no_mail_from_him(tmp_path, box):
    async with server(tmp_path, **box.settings(tmp_path)) as s:
        root, ada = await s.root(), await ada_of(s)
        eve = await s.user(ADA, root.organization_account_id)
        change = admin.UpdateUserRequest(user_id=eve.user_id, email="eve@evil.example")
        change.update_mask.paths.append("email")
        await s.admin.UpdateUser(change, metadata=root.metadata)
        await request_password(s, ADA)
        await reset_password(s, await box.token(ADA))
        [event] = await s.events("user.reset_password")
        assert ada.user_id in event.data


async def test_a_token_that_came_back_proves_the_address(tmp_path, box):
    async with server(tmp_path / "data", **box.settings(tmp_path)) as s:
        root = await s.root()
        ada = await s.user("ada", root.organization_account_id)
        own = admin.UpdateUserRequest(user_id=ada.user_id, email=ADA, own_password=PASSWORD)
        own.update_mask.paths.append("email")
        await s.admin.UpdateUser(own, metadata=ada.metadata)
        vouched = select(tables.users.c.email_is_vouched).where(tables.users.c.user_id == ada.user_id)
        read = s.running.core.store.read
        assert await read(lambda connection: connection.scalar(vouched)) is False
        await request_password(s)
        await reset_password(s, await box.token(ADA))
        assert await read(lambda connection: connection.scalar(vouched)) is True
