"""What a station checks before it does anything: configuration and ledger agree, a successor succeeds what this node took part in."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from folkmoot.node.app import check_start, check_succession, station_directory
from folkmoot.node.config import NodeConfig
from folkmoot.node.station import Station
from folkmoot.node.trust.admission import AdmissionEnded, require_not_ended
from folkmoot.node.trust.ledger import LedgerWatch
from folkmoot.transport import Replica
from folkmoot.trust import (
    EncryptionDisagrees,
    LedgerEntryInvalid,
    LedgerFork,
    Position,
    Predecessor,
    Reference,
    WrongCollaboration,
    found,
    leave_entry,
    node_revoke_entry,
    replay,
)
from folkmoot.v1.ledger_pb2 import LedgerPosition
from tests.builders import NOW, World, randomness, world
from tests.polling import until
from tests.unit.node.conftest import MakeStation
from tests.unit.node.ledgers import Ledgers, attach

LAST_WEEK = NOW - timedelta(days=6)


# ---- encryption ----------------------------------------------------------------------------------------------------------


async def test_a_configuration_that_disagrees_with_the_ledger_about_encryption_stops_the_start(
    make_station: MakeStation,
):
    station = make_station()
    station.config = replace(station.config, encryption="plain")
    with pytest.raises(EncryptionDisagrees, match="says encryption = 'plain'"):
        await check_start(station)


def test_nothing_is_sealed_while_configuration_and_ledger_disagree(lung: World, make_station: MakeStation):
    station = make_station()
    station.config = replace(station.config, encryption="plain")
    with pytest.raises(EncryptionDisagrees):
        station.receivers([lung["Alpha"].address])


# ---- admission -----------------------------------------------------------------------------------------------------------


def test_the_end_of_an_admission_is_told_with_its_entry(lung: World, make_station: MakeStation):
    station = make_station()
    require_not_ended(station.replica, station.node_id)
    beta = lung["Beta"]
    lung.append(node_revoke_entry(lung.state, station.node_id, governance_key=beta.governance_key, now=lung.now))
    station.replica.state = lung.state
    with pytest.raises(AdmissionEnded, match=f"was revoked by entry {lung.state.position.sequence}"):
        require_not_ended(station.replica, station.node_id)


def test_the_end_of_a_membership_ends_its_nodes(lung: World, make_station: MakeStation):
    station = make_station()
    lung.append(leave_entry(lung.state, governance_key=lung["Beta"].governance_key, now=lung.now))
    station.replica.state = lung.state
    with pytest.raises(AdmissionEnded, match="organization left"):
        station.require_admitted()


async def test_a_ledger_that_grows_by_the_end_of_the_admission_ends_the_station(make_station: MakeStation):
    station = make_station()
    lung = world(("Alpha", "Beta", "Gamma"), now=LAST_WEEK)
    station.replica = Replica(station.directory / "replica", lung.state.reference)
    server = attach(station, lung.entries)
    await station.look()
    watch = LedgerWatch(station)
    watching = asyncio.create_task(watch.run())
    beta = lung["Beta"]
    lung.append(node_revoke_entry(lung.state, station.node_id, governance_key=beta.governance_key, now=lung.now))
    server.entries = lung.entries
    watch.shown(lung.state.position.message())
    async with asyncio.timeout(10):
        with pytest.raises(AdmissionEnded):
            await watching


async def test_a_doubt_goes_when_the_server_shows_nothing_but_what_is_known(make_station: MakeStation):
    station = make_station()
    lung = world(("Alpha", "Beta", "Gamma"), now=LAST_WEEK)
    station.replica = Replica(station.directory / "replica", lung.state.reference)
    attach(station, lung.entries)
    await station.look()
    station.doubts.note(LedgerEntryInvalid("entries that do not follow"), NOW)
    watch = LedgerWatch(station)
    watching = asyncio.create_task(watch.run())
    watch.shown(lung.state.position.message())
    await until(lambda: not list(station.doubts))
    watching.cancel()


async def test_a_server_that_merely_names_another_entry_is_not_believed(make_station: MakeStation):
    station = make_station()
    lung = world(("Alpha", "Beta", "Gamma"), now=LAST_WEEK)
    station.replica = Replica(station.directory / "replica", lung.state.reference)
    attach(station, lung.entries)
    await station.look()
    watch = LedgerWatch(station)
    with pytest.raises(LedgerFork, match="names another entry 2"):
        await watch._compare(LedgerPosition(sequence=2, hash=bytes(32)))
    assert station.fork is None


# ---- successors ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def old() -> World:
    return world(("Alpha", "Beta"), now=LAST_WEEK, name="old")


def successor(old: World, head: Position | None = None, genesis: bytes | None = None) -> World:
    """A collaboration that names another one, up to an entry, as the one before it."""
    alpha = old["Alpha"]
    entry = found(
        name="new",
        founder_name="Alpha",
        governance_key=alpha.governance_key,
        organization_key=alpha.organization_key,
        now=LAST_WEEK,
        random=randomness("new"),
        predecessor=Predecessor(genesis or old.genesis, head or old.state.position),
    )
    return World({"Alpha": alpha}, [entry], replay([entry]), LAST_WEEK)


async def check(station: Station, new: World, old: Reference, tmp_path: Path, known: World | None) -> None:
    config = NodeConfig(state_directory=tmp_path / "state", runtime_directory=tmp_path, collaboration=())
    if known is not None:
        replica = Replica(station_directory(config, old), old)
        await replica.refresh(Ledgers(known.entries))  # type: ignore[arg-type]
    station.config = replace(station.config, succeeds=old)
    station.replica.state = new.state
    check_succession(config, station)


async def test_a_successor_of_what_this_node_took_part_in_is_accepted(
    old: World, make_station: MakeStation, tmp_path: Path
):
    await check(make_station(), successor(old), old.state.reference, tmp_path, old)


async def test_a_successor_of_another_collaboration_is_refused(old: World, make_station: MakeStation, tmp_path: Path):
    with pytest.raises(WrongCollaboration, match="does not say so"):
        await check(make_station(), successor(old, genesis=bytes(32)), old.state.reference, tmp_path, old)


async def test_a_collaboration_that_succeeds_none_is_refused_as_a_successor(
    old: World, make_station: MakeStation, tmp_path: Path
):
    with pytest.raises(WrongCollaboration, match="does not say so"):
        await check(make_station(), world(("Alpha",), name="new"), old.state.reference, tmp_path, old)


async def test_a_successor_from_an_entry_that_this_node_does_not_know_is_refused(
    old: World, make_station: MakeStation, tmp_path: Path
):
    for head in (Position(old.state.position.sequence, bytes(32)), Position(99, bytes(32))):
        with pytest.raises(WrongCollaboration, match="another ledger"):
            await check(make_station(), successor(old, head), old.state.reference, tmp_path, old)


async def test_a_successor_of_what_this_node_never_took_part_in_is_refused(
    old: World, make_station: MakeStation, tmp_path: Path
):
    with pytest.raises(WrongCollaboration, match="has no ledger"):
        await check(make_station(), successor(old), old.state.reference, tmp_path, None)
