"""Administering a server from Python: accounts, users, roles, studies, the audit trail, usage; names for people, nothing lost between two admins."""

import asyncio
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import AsyncServerClient, Client, FolkmootError, Rule, ServerClient
from tests.integration.client.conftest import Hub
from tests.integration.client.hub import hub_of
from tests.integration.harness import PASSWORD, ROOT, server
from tests.polling import until


def root(hub: Hub) -> AsyncServerClient:
    """A client of the one who runs the server; he is in no collaboration."""
    return AsyncServerClient(
        server=hub.server.running.address,
        certificate_authority=hub.folder / "ca.pem",
        username=ROOT,
        password=PASSWORD,
    )


@pytest.fixture
def arguments(hub: Hub) -> dict:
    return hub.arguments("Alpha")


async def fails(awaitable) -> str:
    with pytest.raises(FolkmootError) as caught:
        await awaitable
    return caught.value.reason_name


async def test_users_by_names_from_first_to_last(hub: Hub, arguments: dict):
    async with root(hub) as server:
        made = await server.users.create(
            "ada",
            password=PASSWORD,
            organization="Alpha",
            roles=["Researcher"],
            email="ada@alpha.example",
            first_name="Ada",
        )
        assert (made.username, made.organization, made.roles, made.first_name) == (
            "ada",
            "Alpha",
            ("Researcher",),
            "Ada",
        )
        assert await server.users.get("ada") == await server.users.get(made.user_id) == made
        assert {one.username async for one in server.users.list(organization="Alpha")} == {"ada", "admin@alpha"}
        assert [one.username async for one in server.users.list(email="ada@alpha.example")] == ["ada"]
        changed = await server.users.update("ada", roles=["Viewer"], extra_rules=["task:create:organization"])
        assert (changed.roles, changed.extra_rules) == (("Viewer",), (Rule("task", "create", "organization"),))
        assert (changed.email, changed.first_name) == ("ada@alpha.example", "Ada"), "what was not given stays"
        await server.users.delete("ada")
        assert await fails(server.users.get("ada")) == "USER_NOT_FOUND"


async def test_of_two_admins_the_later_one_overwrites_nothing_unseen(hub: Hub, arguments: dict):
    async with root(hub) as one, root(hub) as other:
        await one.users.create("ada", password=PASSWORD, organization="Alpha")
        seen = await other.users.get("ada")
        await one.users.update("ada", first_name="Ada")
        assert await fails(other.users.update(seen, first_name="Eve")) == "ETAG_MISMATCH"
        assert await fails(other.users.delete(seen)) == "ETAG_MISMATCH"
        assert (await one.users.get("ada")).first_name == "Ada"


async def test_accounts_of_organizations(hub: Hub, arguments: dict):
    async with root(hub) as server:
        made = await server.organization_accounts.create("Delta", domain="delta.example", country="NL")
        assert await server.organization_accounts.get("Delta") == made
        assert [one.name async for one in server.organization_accounts.list(country="NL")] == ["Delta"]
        reference = arguments["collaboration"]
        members = {one.name: one async for one in server.organization_accounts.list(collaboration=reference)}
        assert members.keys() == {"Alpha", "Beta", "Gamma"}
        assert (await server.organization_accounts.get(members["Beta"].organization_id)).name == "Beta"
        renamed = await server.organization_accounts.update(made, name="Delta Hospital")
        assert (renamed.name, renamed.domain) == ("Delta Hospital", "delta.example")
        await server.users.create("dora", password=PASSWORD, organization="Delta Hospital")
        assert await fails(server.organization_accounts.delete("Delta Hospital")) == "HAS_DEPENDENTS"
        await server.organization_accounts.delete(renamed, delete_dependents=True)
        assert await fails(server.organization_accounts.get("Delta Hospital")) == "ORGANIZATION_NOT_FOUND"


async def test_roles_and_rules(hub: Hub, arguments: dict):
    async with root(hub) as server:
        assert Rule("task", "create", "organization") in await server.roles.rules()
        made = await server.roles.create("Auditor", rules=["event:view:organization"], organization="Alpha")
        assert (await server.roles.get("Auditor"), await server.roles.get(made.role_id)) == (made, made)
        assert made.organization == "Alpha"
        changed = await server.roles.update(made, rules=[*made.rules, Rule("node", "view", "organization")])
        assert len(changed.rules) == 2
        assert await fails(server.roles.update("Viewer", rules=[])) == "PROTECTED"
        await server.users.create("ada", password=PASSWORD, organization="Alpha", roles=["Auditor"])
        assert await fails(server.roles.delete("Auditor")) == "HAS_DEPENDENTS"
        await server.roles.delete("Auditor", delete_dependents=True)
        assert (await server.users.get("ada")).roles == ()


async def test_a_watch_goes_on_over_a_restart_and_tells_each_event_once(hub: Hub, arguments: dict):
    names = [f"user-{number}" for number in range(4)]
    address, data = hub.server.running.address, hub.folder / "server"
    told: list[str] = []
    async with root(hub) as watching, root(hub) as admin:
        made = {
            name: (await admin.users.create(name, password=PASSWORD, organization="Alpha")).user_id
            for name in names[:2]
        }

        async def watch() -> None:
            async for event in watching.events.watch(intent="user.create", after=0):
                told.append(event.data["user_id"])  # noqa: PERF401 - each is looked at when it comes

        following = asyncio.create_task(watch())
        await until(lambda: set(made.values()) <= set(told))
        await hub.server.running.stop()
        async with server(data, listen=address):
            # This client is not the one that watches: what it makes is there before the watch has come back.
            made |= {
                name: (await admin.users.create(name, password=PASSWORD, organization="Alpha")).user_id
                for name in names[2:]
            }
            await until(lambda: set(made.values()) <= set(told))
            assert not following.done()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
    assert len(told) == len(set(told))
    assert [user_id for user_id in told if user_id in made.values()] == list(made.values())


async def test_events_are_listed_by_filters_and_watched_as_they_happen(hub: Hub, arguments: dict):
    async with root(hub) as server:
        since = datetime.now(UTC) - timedelta(minutes=1)
        stream = server.events.watch(intent="user.create")
        waiting = asyncio.ensure_future(anext(stream))
        made = await server.users.create("ada", password=PASSWORD, organization="Alpha")
        if not waiting.done():  # it may begin behind the first one
            await server.users.create("eve", password=PASSWORD, organization="Alpha")
        assert (await waiting).intent == "user.create"
        await stream.aclose()  # type: ignore[attr-defined]
        [event] = [
            one
            async for one in server.events.list(intent="user.create", by=ROOT, since=since)
            if one.data.get("user_id") == made.user_id
        ]
        assert (event.organization, event.outcome) == ("Hub", "ok")
        all_of_them = [one.sequence async for one in server.events.list(limit=3)]
        assert len(all_of_them) == 3
        assert all_of_them == sorted(all_of_them, reverse=True)
        assert [one async for one in server.usage(organization="Alpha")] == []
        assert await fails(anext(aiter(server.usage(organization="Hub")))) == "ORGANIZATION_NOT_FOUND"


async def test_collaborations_and_nodes_as_the_server_shows_them(hub: Hub, arguments: dict):
    async with root(hub) as server:
        [listed] = [one async for one in server.collaborations.list(organization="Beta")]
        assert (listed.name, listed.encrypted, str(listed.reference)) == ("lung", True, arguments["collaboration"])
        assert await server.collaborations.get(arguments["collaboration"]) == listed
        nodes = [one async for one in server.collaborations.nodes(organization="Beta")]
        assert all(not one.online for one in nodes)
        for one in nodes:
            assert await server.collaborations.node(listed.reference, one.node_id) == one
        info = await server.server_info()
        assert "password" in info.login_methods
        assert not info.registration_is_open


async def test_studies_name_members_of_the_verified_ledger(hub: Hub):
    client = hub.client("Alpha")
    made = await client.studies.create("north", organizations=["Alpha", "Beta"], description="two of three")
    assert made.organizations == ("Alpha", "Beta")
    assert await client.studies.get("north") == await client.studies.get(made.study_id) == made
    assert [one.name async for one in client.studies.list(organization="Gamma")] == []
    changed = await client.studies.update(made, organizations=["Beta", "Gamma"])
    assert changed.organizations == ("Beta", "Gamma")
    assert await fails(client.studies.update(made, name="south")) == "ETAG_MISMATCH"
    assert await fails(client.studies.create("other", organizations=["Nobody"])) == "ORGANIZATION_NOT_FOUND"
    await client.studies.delete(changed)
    assert await fails(client.studies.get("north")) == "STUDY_NOT_FOUND"


async def test_task_of_a_study_is_asked_of_its_organizations(hub: Hub):
    client = hub.client("Alpha")
    await client.studies.create("north", organizations=["Alpha", "Beta"])
    names = {one.organization_id: one.name for one in await client.organizations}

    async def asked(**of: Any) -> list[str]:
        task = await client.tasks.create(
            image="process:examples.average", function="average", arguments={"column": "age"}, **of
        )
        assert task.spec.study == of["study"]
        return sorted(names[one.organization_id] for one in task.spec.receivers)

    assert await asked(study="north") == ["Alpha", "Beta"]
    assert await asked(study="north", organizations=["Beta"]) == ["Beta"]
    assert await fails(asked(study="north", organizations=["Gamma"])) == "INVALID_FIELD"
    assert await fails(asked(study="nowhere")) == "STUDY_NOT_FOUND"
    assert await fails(client.tasks.create(image="process:examples.average", function="average")) == "INVALID_FIELD"


async def test_nodes_by_organization_and_connection(hub: Hub):
    client = hub.client("Alpha")
    everyone = await client.nodes()
    assert {one.organization for one in await client.nodes(organization="Beta")} <= {"Beta"}
    assert await client.nodes(online=False) == everyone
    assert await client.nodes(online=True) == await client.nodes(label="patients") == ()


async def test_account_of_ones_own(hub: Hub):
    client = hub.client("Alpha")
    identity = await client.account.show()
    assert (identity.username, identity.organization_id) == ("admin@alpha", hub.lung["Alpha"].address)
    other = hub.client("Alpha")
    await other.account.show()
    assert len(await client.account.logins()) >= 2
    [current] = [one for one in await client.account.logins() if one.is_current]
    assert current.user_agent.startswith(f"folkmoot/{version('folkmoot')} ")
    assert await client.account.end_logins() >= 1
    assert [one.login_id for one in await client.account.logins()] == [current.login_id]
    await client.account.change_password(PASSWORD, f"{PASSWORD} too")
    assert await fails(client.account.change_password(PASSWORD, PASSWORD)) == "LOGIN_FAILED"
    await client.account.change_password(f"{PASSWORD} too", PASSWORD)
    await client.account.log_out()
    assert (await client.account.show()).username == "admin@alpha", "the next call logs in anew"


def test_the_same_without_await(tmp_path: Path):
    """The facade in a thread without a loop of its own, beside a server in one."""
    from folkmoot.client.loop import run

    made = hub_of(tmp_path, "Alpha", "Beta")
    hub = run(made.__aenter__())
    try:
        there = hub.arguments("Alpha")
        with ServerClient(
            server=there["server"],
            certificate_authority=there["certificate_authority"],
            username=ROOT,
            password=PASSWORD,
        ) as server:
            server.users.create("ada", password=PASSWORD, organization="Alpha", roles=["Viewer"])
            assert {one.username for one in server.users.list(role="Viewer")} == {"ada"}
        with Client(**there) as client:
            client.studies.create("both", organizations=["Alpha", "Beta"])
            assert [one.organizations for one in client.studies.list()] == [("Alpha", "Beta")]
            assert client.account.show().username == "admin@alpha"
    finally:
        run(made.__aexit__(None, None, None))
