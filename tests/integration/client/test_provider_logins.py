"""Logging in at a real identity provider: in a browser that comes back to this machine, and on another device."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncServerClient, CodeLogin, DeviceCode, DeviceLogin, FolkmootError
from tests.integration.client.conftest import Command
from tests.integration.harness import Server, server
from tests.integration.server.provider import OidcProvider, oidc_provider

pytestmark = pytest.mark.needs_nodejs


@pytest.fixture(scope="module")
def provider() -> Iterator[OidcProvider]:
    with oidc_provider() as running:
        yield running


@pytest.fixture
async def running(provider: OidcProvider, tmp_path: Path) -> AsyncIterator[Server]:
    """A server whose people log in at the provider; ada has an account with the mail address that the provider knows her by."""
    settings: dict[str, Any] = provider.settings(tmp_path)
    async with server(tmp_path / "server", **settings) as made:
        (tmp_path / "ca.pem").write_bytes(made.running.certificate_authority or b"")
        await made.root()
        async with as_root(made, tmp_path) as root:
            await root.organization_accounts.create("Alpha")
            await root.users.create("ada", password="x" * 30, organization="Alpha", email="ada@alpha.example")
        yield made


def as_root(made: Server, folder: Path) -> AsyncServerClient:
    from tests.integration.harness import PASSWORD, ROOT

    return client(made, folder, username=ROOT, password=PASSWORD)


def client(made: Server, folder: Path, **login: Any) -> AsyncServerClient:
    return AsyncServerClient(server=made.running.address, certificate_authority=folder / "ca.pem", **login)


class Browser:
    """A browser on the same machine, which logs in and follows the provider back."""

    def __init__(self, provider: OidcProvider, who: str = "ada") -> None:
        self.provider = provider
        self.who = who
        self.told = ""

    def __call__(self, address: str) -> None:
        """Runs in a thread, as any browser runs beside a program."""
        asyncio.run(self._go(address))

    async def _go(self, address: str) -> None:
        back = parse_qs(urlsplit(address).query)["redirect_uri"][0]
        answer = await self.provider.agree(address, self.who)
        async with httpx2.AsyncClient() as browser:
            assert (await browser.get(back, params={"state": "of another login", "code": "x"})).status_code == 200
            self.told = (await browser.get(back, params=answer)).text


async def test_browser_comes_back_and_a_strangers_request_in_between_counts_for_nothing(
    running: Server, provider: OidcProvider, tmp_path: Path
):
    browser = Browser(provider)
    async with client(running, tmp_path, login=CodeLogin(show=browser)) as ada:
        assert (await ada.account.show()).username == "ada"
        assert (await ada.account.show()).username == "ada", "one login is enough"
    assert browser.told == "You are logged in. You can close this window."


async def test_whom_the_provider_does_not_vouch_for_gets_no_login(
    running: Server, provider: OidcProvider, tmp_path: Path
):
    async with client(running, tmp_path, login=CodeLogin(show=Browser(provider, "unverified-ada"))) as nobody:
        with pytest.raises(FolkmootError) as caught:
            await nobody.account.show()
    assert caught.value.reason_name == "LOGIN_FAILED"


async def test_person_agrees_on_another_device(running: Server, provider: OidcProvider, tmp_path: Path):
    agreeing: list[asyncio.Task[None]] = []

    def show(code: DeviceCode) -> None:
        assert code.code
        agreeing.append(asyncio.ensure_future(provider.agree_on_a_device(code.address_with_code, "ada")))

    async with client(running, tmp_path, login=DeviceLogin(show=show)) as ada:
        assert (await ada.account.show()).username == "ada"
        assert (await ada.server_info()).login_methods == ("password", "code", "device")
    await agreeing[0]


async def test_command_stays_logged_in_after_a_login_in_a_browser(
    running: Server, provider: OidcProvider, tmp_path: Path, folkmoot: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("FOLKMOOT_PASSWORD")
    monkeypatch.setattr("webbrowser.open", Browser(provider))
    there = ["--server", running.running.address, "--certificate-authority", str(tmp_path / "ca.pem")]
    ended = await folkmoot("login", *there, "--method", "code")
    assert ended.code == Exit.OK, ended
    assert (await folkmoot("account", "show", "--json")).json["username"] == "ada"
    assert (await folkmoot("logout")).code == Exit.OK
