"""Lost passwords and second factors, from Python and a shell, with tokens that a real mail server was given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyotp
import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncServerClient, FolkmootError
from tests.integration.client.conftest import Command
from tests.integration.harness import PASSWORD, Clock, Server, server
from tests.integration.server.mailbox import Mailbox, mailbox

NEW = "a different password"
ADA = "ada@alpha.example"


@pytest.fixture(scope="module")
def mails(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mailbox]:
    with mailbox(tmp_path_factory.mktemp("mail")) as box:
        yield box


@pytest.fixture
def box(mails: Mailbox, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """The mail server, empty, and trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(mails.authority))
    for mail in mails.folder.iterdir():
        mail.unlink()
    return mails


def client(running: Server, folder: Path, **login: str) -> AsyncServerClient:
    authority = folder / "ca.pem"
    authority.write_bytes(running.running.certificate_authority or b"")
    return AsyncServerClient(server=running.running.address, certificate_authority=authority, **login)  # type: ignore[arg-type]


def settings(box: Mailbox, folder: Path) -> dict[str, Any]:
    return box.settings(folder)


async def ada_of(running: Server, folder: Path) -> None:
    """Make a user with a mail address."""
    root = await running.root()
    async with client(running, folder, username=root.username, password=PASSWORD) as opened:
        await opened.users.create("ada", password=PASSWORD, roles=["Viewer"], email=ADA)


async def reason_of(running: Server, folder: Path, password: str) -> str:
    async with client(running, folder, username="ada", password=password) as opened:
        try:
            await opened.account.show()
        except FolkmootError as error:
            return error.reason_name
    return ""


async def test_a_lost_password_is_set_anew_from_python(tmp_path: Path, box: Mailbox):
    async with server(tmp_path / "server", **settings(box, tmp_path)) as running:
        await ada_of(running, tmp_path)
        async with client(running, tmp_path) as stranger:
            await stranger.account.request_password_reset("nobody")
            await stranger.account.request_password_reset(ADA)
            token = await box.token(ADA)
            await stranger.account.reset_password(token, NEW)
            with pytest.raises(FolkmootError) as again:
                await stranger.account.reset_password(token, NEW)
        assert again.value.reason_name == "RESET_TOKEN_INVALID"
        assert [await reason_of(running, tmp_path, each) for each in (PASSWORD, NEW)] == ["LOGIN_FAILED", ""]
        assert len(list(box.folder.glob("*.eml"))) == 1


async def test_both_are_set_anew_from_a_shell_that_was_never_logged_in(
    tmp_path: Path, box: Mailbox, folkmoot: Command, monkeypatch: pytest.MonkeyPatch
):
    clock = Clock()
    async with server(tmp_path / "server", clock=clock, **settings(box, tmp_path)) as running:
        await ada_of(running, tmp_path)
        async with client(running, tmp_path, username="ada", password=PASSWORD) as opened:
            secret = (await opened.account.enroll_totp(PASSWORD)).secret
            await opened.account.confirm_totp(pyotp.TOTP(secret).at(clock()))
        for name, value in {
            "FOLKMOOT_SERVER": running.running.address,
            "FOLKMOOT_CERTIFICATE_AUTHORITY": str(tmp_path / "ca.pem"),
            "FOLKMOOT_USERNAME": "ada",
            "FOLKMOOT_NEW_PASSWORD": NEW,
        }.items():
            monkeypatch.setenv(name, value)

        monkeypatch.setenv("FOLKMOOT_PASSWORD", PASSWORD)
        asked = await folkmoot("account", "totp", "forgot")
        assert (asked.code, "a mail is on its way" in asked.output) == (Exit.OK, True), asked
        monkeypatch.setenv("FOLKMOOT_RESET_TOKEN", "none that was ever mailed" * 2)
        assert (await folkmoot("account", "totp", "reset")).code == Exit.DENIED
        assert await reason_of(running, tmp_path, PASSWORD) == "TOTP_REQUIRED"
        monkeypatch.setenv("FOLKMOOT_RESET_TOKEN", await box.token(ADA))
        removed = await folkmoot("account", "totp", "reset")
        assert removed.code == Exit.OK, removed
        assert await reason_of(running, tmp_path, PASSWORD) == ""

        assert (await folkmoot("account", "forgot-password", "ada")).code == Exit.OK
        monkeypatch.setenv("FOLKMOOT_RESET_TOKEN", await box.token(ADA, 2))
        assert (await folkmoot("account", "reset-password")).code == Exit.OK
        assert [await reason_of(running, tmp_path, each) for each in (PASSWORD, NEW)] == ["LOGIN_FAILED", ""]
