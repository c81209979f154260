"""Logging in from Python: a second factor, an API key, an identity provider; and a server that asks its callers to wait."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyotp
import pytest

from folkmoot.client import AsyncServerClient, FolkmootError
from tests.integration.client.conftest import Hub
from tests.integration.harness import PASSWORD, ROOT, Clock, Server, server


def client(running: Server, folder: Path, **login: Any) -> AsyncServerClient:
    authority = folder / "ca.pem"
    authority.write_bytes(running.running.certificate_authority or b"")
    return AsyncServerClient(server=running.running.address, certificate_authority=authority, **login)


async def fails(awaitable) -> str:
    with pytest.raises(FolkmootError) as caught:
        await awaitable
    return caught.value.reason_name


async def test_second_factor_is_asked_for_when_it_is_needed(tmp_path: Path):
    clock = Clock()
    async with server(tmp_path / "server", clock=clock) as running:
        await running.root()
        plain = {"username": ROOT, "password": PASSWORD}
        async with client(running, tmp_path, **plain) as opened:
            secret = await opened.account.enroll_totp(PASSWORD)
            assert secret.qr_code.startswith(b"\x89PNG")
            assert secret.secret not in repr(secret)
            await opened.account.confirm_totp(pyotp.TOTP(secret.secret).at(clock()))

        def code() -> str:
            clock.ahead += timedelta(seconds=30)
            return pyotp.TOTP(secret.secret).at(clock())

        async with client(running, tmp_path, **plain) as opened:
            assert await fails(opened.account.show()) == "TOTP_REQUIRED"
        async with client(running, tmp_path, **plain, totp_code=code) as opened:
            assert (await opened.users.get(ROOT)).has_totp
        async with client(running, tmp_path, **plain, totp_code=code()) as opened:
            assert (await opened.account.show()).username == ROOT


async def test_server_that_demands_a_second_factor_says_so_and_takes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    clock = Clock()
    async with server(tmp_path / "server", clock=clock, totp="required") as running:
        with suppress(Exception):
            await running.root()
        async with client(running, tmp_path, username=ROOT, password=PASSWORD) as opened:
            assert await fails(opened.users.get(ROOT)) != ""
            assert "second factor" in caplog.text
            secret = await opened.account.enroll_totp(PASSWORD)
            await opened.account.confirm_totp(pyotp.TOTP(secret.secret).at(clock()))
            assert (await opened.server_info()).totp_is_required


async def test_application_with_an_api_key_does_what_the_key_may(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    alpha = hub.client("Alpha")
    made = await alpha.account.api_keys.create("nightly", rules=["user:view:organization"])
    assert made.secret not in repr(made)
    assert [(one.name, list(map(str, one.rules))) for one in await alpha.account.api_keys.list()] == [
        ("nightly", ["user:view:organization"])
    ]
    async with client(hub.server, tmp_path, api_key=made.secret) as application:
        assert (await application.users.get("admin@alpha")).username == "admin@alpha"
        assert await fails(application.users.create("eve", password=PASSWORD)) == "NOT_ALLOWED"
    monkeypatch.setenv("FOLKMOOT_API_KEY", made.secret)
    async with client(hub.server, tmp_path) as application:
        assert (await application.account.show()).username == "admin@alpha"
        await alpha.account.api_keys.delete("nightly")
        assert await fails(alpha.account.api_keys.delete("nightly")) == "API_KEY_NOT_FOUND"
    async with client(hub.server, tmp_path) as application:
        with pytest.raises(FolkmootError, match="does not take this API key"):
            await application.account.show()


async def test_organization_registers_itself_where_it_may(hub: Hub, tmp_path: Path):
    async with client(hub.server, tmp_path) as stranger:
        assert (
            await fails(stranger.account.register("Delta", username="dora", password=PASSWORD)) == "REGISTRATION_CLOSED"
        )
        assert await fails(stranger.account.request_password_reset("dora")) == "NOT_CONFIGURED"
        assert await fails(stranger.account.show()) == "TOKEN_INVALID", "there is nothing to log in with"
    async with server(tmp_path / "open", registration="open") as running:
        await running.root()
        async with client(running, tmp_path) as stranger:
            await stranger.account.register("Delta", username="dora", password=PASSWORD)
        async with client(running, tmp_path, username="dora", password=PASSWORD) as dora:
            assert (await dora.users.get("dora")).roles == ("Organization Admin",)


async def test_client_waits_as_long_as_a_busy_server_says(tmp_path: Path):
    async with server(tmp_path / "server", calls_per_second=20.0, call_burst=5) as running:
        await running.root()
        async with client(running, tmp_path, username=ROOT, password=PASSWORD) as opened:
            told = await asyncio.gather(*(opened.account.show() for _ in range(15)))
        assert {one.username for one in told} == {ROOT}


@pytest.mark.parametrize(
    "given",
    [{"username": "ada", "password": "x", "api_key": "y"}, {"username": "ada"}, {"password": "x"}],
)
def test_ways_to_log_in_are_not_mixed(given: dict[str, Any]):
    with pytest.raises(FolkmootError) as caught:
        AsyncServerClient(server="localhost:1", insecure=True, **given)
    assert caught.value.reason_name == "INVALID_FIELD"
