"""The `folkmoot` command against a real server: from an empty machine to a result, and what it says when something is wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client.keyfiles import create_key_files
from folkmoot.trust import dump_organization_key, load_invitation
from tests.integration.client.conftest import Command, Ended, Hub
from tests.integration.harness import PASSWORD, Server, server
from tests.integration.stub_node import StubNode


@pytest.fixture
async def fresh(tmp_path: Path) -> AsyncIterator[Server]:
    async with server(tmp_path / "server") as running:
        (tmp_path / "ca.pem").write_bytes(running.running.certificate_authority or b"")
        yield running


async def test_from_an_empty_server_to_two_members_and_an_invitation(
    fresh: Server, folkmoot: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FOLKMOOT_SETUP_TOKEN", fresh.running.setup_token or "")
    monkeypatch.setenv("FOLKMOOT_NEW_PASSWORD", PASSWORD)
    there = ["--server", fresh.running.address, "--certificate-authority", str(tmp_path / "ca.pem")]

    async def done(*arguments: str, user: str) -> Ended:
        ended = await folkmoot(*arguments, user=user)
        assert ended.code == Exit.OK, ended
        return ended

    await done("setup", *there, "--username", "root", "--organization", "Hub", user="root")
    for name in ("alpha", "beta"):
        await done("organization", "create", name.title(), user="root")
        await done("user", "create", name, "--organization", name.title(), "--role", "Organization Admin", user="root")
        made = await done("key", "create", str(tmp_path / name), "--json", user=name)
        assert [file["created"] for file in made.json] == [True, True]
        files = {"governance-key": "governance.pem", "organization-key": "organization.pem"}
        keys = [part for option, file in files.items() for part in (f"--{option}", str(tmp_path / name / file))]
        await done("login", *there, "--username", name, *keys, user=name)
    users = (await done("user", "list", "--json", user="root")).json
    assert {(one["username"], one["organization"]) for one in users} == {
        ("root", "Hub"),
        ("alpha", "Alpha"),
        ("beta", "Beta"),
    }

    reference = (await done("collaboration", "found", "lung", "--as", "Alpha", user="alpha")).output.strip()
    joined = await done("collaboration", "join", reference, "--as", "Beta", user="beta")
    (request,) = (await done("collaboration", "requests", "--json", user="alpha")).json
    assert (request["name"], request["state"], request["missing"]) == ("Beta", "PENDING", 1)
    assert request["address"] in joined.output
    assert request["words"] in joined.output
    voted = await done("collaboration", "vote", request["address"], "--approve", "--yes", user="alpha")
    assert "it is a member" in voted.output
    members = (await done("collaboration", "members", "--json", user="beta")).json
    assert [(one["name"], one["own"]) for one in members] == [("Alpha", False), ("Beta", True)]
    entries = (await done("collaboration", "log", "--json", user="beta")).json
    assert [one["intent"] for one in entries] == ["collaboration.create", "organization.vote"]
    assert (await done("collaboration", "nodes", user="beta")).output == "(nothing)\n"

    file = tmp_path / "beta-1.invitation"
    await done("node", "invite", "beta-1", "--output", str(file), user="beta")
    assert load_invitation(file.read_bytes()).collaboration == reference
    assert file.stat().st_mode & 0o777 == 0o600
    again = await folkmoot("node", "invite", "beta-1", "--output", str(file), user="beta")
    assert (again.code, "exists already" in again.errors) == (Exit.STATE, True)


async def test_task_from_creation_to_its_result(hub: Hub, alpha: Command):
    create = ("task", "create", "process:examples.average", "average", "-o", "Beta", "-a", "column=age", "-a", "n=3")
    created = (await alpha(*create, "--name", "ages", "--json")).json
    (why,) = (await alpha("task", "why", created["id"], "--json")).json
    assert (why["organization"], why["reason"]) == ("Beta", "NODE_OFFLINE")
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        work = await beta.next()
        assert work.arguments == {"column": "age", "n": 3}
        await work.log("computing")
        async with asyncio.timeout(30):
            while "computing" not in (await alpha("task", "logs", created["id"], "Beta")).output:
                continue
        await work.complete({"mean": 61.5})
        waited = await alpha("task", "wait", created["id"], "--json")
    (result,) = waited.json
    assert (result["organization"], result["state"], result["proven"]) == ("Beta", "COMPLETED", "proven")
    assert (result["value"], waited.code) == ({"mean": 61.5}, Exit.OK)
    (listed,) = (await alpha("task", "list", "--json")).json
    assert (listed["id"], listed["name"], listed["state"]) == (created["id"], "ages", "COMPLETED")
    (shown,) = (await alpha("task", "show", created["id"], "--json")).json
    assert (shown["organization"], shown["state"]) == ("Beta", "COMPLETED")
    assert "61.5" in (await alpha("task", "wait", created["id"])).output


async def test_a_task_is_found_and_deleted(alpha: Command):
    created = (await alpha("task", "create", "process:examples.average", "average", "-o", "Beta")).output.strip()
    refused = await alpha("task", "delete", created, "--yes")
    assert (refused.code, "TASK_NOT_ENDED" in refused.errors) == (Exit.STATE, True)
    await alpha("task", "cancel", created)
    found = (
        await alpha("task", "list", "--state", "cancelled", "--initiator", "Alpha", "--since", "2026-01-01", "--json")
    ).json
    assert [each["id"] for each in found] == [created]
    assert (await alpha("task", "list", "--label", "nothing", "--json")).json == []
    gone = (await alpha("task", "delete-payloads", created, "--yes", "--kind", "input", "--json")).json
    assert gone["envelopes"] == 1
    assert "deleted" in (await alpha("task", "delete", created, "--yes")).output
    assert (await alpha("task", "list", "--json")).json == []


async def test_cancelled_task_ends_with_its_own_code(alpha: Command):
    created = (await alpha("task", "create", "process:examples.average", "average", "-o", "Beta")).output.strip()
    assert (await alpha("task", "cancel", created)).code == Exit.OK
    waited = await alpha("task", "wait", created)
    assert waited.code == Exit.NOT_COMPLETED
    assert "server says" in waited.output


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (
            ["task", "create", "process:examples.average", "average", "-o", "Delta"],
            Exit.NOT_FOUND,
            "Alpha, Beta, Gamma",
        ),
        (["task", "create", "process:no.module", "average", "-o", "Beta"], Exit.NOT_FOUND, "IMAGE_NOT_FOUND"),
        (["task", "create", "process:examples.average", "average"], Exit.USAGE, "organization"),
        (["task", "create", "x", "f", "-o", "Beta", "-a", "age"], Exit.USAGE, "name=value"),
        (["task", "show", "01929b1e-0000-7000-8000-000000000001"], Exit.NOT_FOUND, "TASK_NOT_FOUND"),
        (["task", "show", "nonsense"], Exit.USAGE, "task_id"),
        (["collaboration", "vote", "Delta", "--approve"], Exit.NOT_FOUND, "JOIN_REQUEST_NOT_FOUND"),
        (["collaboration", "join", "lung", "--as", "Delta"], Exit.USAGE, "FINGERPRINT_MISSING"),
    ],
)
async def test_what_is_wrong_is_one_clear_line(alpha: Command, arguments: list[str], code: Exit, words: str):
    ended = await alpha(*arguments)
    assert (ended.code, ended.output) == (code, "")
    assert words in ended.errors
    assert "Traceback" not in ended.errors
    if code is not Exit.USAGE:
        assert ended.errors.count("\n") == 1


async def test_wrong_password(alpha: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLKMOOT_PASSWORD", "wrong horse")
    ended = await alpha("collaboration", "members")
    assert (ended.code, ended.errors.startswith("folkmoot: LOGIN_FAILED: ")) == (Exit.DENIED, True)


async def test_wrong_key_is_not_used(alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    create_key_files(tmp_path / "other")
    monkeypatch.setenv("FOLKMOOT_ORGANIZATION_KEY", str(tmp_path / "other" / "organization.pem"))
    ended = await alpha("collaboration", "members")
    assert (ended.code, "Ledger: " in ended.errors) == (Exit.NOT_PROVEN, True)


async def test_protected_key_is_opened_with_the_passphrase(
    hub: Hub, alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    protected = tmp_path / "protected.pem"
    protected.write_bytes(dump_organization_key(hub.lung["Alpha"].organization_key, b"six words are better"))
    monkeypatch.setenv("FOLKMOOT_ORGANIZATION_KEY", str(protected))
    monkeypatch.setenv("FOLKMOOT_PASSPHRASE", "six words are better")
    assert (await alpha("collaboration", "members")).code == Exit.OK
