"""Stations on a ledger that moves: keys rotate under load, nodes are revoked and admitted, servers forget, and nothing is lost."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from folkmoot.cli.app import folkmoot
from folkmoot.client import Result
from folkmoot.node.app import RunningNode
from folkmoot.node.config import load_config
from folkmoot.node.join import Place, ask
from folkmoot.node.station import Station
from folkmoot.node.trust import awaiting
from folkmoot.node.trust.admission import AdmissionEnded
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    LedgerFork,
    LedgerUpgradeNeeded,
    fingerprint_words,
    load_signing_key,
    node_approve_entry,
    node_revoke_entry,
    read_head,
    revoke_key_entry,
    rotate_key_entry,
)
from folkmoot.v1.admin_service_pb2 import ListNodeAttemptsRequest
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.key_service_pb2 import GetLedgerRequest, ListHeadsRequest
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import World, organization, world
from tests.integration.client.conftest import Hub
from tests.integration.harness import server, utc_now
from tests.integration.node.station.stations import Algorithm, Engine, Stations
from tests.integration.node.station.test_backup import restarted
from tests.integration.node.station.test_faults import answer, only
from tests.integration.node.station.test_faults import ask as ask_for
from tests.polling import until


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine({"answer": answer})
    yield made
    await made.close()


async def publish(hub: Hub, by: str, entries: int = 1) -> None:
    """Bring the newest entries to the server."""
    for entry in hub.lung.entries[-entries:]:
        await hub.server.append(entry, hub.server.users[f"admin@{by.lower()}"])


async def ended(node: RunningNode) -> FolkmootError:
    async with asyncio.timeout(30):
        with pytest.raises(FolkmootError) as error:
            await node.failed()
    return error.value


# ---- keys ----------------------------------------------------------------------------------------------------------------


async def test_rotation_under_load_fails_nothing_and_old_results_still_open(
    hub: Hub, stations: Stations, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(awaiting, "LOOK_FOR_KEYS_SECONDS", 0.05)
    go_on = asyncio.Event()

    async def wait(algorithm: Algorithm) -> None:
        await go_on.wait()
        await answer(algorithm)

    engine = Engine({"answer": answer, "wait": wait})
    alpha, beta = hub.lung["Alpha"], hub.lung["Beta"]
    kept = Keyring(hub.folder / "kept.pem").add(alpha.organization_key)
    async with stations.station("Beta", engine=engine, slots=4) as node:
        station = node.stations[0].station
        before = [await ask_for(hub, "Beta", function=each) for each in ("answer", "wait")]
        first = await only(before[0])
        for owner in (alpha, beta):
            owner.organization_key = organization(f"{owner.name} anew").organization_key
            claim = owner.organization_key.claim(owner.address, 2, utc_now())
            hub.lung.now = utc_now()
            hub.lung.append(
                rotate_key_entry(hub.lung.state, claim, governance_key=owner.governance_key, now=hub.lung.now)
            )
            await publish(hub, owner.name)
        kept.add(alpha.organization_key)
        during = await ask_for(hub, "Beta")
        await until(lambda: station.state.position == hub.lung.state.position)

        async def says_what_it_waits_for() -> bool:
            return any("key" in each.text for each in await during.why())

        await until(says_what_it_waits_for)
        Keyring.load(station.config.organization_key).add(beta.organization_key)
        results: list[Result] = [await only(during)]
        go_on.set()
        results.append(await only(before[1]))
        again = await hub.client("Alpha", organization_key=kept.path).tasks.get(before[0].id)
        results += [await only(again), first]
    assert [result.value for result in results] == [{"of": "Beta"}] * 4
    await engine.close()


async def test_a_node_that_was_away_during_a_rotation_starts_with_the_new_key_alone(
    hub: Hub, stations: Stations, engine: Engine
):
    beta = hub.lung["Beta"]
    async with stations.station("Beta", engine=engine):
        pass
    beta.organization_key = organization("Beta anew").organization_key
    claim = beta.organization_key.claim(beta.address, 2, utc_now())
    hub.lung.now = utc_now()
    hub.lung.append(rotate_key_entry(hub.lung.state, claim, governance_key=beta.governance_key, now=hub.lung.now))
    await publish(hub, "Beta")
    async with stations.station("Beta", engine=engine):
        assert (await only(await ask_for(hub, "Beta"))).value == {"of": "Beta"}


# ---- who goes ------------------------------------------------------------------------------------------------------------


async def test_a_revoked_node_verifies_it_says_so_and_ends_with_its_journal(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine) as node:
        await only(await ask_for(hub, "Beta"))
        hub.lung.now = utc_now()
        hub.lung.revoke_node("Beta", "beta-1")
        await publish(hub, "Beta")
        error = await ended(node)
    assert isinstance(error, AdmissionEnded)
    assert f"was revoked by entry {hub.lung.state.position.sequence}" in error.message
    assert (node.stations[0].station.directory / "journal.db").exists()
    with pytest.raises(AdmissionEnded):
        async with stations.station("Beta", engine=engine, attached=False) as again:
            raise await ended(again)


async def test_a_node_whose_organization_leaves_ends(hub: Hub, stations: Stations, engine: Engine):
    async with stations.station("Beta", engine=engine) as node:
        hub.lung.now = utc_now()
        hub.lung.leave("Beta")
        await publish(hub, "Beta")
        assert "organization left" in (await ended(node)).message


async def test_a_server_that_merely_claims_a_revocation_is_not_believed(
    hub: Hub, stations: Stations, engine: Engine, monkeypatch: pytest.MonkeyPatch
):
    async with stations.station("Beta", engine=engine) as node:
        [running], dispatch = node.stations, hub.server.running.dispatch
        [session] = dispatch._sessions.values()
        session.end(FolkmootError(ErrorReason.ERROR_REASON_NODE_NOT_APPROVED, "you are not admitted any more"))
        await until(lambda: not running.link.is_attached)
        await until(lambda: running.link.is_attached)
        assert not running.work.done()
        assert (await only(await ask_for(hub, "Beta"))).value == {"of": "Beta"}


# ---- who comes -----------------------------------------------------------------------------------------------------------


def place_of(hub: Hub, organization_: str) -> Place:
    return Place(hub.server.address, hub.lung.state.reference, hub.lung[organization_].address)


async def test_a_machine_that_asks_is_let_in_when_its_organization_approves(hub: Hub, tmp_path: Path):
    machine = tmp_path / "machine" / "node.toml"
    told: list[str] = []
    asking = asyncio.create_task(ask(place_of(hub, "Beta"), "beta-2", machine, tell=told.append))
    await until(lambda: any("NODE_NOT_APPROVED" in text for text in told))
    asking.cancel()  # the machine is restarted
    await asyncio.wait({asking})
    asking = asyncio.create_task(ask(place_of(hub, "Beta"), "beta-2", machine, tell=told.append))
    key = load_signing_key((tmp_path / "machine" / "node.pem").read_bytes())
    assert any(fingerprint_words(key.fingerprint) in text for text in told)
    admin = hub.server.users["admin@beta"]

    async def attempts() -> list[Signed]:
        request = ListNodeAttemptsRequest(genesis=hub.lung.genesis)
        answer_ = await hub.server.admin.ListNodeAttempts(request, metadata=admin.metadata)
        return [attempt.claim for attempt in answer_.attempts]

    await until(attempts)
    [claim] = await attempts()
    assert not machine.exists()
    await approve(hub, claim)
    async with asyncio.timeout(30):
        assert await asking == key.fingerprint
    [block] = load_config(machine).collaboration
    assert (block.collaboration, block.organization) == (hub.lung.state.reference, hub.lung["Beta"].address)
    assert (machine.parent / "ca.pem").read_bytes() == hub.server.running.certificate_authority


async def approve(hub: Hub, claim: Signed, owner: str = "Beta") -> None:
    hub.lung.now = utc_now()
    organization_ = hub.lung[owner]
    entry = node_approve_entry(
        hub.lung.state,
        claim,
        key=organization_.governance_key,
        organization_id=organization_.address,
        now=hub.lung.now,
    )
    hub.lung.append(entry)
    await publish(hub, owner)


async def test_a_machine_that_asks_never_trusts_another_ledger_than_it_was_told(hub: Hub, tmp_path: Path):
    stranger = world(("Beta", "Alpha"), now=utc_now(), name="another")
    place = Place(hub.server.address, stranger.state.reference, hub.lung["Beta"].address)
    with pytest.raises(FolkmootError) as refusal:
        async with asyncio.timeout(30):
            await ask(place, "beta-2", tmp_path / "machine" / "node.toml", tell=lambda _: None)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_COLLABORATION_NOT_FOUND


async def test_a_node_of_an_organization_that_waits_for_votes_gets_in_by_itself(
    hub: Hub, stations: Stations, engine: Engine
):
    delta = organization("Delta")
    request = hub.lung.join_request(delta, now=utc_now())
    admin = await hub.server.organization_admin("Delta")
    await hub.server.submit_join_request(request, admin)
    hub.lung.organizations["Delta"] = delta
    delta.nodes["delta-1"] = organization("Delta's node").governance_key
    async with stations.station("Delta", engine=engine, attached=False) as node:
        hub.lung.now = utc_now()
        for voter in ("Alpha", "Beta"):
            hub.lung.vote(voter, request)
            await publish(hub, voter)
        claim = hub.lung.claim("Delta", "delta-1", delta.nodes["delta-1"])
        assert not node.stations[0].link.is_attached
        await approve(hub, claim, "Delta")
        async with asyncio.timeout(30):
            await node.attached()


# ---- what others see -----------------------------------------------------------------------------------------------------


async def test_each_node_says_what_it_sees_at_attach_and_when_the_ledger_has_grown(
    hub: Hub, stations: Stations, engine: Engine
):
    admin = hub.server.users["admin@alpha"]

    async def seen() -> list[int]:
        answer_ = await hub.server.keys.ListHeads(ListHeadsRequest(genesis=hub.lung.genesis), metadata=admin.metadata)
        heads = [read_head(signed, hub.lung.state, now=utc_now()) for signed in answer_.heads]
        return sorted(head.position.sequence for head in heads)

    async with (
        stations.station("Beta", engine=engine),
        stations.station("Gamma", engine=engine),
    ):
        first = hub.lung.state.position.sequence

        async def both_see(sequence: int) -> bool:
            return await seen() == [sequence, sequence]

        await until(lambda: both_see(first))
        hub.lung.now = utc_now()
        hub.lung.add_node("Alpha", "alpha-2")
        await publish(hub, "Alpha")
        await until(lambda: both_see(first + 1))


async def test_a_node_that_was_shown_another_history_stops_new_work_and_status_says_so(
    hub: Hub, stations: Stations, engine: Engine
):
    async with stations.station("Beta", engine=engine) as node:
        station = node.stations[0].station
        fork = LedgerFork("another history", metadata={"sequence": "1"})
        station.replica.pin_fork(fork)
        task = await ask_for(hub, "Beta")
        result = await only(task)
        assert result.reason == ErrorReason.ERROR_REASON_LEDGER_FORK
    config = stations.configure("Beta")
    shown = CliRunner().invoke(folkmoot, ["node", "status", str(config)])
    assert shown.exit_code == 0, shown.output
    assert "LEDGER_FORK" in shown.output
    assert "KEY_" not in shown.output


async def test_status_says_that_the_organizations_key_or_the_admission_is_missing(
    hub: Hub, stations: Stations, engine: Engine
):
    def status() -> str:
        shown = CliRunner().invoke(folkmoot, ["node", "status", str(stations.configure("Beta"))])
        assert shown.exit_code == 0, shown.output
        return shown.output

    beta = hub.lung["Beta"]
    async with stations.station("Beta", engine=engine) as node:
        station = node.stations[0].station
        hub.lung.now = utc_now()
        keys = beta.organization_key.key_ids
        entry = revoke_key_entry(hub.lung.state, keys, None, governance_key=beta.governance_key, now=hub.lung.now)
        hub.lung.append(entry)
        await publish(hub, "Beta")
        await until(lambda: station.state.position == hub.lung.state.position)
        assert "KEY_UNPUBLISHED: Beta has no key in the ledger" in await asyncio.to_thread(status)
        node_id = beta.nodes["beta-1"].fingerprint
        entry = node_revoke_entry(hub.lung.state, node_id, governance_key=beta.governance_key, now=hub.lung.now)
        hub.lung.append(entry)
        await publish(hub, "Beta")
        await until(lambda: station.state.position == hub.lung.state.position)
    assert "NODE_NOT_APPROVED: the admission of this node (beta-1)" in await asyncio.to_thread(status)


async def test_beside_entries_of_a_later_release_new_work_waits_and_running_work_goes_on(
    hub: Hub, stations: Stations, monkeypatch: pytest.MonkeyPatch
):
    go_on = asyncio.Event()

    async def wait(algorithm: Algorithm) -> None:
        await go_on.wait()
        await answer(algorithm)

    async def of_a_later_release(*_: object, **__: object) -> None:
        raise LedgerUpgradeNeeded("entry 9 is of a later release")

    engine = Engine({"answer": answer, "wait": wait})
    async with stations.station("Beta", engine=engine, slots=2) as node:
        station = node.stations[0].station
        running = await ask_for(hub, "Beta", function="wait")
        await until(lambda: engine.started)
        monkeypatch.setattr(station.replica, "refresh", of_a_later_release)
        with pytest.raises(LedgerUpgradeNeeded):
            await station.look()
        waiting = await ask_for(hub, "Beta")

        async def says_what_it_waits_for() -> bool:
            return any("sure of the ledger" in each.text for each in await waiting.why())

        await until(says_what_it_waits_for)
        go_on.set()
        assert (await only(running)).value == {"of": "Beta"}
        monkeypatch.undo()
        await station.look()
        assert (await only(waiting)).value == {"of": "Beta"}
    await engine.close()


# ---- servers that forget -------------------------------------------------------------------------------------------------


def _is_at(station: Station, lung: World) -> bool:
    return station.state.position == lung.state.position


async def test_several_nodes_heal_a_restored_server_at_once_and_new_work_goes_on(tmp_path: Path):
    data, backup = tmp_path / "server", tmp_path / "backup"
    lung = world(("Alpha", "Beta", "Gamma"), now=utc_now())
    engine = Engine({"answer": answer})
    async with server(data) as first:
        hub = Hub(first, lung, tmp_path)
        await first.publish(lung)
    shutil.copytree(data, backup)
    stations, stack = Stations(hub), AsyncExitStack()
    async with restarted(hub, data):
        nodes = [await stack.enter_async_context(stations.station(name, engine=engine)) for name in ("Beta", "Gamma")]
        lung.now = utc_now()
        for number in range(2, 7):
            lung.add_node("Gamma", f"gamma-{number}")
        hub.server.users["admin@gamma"] = await hub.server.log_in("admin@gamma")
        await publish(hub, "Gamma", 5)
        delta = organization("Delta")
        request = lung.join_request(delta, now=utc_now())
        lung.now = utc_now()
        await hub.server.submit_join_request(request, await hub.server.organization_admin("Delta"))
        for voter in ("Alpha", "Beta"):
            lung.vote(voter, request)
            hub.server.users[f"admin@{voter.lower()}"] = await hub.server.log_in(f"admin@{voter.lower()}")
            await publish(hub, voter)
        for node in nodes:
            station = node.stations[0].station
            await until(partial(_is_at, station, lung))
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    async with restarted(hub, data):
        admin = await hub.server.log_in("admin@alpha")

        async def ledger_is_whole() -> bool:
            request_ = GetLedgerRequest(genesis=lung.genesis)
            batches = [batch async for batch in hub.server.keys.GetLedger(request_, metadata=admin.metadata)]
            return [entry for batch in batches for entry in batch.entries] == lung.entries

        await until(ledger_is_whole)
        for node in nodes:
            await node.attached()
            assert node.stations[0].station.fork is None
        assert (await only(await ask_for(hub, "Beta"))).value == {"of": "Beta"}
        await hub.opened.pop().close()
        await stack.aclose()
    await engine.close()
    for sockets in tmp_path.glob("station-*/sockets.txt"):
        shutil.rmtree(Path(sockets.read_text()))


async def test_a_node_is_back_when_a_server_that_lost_its_whole_collaboration_got_it_again(tmp_path: Path):
    data, backup = tmp_path / "server", tmp_path / "backup"
    lung = world(("Alpha", "Beta"), now=utc_now())
    engine = Engine({"answer": answer})
    async with server(data) as first:
        hub = Hub(first, lung, tmp_path)
        for name in lung.organizations:
            await first.organization_admin(name)
    shutil.copytree(data, backup)
    stations, stack = Stations(hub), AsyncExitStack()
    async with restarted(hub, data):
        await hub.server.publish(lung)
        node = await stack.enter_async_context(stations.station("Beta", engine=engine))
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    async with restarted(hub, data):
        for name in lung.organizations:
            hub.server.users[f"admin@{name.lower()}"] = await hub.server.log_in(f"admin@{name.lower()}")
        await until(lambda: not node.stations[0].link.is_attached)
        await hub.server.publish(lung)
        async with asyncio.timeout(30):
            await node.attached()
        assert (await only(await ask_for(hub, "Beta"))).value == {"of": "Beta"}
        await hub.opened.pop().close()
        await stack.aclose()
    await engine.close()
    for sockets in tmp_path.glob("station-*/sockets.txt"):
        shutil.rmtree(Path(sockets.read_text()))
