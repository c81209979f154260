"""The command for those who look after a server: from an account to its deletion, as text and as JSON whose shape stays as it is."""

import asyncio
import dataclasses
import io
import json
import stat
from pathlib import Path

import pyotp
import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client import (
    ApiKey,
    Event,
    Identity,
    ListedCollaboration,
    ListedNode,
    Login,
    OrganizationAccount,
    Role,
    ServerInfo,
    Study,
    User,
)
from tests.integration.client.conftest import Command, Ended, Hub
from tests.integration.harness import PASSWORD, ROOT


def shape(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


@pytest.fixture
async def root(hub: Hub, folkmoot: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command as the one who runs the server."""
    monkeypatch.setenv("FOLKMOOT_NEW_PASSWORD", PASSWORD)
    there = hub.arguments("Alpha")
    server = ["--server", there["server"], "--certificate-authority", str(there["certificate_authority"])]

    async def command(*arguments: str, code: int = Exit.OK) -> Ended:
        ended = await folkmoot(*arguments, user="root")
        assert ended.code == code, ended
        return ended

    await command("login", *server, "--username", ROOT)
    return command


async def test_users_and_roles_and_accounts(root: Command):
    made = (await root("organization", "create", "Delta", "--country", "NL", "--json")).json
    assert made.keys() == shape(OrganizationAccount)
    await root("user", "create", "dora", "--organization", "Delta", "--role", "Viewer", "--email", "dora@delta.example")
    [listed] = (await root("user", "list", "--organization", "Delta", "--json")).json
    assert listed.keys() == shape(User)
    assert (listed["organization"], listed["roles"]) == ("Delta", ["Viewer"])
    created = (
        await root(
            "role", "create", "Auditor", "--rule", "event:view:organization", "--organization", "Delta", "--json"
        )
    ).json
    assert created.keys() == shape(Role)
    assert created["rules"] == ["event:view:organization"]
    assert "Auditor" in (await root("role", "list")).output
    changed = (await root("user", "update", "dora", "--add-role", "Auditor", "--first-name", "Dora", "--json")).json
    assert changed["roles"] == ["Auditor", "Viewer"]
    assert (await root("user", "update", "dora", "--remove-role", "Viewer", "--json")).json["roles"] == ["Auditor"]
    stale = await root("user", "update", "dora", "--first-name", "Eve", "--etag", listed["etag"], code=Exit.STATE)
    assert "ETAG_MISMATCH" in stale.errors
    assert "Dora" in (await root("user", "show", "dora")).output
    assert "PROTECTED" in (await root("role", "delete", "Viewer", "--yes", code=Exit.STATE)).errors
    assert "task" in (await root("rule", "list")).output
    assert "HAS_DEPENDENTS" in (await root("organization", "delete", "Delta", "--yes", code=Exit.STATE)).errors
    await root("user", "create", "dan", "--organization", "Delta")
    await root("user", "delete", "dan", "--yes")
    had = await root("role", "delete", "Auditor", "--yes", code=Exit.STATE)
    assert "(`delete_dependents`)" in had.errors, "which is what the option is called"
    await root("role", "delete", "Auditor", "--delete-dependents", "--yes")
    assert (await root("user", "show", "dora", "--json")).json["roles"] == []
    await root("organization", "update", "Delta", "--name", "Delta Hospital")
    await root("organization", "delete", "Delta Hospital", "--delete-dependents", "--yes")
    assert "USER_NOT_FOUND" in (await root("user", "show", "dora", code=Exit.NOT_FOUND)).errors
    assert "ORGANIZATION_NOT_FOUND" in (await root("organization", "show", "Delta", code=Exit.NOT_FOUND)).errors


async def test_nothing_is_deleted_where_nobody_can_be_asked(root: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    delta = (await root("organization", "create", "Delta")).output.strip()
    refused = await root("organization", "delete", "Delta", code=Exit.USAGE)
    assert "--yes" in refused.errors
    assert delta in (await root("organization", "list")).output


async def test_leaving_is_refused_where_nobody_can_be_asked(alpha: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    refused = await alpha("collaboration", "leave")
    assert (refused.code, "say --yes" in refused.errors) == (Exit.USAGE, True), refused
    monkeypatch.setattr("sys.stdin", io.StringIO("Beta\n"))
    refused = await alpha("collaboration", "leave")
    assert (refused.code, "nothing was changed" in refused.errors) == (Exit.STATE, True), refused
    assert "Alpha" in (await alpha("collaboration", "members")).output


async def test_what_is_made_is_named_for_the_next_command(root: Command, alpha: Command):
    role = (await root("role", "create", "Auditor", "--rule", "event:view:organization")).output.strip()
    assert (await root("role", "show", role, "--json")).json["name"] == "Auditor"
    study = (await alpha("study", "create", "north", "--organization", "Alpha")).output.strip()
    assert (await alpha("study", "show", study, "--json")).json["name"] == "north"
    session = (await alpha("session", "create", "work")).output.strip()
    assert (await alpha("session", "show", session, "--json")).json["name"] == "work"


async def test_names_that_are_not_there_and_changes_of_nothing(root: Command):
    missing = await root("user", "create", "eve", "--organization", "Delta", code=Exit.NOT_FOUND)
    assert "there are Alpha, Beta, Gamma" in missing.errors
    for arguments in (("user", "update", ROOT), ("organization", "update", "Alpha")):
        nothing = await root(*arguments, code=Exit.USAGE)
        assert "nothing is to be changed: give one of" in nothing.errors


async def test_server_is_named_by_who_has_no_profile_yet(hub: Hub, folkmoot: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLKMOOT_NEW_PASSWORD", PASSWORD)
    monkeypatch.setenv("FOLKMOOT_RESET_TOKEN", "0" * 32)
    there = hub.arguments("Alpha")
    server = ("--server", there["server"], "--certificate-authority", str(there["certificate_authority"]))
    for arguments, reason in {
        ("register", "Delta", "--username", "dora"): "REGISTRATION_CLOSED",
        ("forgot-password", "dora"): "NOT_CONFIGURED",
        ("reset-password",): "RESET_TOKEN_INVALID",
        ("totp", "forgot", "--username", "dora"): "NOT_CONFIGURED",
        ("totp", "reset"): "RESET_TOKEN_INVALID",
    }.items():
        answered = await folkmoot("account", *arguments, *server, user="nobody")
        assert reason in answered.errors, (arguments, answered)


async def test_wrong_rule_is_told_with_those_there_are(root: Command):
    ended = await root("role", "create", "Odd", "--rule", "task:paint:own", code=Exit.USAGE)
    assert "'paint' is no operation; there are view, create, edit, delete, send, receive" in ended.errors


async def test_audit_trail_and_usage(root: Command):
    await root("organization", "create", "Delta")
    [newest] = (await root("event", "list", "--intent", "organization.create", "--limit", "1", "--json")).json
    assert newest.keys() == shape(Event)
    assert newest["outcome"] == "ok"
    after = str(newest["sequence"] - 1)
    watched = await root("event", "watch", "--after", after, "--limit", "1", "--json")
    assert json.loads(watched.output)["sequence"] == newest["sequence"]
    assert "organization.create" in (await root("event", "watch", "--after", after, "--limit", "1")).output
    assert (await root("usage", "--organization", "Alpha", "--json")).json == []


async def test_collaborations_and_nodes_and_the_server(hub: Hub, root: Command):
    [listed] = (await root("collaboration", "list", "--organization", "Beta", "--json")).json
    assert listed.keys() == shape(ListedCollaboration)
    shown = (await root("collaboration", "show", listed["reference"], "--json")).json
    assert {one["name"] for one in shown["members"]} == {"Alpha", "Beta", "Gamma"}
    nodes = (await root("node", "overview", "--away", "--json")).json
    assert all(one.keys() == shape(ListedNode) for one in nodes)
    about = (await root("about", "--json")).json
    assert about.keys() == shape(ServerInfo)
    assert about["login_methods"] == ["password"]


async def test_studies(alpha: Command):
    made = await alpha("study", "create", "north", "--organization", "Alpha", "--organization", "Beta", "--json")
    assert made.json.keys() == shape(Study)
    changed = await alpha(
        "study", "update", "north", "--add-organization", "Gamma", "--remove-organization", "Beta", "--json"
    )
    assert changed.json["organizations"] == ["Alpha", "Gamma"]
    assert "north" in (await alpha("study", "list")).output
    created = await alpha(
        "task", "create", "process:examples.average", "average", "--study", "north", "-a", "column=age"
    )
    assert created.code == Exit.OK, created
    assert (await alpha("study", "delete", "north", "--yes")).code == Exit.OK
    assert (await alpha("study", "show", "north")).code == Exit.NOT_FOUND


async def test_api_key_takes_the_place_of_a_password(alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "key"
    ended = await alpha("api-key", "create", "nightly", "--rule", "user:view:organization", "--output", str(file))
    assert ended.code == Exit.OK, ended
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() not in ended.output
    monkeypatch.delenv("FOLKMOOT_PASSWORD")
    monkeypatch.setenv("FOLKMOOT_API_KEY_FILE", str(file))
    assert (await alpha("account", "show", "--json")).json.keys() == shape(Identity)
    assert (await alpha("user", "create", "eve", "--organization", "Alpha")).code != Exit.OK
    monkeypatch.delenv("FOLKMOOT_API_KEY_FILE")
    monkeypatch.setenv("FOLKMOOT_PASSWORD", PASSWORD)
    [listed] = (await alpha("api-key", "list", "--json")).json
    assert listed.keys() == shape(ApiKey)
    assert (await alpha("api-key", "delete", "nightly", "--yes")).code == Exit.OK
    assert (await alpha("api-key", "list", "--json")).json == []


async def test_login_that_stays_until_it_is_ended(alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert (await alpha("login", "--keep")).code == Exit.OK
    [file] = [path for path in (tmp_path / "state/folkmoot/logins").iterdir() if path.suffix != ".lock"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    monkeypatch.delenv("FOLKMOOT_PASSWORD")
    together = await asyncio.gather(*(alpha("account", "show") for _ in range(3)))
    assert [one.code for one in together] == [Exit.OK] * 3
    [kept] = [one for one in (await alpha("account", "logins", "--json")).json if one["is_current"]]
    assert kept.keys() == shape(Login)
    assert (await alpha("account", "end-logins", "--yes")).code == Exit.OK
    assert (await alpha("account", "show")).code == Exit.OK, "its own login is not among those that end"
    assert (await alpha("logout")).code == Exit.OK
    assert not file.exists()
    assert (await alpha("account", "show")).code == Exit.USAGE, "nobody can be asked for a password here"
    assert (await alpha("logout")).code == Exit.STATE


async def test_kept_login_that_was_ended_elsewhere_says_what_to_do(
    hub: Hub, alpha: Command, monkeypatch: pytest.MonkeyPatch
):
    assert (await alpha("login", "--keep")).code == Exit.OK
    await hub.client("Alpha").account.end_logins()
    monkeypatch.delenv("FOLKMOOT_PASSWORD")
    ended = await alpha("account", "show")
    assert (ended.code, "folkmoot login --keep" in ended.errors) == (Exit.DENIED, True), ended


async def test_password_and_second_factor(alpha: Command, monkeypatch: pytest.MonkeyPatch):
    begun = (await alpha("account", "totp", "enroll", "--json")).json
    app = pyotp.TOTP(begun["secret"])
    monkeypatch.setenv("FOLKMOOT_TOTP_CODE", app.now())
    assert (await alpha("account", "totp", "confirm")).code == Exit.OK
    monkeypatch.delenv("FOLKMOOT_TOTP_CODE")
    asked = await alpha("account", "show")
    assert (asked.code, "FOLKMOOT_TOTP_CODE" in asked.errors) == (Exit.USAGE, True), asked


async def test_password_is_changed_from_a_file(alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "new").write_text(f"{PASSWORD} too\n")
    monkeypatch.setenv("FOLKMOOT_NEW_PASSWORD_FILE", str(tmp_path / "new"))
    assert (await alpha("account", "password")).code == Exit.OK
    assert (await alpha("account", "show")).code == Exit.DENIED
    monkeypatch.setenv("FOLKMOOT_PASSWORD", f"{PASSWORD} too")
    assert (await alpha("account", "show")).code == Exit.OK
    monkeypatch.setenv("FOLKMOOT_NEW_PASSWORD_FILE", str(tmp_path / "nowhere"))
    assert "FOLKMOOT_NEW_PASSWORD_FILE" in (await alpha("account", "password")).errors
