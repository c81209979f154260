"""The contract by hand: what grpcurl does (here `buf curl`, which makes the same calls) against a running server."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.harness import PASSWORD, ROOT, Server, server

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Server]:
    async with server(tmp_path / "server") as opened:
        await opened.root()
        yield opened


async def curl(running: Server, *arguments: str) -> tuple[int, str]:
    """Run `buf curl`; return its exit code and all that it said."""
    authority = running.running.core.config.data / "tls" / "ca.pem"
    process = await asyncio.create_subprocess_exec(
        str(BUF),
        "curl",
        *("--protocol", "grpc", "--cacert", str(authority)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def call(running: Server, method: str, request: dict[str, Any], token: str = "") -> tuple[int, str]:
    header = ("-H", f"Authorization: Bearer {token}") if token else ()
    url = f"https://{running.running.address}/folkmoot.v1.{method}"
    return await curl(running, *header, "-d", json.dumps(request), url)


async def log_in(running: Server, username: str) -> str:
    code, said = await call(running, "AuthService/Login", {"username": username, "password": PASSWORD})
    assert code == 0, said
    return str(json.loads(said)["tokens"]["accessToken"])


async def test_services_and_methods_are_listed_without_the_contract_at_hand(running: Server):
    code, said = await curl(running, "--list-services", f"https://{running.running.address}")
    assert code == 0
    for service in ("AuthService", "AdminService", "KeyService", "TaskService", "PayloadService"):
        assert f"folkmoot.v1.{service}" in said
    code, said = await curl(running, "--list-methods", f"https://{running.running.address}")
    assert "folkmoot.v1.TaskService/CreateTask" in said


async def test_reads_with_a_token_and_not_without(running: Server):
    code, said = await call(running, "AdminService/ListOrganizations", {})
    assert code != 0
    assert "TOKEN_INVALID" in said
    code, said = await call(running, "AdminService/ListOrganizations", {}, await log_in(running, ROOT))
    assert code == 0
    assert [one["name"] for one in json.loads(said)["organizations"]] == ["Hub"]


async def test_creates_nothing_without_permission(running: Server):
    account = await running.account("Alpha")
    await running.user("viewer@alpha", account, ["Viewer"])
    token = await log_in(running, "viewer@alpha")
    wish = {"organizationAccountId": running.new_id(), "name": "Mallory"}
    code, said = await call(running, "AdminService/CreateOrganization", wish, token)
    assert code != 0
    assert "NOT_ALLOWED" in said
    _, said = await call(running, "AdminService/ListOrganizations", {}, await log_in(running, ROOT))
    assert [one["name"] for one in json.loads(said)["organizations"]] == ["Alpha", "Hub"]
    [denied] = [event for event in await running.events() if event.outcome == "NOT_ALLOWED"]
    assert "CreateOrganization" in denied.intent + denied.data


async def test_violations_name_the_field(running: Server):
    token = await log_in(running, ROOT)
    code, said = await call(running, "AdminService/CreateOrganization", {"name": "no@name"}, token)
    assert code != 0
    assert "INVALID_FIELD" in said
    assert "organization_account_id" in said or "name" in said


async def test_anybody_may_ask_whether_the_server_is_healthy(running: Server):
    url = f"https://{running.running.address}/grpc.health.v1.Health/Check"
    code, said = await curl(running, "-d", "{}", url)
    assert (code, json.loads(said)["status"]) == (0, "SERVING")
