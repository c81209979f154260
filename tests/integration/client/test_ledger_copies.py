"""Clients' copies of the ledger against a real server that forgets, shows two histories, keeps back, or says nothing."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client import AsyncClient, FolkmootError
from folkmoot.client.governance import find_request, vote
from folkmoot.transport import RemoteError
from folkmoot.trust import LedgerFork, make_head_statement, replay
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.key_service_pb2 import GetLedgerRequest, GetLedgerResponse, ListHeadsRequest, ListHeadsResponse
from folkmoot.v1.ledger_pb2 import Encryption, LedgerEntry
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import DAY, organization
from tests.integration.client.conftest import Gathered, Hub
from tests.integration.client.hub import hub_of
from tests.integration.harness import server, utc_now


async def ask(client: AsyncClient) -> None:
    await client.tasks.create(image="process:examples.average", function="average", organizations=["Beta"])


async def entries_at(hub: Hub, name: str) -> list[bytes]:
    """What the server shows to somebody who knows nothing yet."""
    client = hub.client(name, state_directory=hub.folder / "fresh" / name)
    await client.connection.state(newest=True)
    return [entry.body for entry in (await client.connection.replica()).entries]


@asynccontextmanager
async def restored(hub: Hub, backup: Path) -> AsyncIterator[None]:
    """The server with the data of a backup in place of its own, at the same address."""
    address = hub.server.running.address
    await hub.server.running.stop()
    shutil.rmtree(hub.folder / "server")
    shutil.copytree(backup, hub.folder / "server")
    async with server(hub.folder / "server", listen=address):
        yield


@asynccontextmanager
async def backed_up(folder: Path) -> AsyncIterator[tuple[Hub, Path]]:
    """A hub whose server goes on after a backup of its data was made."""
    async with hub_of(folder, "Alpha", "Beta", "Gamma") as hub:
        address, backup = hub.server.running.address, folder / "backup"
        await hub.server.running.stop()
        shutil.copytree(folder / "server", backup)
        async with server(folder / "server", listen=address) as running:
            running.users.update(hub.server.users)
            hub.server = running
            yield hub, backup


async def let_in(hub: Hub, name: str, *voters: str) -> None:
    """Have an organization ask, and be approved by its voters' clients."""
    applicant = organization(name)
    request = hub.lung.join_request(applicant, now=utc_now())
    await hub.server.submit_join_request(request, await hub.server.organization_admin(name))
    for voter in voters:
        connection = hub.client(voter).connection
        attempt = await find_request(connection, name)
        await vote(connection, attempt, approve=True, governance_key=hub.lung[voter].governance_key)


async def test_server_restored_from_last_night_is_healed_by_several_clients_at_once(tmp_path: Path):
    async with backed_up(tmp_path) as (hub, backup):
        await let_in(hub, "Delta", "Alpha", "Beta")
        clients = [hub.client(name) for name in ("Alpha", "Beta", "Gamma")]
        for client in clients:
            assert "Delta" in [one.name for one in await client.organizations]
        before = [entry.body for entry in (await clients[0].connection.replica()).entries]
        async with restored(hub, backup):
            await asyncio.gather(*(client.connection.state(newest=True) for client in clients))
            assert await entries_at(hub, "Gamma") == before
            await ask(clients[2])


async def test_server_that_lost_the_whole_collaboration_gets_it_back_from_its_founding_entry_on(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins, server(admins.hub.folder / "empty") as empty:
        assert await admins.members("Alpha") == ["Alpha", "Beta"]
        await empty.organization_admin("Alpha")
        profile = admins.profile("Alpha")
        profile.write_text(profile.read_text().replace(admins.hub.server.running.address, empty.running.address))
        (admins.folder("Alpha") / "ca.pem").write_bytes(empty.running.certificate_authority or b"")

        unknown = await admins.try_to(
            "Alpha", "collaboration", "members"
        )  # The account there is not known to be Alpha's.
        assert unknown.code == Exit.NOT_FOUND
        reference = str(admins.hub.lung.state.reference)
        assert f"folkmoot collaboration join {reference}" in unknown.errors
        known = await admins("Alpha", "collaboration", "join", reference, "--as", "Alpha")
        assert "is a member" in known.output
        assert await admins.members("Alpha") == ["Alpha", "Beta"]
        entries = (await admins("Alpha", "collaboration", "log", "--json")).json
        assert len(entries) == len(admins.hub.lung.entries)


async def test_server_that_went_on_from_an_old_backup_is_a_fork_that_stops_new_work_only(tmp_path: Path):
    async with backed_up(tmp_path) as (hub, backup):
        await let_in(hub, "Delta", "Alpha", "Beta")
        alpha = hub.client("Alpha")
        assert len(await alpha.organizations) == 4
        async with restored(hub, backup):
            # Gamma's admin has no copy of what was lost, and goes on.
            gamma = hub.client("Gamma", state_directory=tmp_path / "state of nobody")
            hub.lung.now = utc_now()
            hub.lung.add_node("Gamma", "gamma-2")
            replica = await gamma.connection.replica()
            session = gamma.connection.session
            made = hub.lung.entries[-1]
            await session.authorized(
                lambda: replica.append(session.keys, lambda _state: made, metadata=session.metadata)
            )
            with pytest.raises(FolkmootError, match="succeed") as fork:
                await alpha.connection.state(newest=True)
            assert fork.value.reason == reasons.ERROR_REASON_LEDGER_FORK
            evidence = json.loads(Path(fork.value.metadata["evidence"]).read_text())
            assert evidence["ours"]["hash"] != evidence["theirs"]["hash"]
            again = hub.client("Alpha")  # A new process knows it too.
            with pytest.raises(FolkmootError) as refused:
                await ask(again)
            assert refused.value.reason == reasons.ERROR_REASON_LEDGER_FORK
            assert [one.name for one in await again.organizations] == ["Alpha", "Beta", "Delta", "Gamma"]
            assert len(await again.governance.log()) > int(evidence["metadata"]["sequence"])


async def test_nobody_else_has_shown_anything_for_a_week(tmp_path: Path):
    async with hub_of(tmp_path, "Alpha", "Beta", now=utc_now() - 10 * DAY) as hub:
        client = hub.client("Alpha")
        for _ in range(2):
            with pytest.raises(FolkmootError, match=r"for 10.0 days") as stale:
                await ask(client)
            assert stale.value.reason == reasons.ERROR_REASON_LEDGER_STALE
        assert len(await client.organizations) == 2  # reading goes on
        await ask(hub.client("Alpha", max_head_age=timedelta(days=30)))


async def test_a_fresh_copy_that_ends_before_the_executors_node_is_not_taken_for_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """So that nobody is missed who could say more, and what is sealed goes to keys that were revoked since."""
    async with hub_of(tmp_path, "Alpha", "Beta", now=utc_now() - 10 * DAY) as hub:
        beginning = [each for each in hub.lung.entries if LedgerEntry.FromString(each.body).intent != "node.approve"]
        assert beginning == hub.lung.entries[: len(beginning)]

        async def old(request: GetLedgerRequest, **_: Any) -> AsyncIterator[GetLedgerResponse]:
            if shown := beginning[request.from_sequence :]:
                yield GetLedgerResponse(entries=shown)

        client = hub.client("Alpha")
        monkeypatch.setattr(client.connection.session.keys, "GetLedger", old)
        with pytest.raises(FolkmootError, match="no node of Beta") as stale:
            await ask(client)
        assert stale.value.reason == reasons.ERROR_REASON_LEDGER_STALE


async def test_signs_of_life_are_asked_for_once_an_hour(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    asked = []
    call = client.connection.session.call

    async def counted(method: Any, request: Any) -> Any:
        asked.append(type(request).__name__)
        return await call(method, request)

    monkeypatch.setattr(client.connection.session, "call", counted)
    for _ in range(3):
        await ask(client)
    assert asked.count("ListHeadsRequest") == 1


def with_heads(monkeypatch: pytest.MonkeyPatch, client: AsyncClient, *heads: Signed) -> None:
    """Let the server show these head statements."""
    call = client.connection.session.call

    async def told(method: Any, request: Any) -> Any:
        if isinstance(request, ListHeadsRequest):
            return ListHeadsResponse(heads=heads)
        return await call(method, request)

    monkeypatch.setattr(client.connection.session, "call", told)


def head_of(hub: Hub, name: str) -> Signed:
    """What the node of an organization says that it has seen: all of the world's entries."""
    owner = hub.lung[name]
    key = next(iter(owner.nodes.values()))
    return make_head_statement(hub.lung.state, node_key=key, organization_id=owner.address, now=utc_now())


async def test_entries_that_a_server_withholds_stop_new_work_and_name_who_has_seen_them(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    client = hub.client("Alpha")
    hub.lung.now = utc_now()
    hub.lung.add_node("Beta", "beta-2")
    withheld = hub.lung.entries[-1]
    with_heads(monkeypatch, client, head_of(hub, "Beta"), head_of(hub, "Gamma"))
    for _ in range(2):
        with pytest.raises(FolkmootError, match="Gamma has seen entry") as stale:
            await ask(client)
        assert stale.value.reason == reasons.ERROR_REASON_LEDGER_STALE
    assert len(await client.organizations) == 3  # reading goes on
    await hub.server.append(withheld, hub.server.users["admin@beta"])
    await ask(client)


async def test_heads_of_another_history_are_a_fork(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    before = (await client.connection.state(newest=True)).position
    hub.lung.now = utc_now()
    hub.lung.add_node("Beta", "beta-2")
    theirs = [head_of(hub, name) for name in ("Beta", "Gamma")]
    hub.lung.entries.pop()
    hub.lung.state = replay(hub.lung.entries)
    hub.lung.add_node("Beta", "beta-3")
    await hub.server.append(hub.lung.entries[-1], hub.server.users["admin@beta"])
    assert (await client.connection.state(newest=True)).position.sequence == before.sequence + 1
    with_heads(monkeypatch, client, *theirs)
    with pytest.raises(FolkmootError) as fork:
        await ask(client)
    assert fork.value.reason == reasons.ERROR_REASON_LEDGER_FORK


async def test_fork_that_another_process_has_seen_stops_new_work_at_once(hub: Hub, caplog: pytest.LogCaptureFixture):
    client, other = hub.client("Alpha"), hub.client("Alpha")
    await ask(client)
    await other.connection.state()
    (await other.connection.replica()).pin_fork(LedgerFork("two histories were shown"))
    with pytest.raises(FolkmootError) as refused:
        await ask(client)
    assert refused.value.reason == reasons.ERROR_REASON_LEDGER_FORK
    caplog.clear()
    for _ in range(3):  # what is there stays readable, and says once why it may not be all
        assert len(await client.organizations) == 3
    assert caplog.text.count("two histories were shown") == 1


async def test_server_that_shows_no_head_statements_changes_nothing_about_their_age(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
):
    client = hub.client("Alpha")
    call = client.connection.session.call

    async def refused(method: Any, request: Any) -> Any:
        if isinstance(request, ListHeadsRequest):
            raise RemoteError(reasons.ERROR_REASON_INTERNAL, "not today")
        return await call(method, request)

    monkeypatch.setattr(client.connection.session, "call", refused)
    await ask(client)


async def test_ledger_that_is_not_as_expected_is_refused_with_clear_words(tmp_path: Path):
    plain = Encryption.ENCRYPTION_PLAIN
    async with hub_of(tmp_path, "Alpha", encryption=plain, nodes=False) as hub:
        with pytest.raises(FolkmootError, match="signed but not encrypted") as refused:
            await hub.client("Alpha", encryption="sealed").organizations
        assert refused.value.reason == reasons.ERROR_REASON_ENCRYPTION_DISAGREES
        assert len(await hub.client("Alpha", encryption="plain").organizations) == 1
        with pytest.raises(FolkmootError, match="'sealed' or 'plain'"):
            hub.client("Alpha", encryption="perhaps")


async def test_expectation_in_the_profile(gathered: Gathered):
    async with gathered("Alpha", nodes=False) as admins:
        admins.monkeypatch.setenv("FOLKMOOT_ENCRYPTION", "plain")
        refused = await admins.try_to("Alpha", "collaboration", "members")
        assert (refused.code, "ENCRYPTION_DISAGREES" in refused.errors) == (Exit.STATE, True)
        admins.monkeypatch.setenv("FOLKMOOT_ENCRYPTION", "sealed")
        admins.monkeypatch.setenv("FOLKMOOT_MAX_HEAD_AGE_DAYS", "soon")
        refused = await admins.try_to("Alpha", "collaboration", "members")
        assert (refused.code, "max_head_age_days" in refused.errors) == (Exit.USAGE, True)
