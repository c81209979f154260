"""How a machine becomes a node: with an invitation, once, by a key that never leaves it; and what stops a node at its start."""

import asyncio
import stat
from pathlib import Path

import pytest

from folkmoot.client.nodes import revoke
from folkmoot.node.config import load_config
from folkmoot.node.join import Ticket, join
from folkmoot.trust import (
    FolkmootError,
    dump_invitation,
    dump_organization_key,
    fingerprint,
    load_signing_key,
    node_approve_entry,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.builders import organization, world
from tests.integration.client.conftest import Hub
from tests.integration.harness import utc_now
from tests.integration.node.station.stations import Engine, Stations
from tests.polling import until


def invite(hub: Hub, owner: str = "Beta", node_name: str = "beta-2") -> Path:
    """What `folkmoot node invite` writes."""
    file = hub.lung.invite(
        owner,
        node_name,
        server_address=hub.server.running.address,
        server_certificate_authority=(hub.server.running.certificate_authority or b"").decode(),
        now=utc_now(),
    )
    path = hub.folder / f"{node_name}.invitation"
    path.write_bytes(dump_invitation(file))
    return path


async def redeem(path: Path, directory: Path, told: list[str] | None = None) -> str:
    async with asyncio.timeout(30):
        return await join(Ticket.read(path), directory / "node.toml", tell=(told if told is not None else []).append)


async def test_an_invitation_makes_a_node_with_a_key_of_its_own(hub: Hub, tmp_path: Path):
    machine = tmp_path / "machine"
    node_id = await redeem(invite(hub), machine)
    key_file = machine / "node.pem"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((machine / "state").stat().st_mode) == 0o700
    assert load_signing_key(key_file.read_bytes()).fingerprint == node_id
    config = load_config(machine / "node.toml")
    [block] = config.collaboration
    assert block.collaboration == hub.lung.state.reference
    assert block.organization == hub.lung["Beta"].address
    assert (machine / "ca.pem").read_bytes() == hub.server.running.certificate_authority
    assert 'runtimes = ["container"]' in (machine / "policy.toml").read_text()
    client = hub.client("Alpha")
    assert node_id in (await client.connection.state(newest=True)).nodes


async def test_joining_again_on_the_same_machine_changes_nothing(hub: Hub, tmp_path: Path):
    invitation = invite(hub)
    first = await redeem(invitation, tmp_path / "machine")
    files = [tmp_path / "machine" / name for name in ("node.pem", "node.toml", "policy.toml")]
    before = [file.read_bytes() for file in files]
    assert await redeem(invitation, tmp_path / "machine") == first
    assert [file.read_bytes() for file in files] == before
    assert load_signing_key(before[0]).fingerprint == first


async def test_a_machine_that_was_cut_off_after_it_was_admitted_finishes_with_the_same_invitation(
    hub: Hub, tmp_path: Path
):
    invitation = invite(hub)
    first = await redeem(invitation, tmp_path / "machine")
    (tmp_path / "machine" / "node.toml").unlink()
    assert await redeem(invitation, tmp_path / "machine") == first
    assert load_config(tmp_path / "machine" / "node.toml").collaboration[0].organization == hub.lung["Beta"].address


async def test_a_machine_whose_key_was_revoked_is_told_to_make_another_one(hub: Hub, tmp_path: Path):
    node_id = await redeem(invite(hub), tmp_path / "machine")
    client = hub.client("Beta")
    await revoke(client.connection, node_id, governance_key=hub.lung["Beta"].governance_key)
    hub.lung.entries[:] = (await client.connection.replica()).entries
    hub.lung.state = await client.connection.state()
    another = invite(hub, node_name="beta-3")
    with pytest.raises(FolkmootError, match="move its file") as refused:
        await redeem(another, tmp_path / "machine")
    assert refused.value.reason == ErrorReason.ERROR_REASON_NODE_NOT_APPROVED
    (tmp_path / "machine" / "node.pem").rename(tmp_path / "machine" / "node.pem.revoked")
    assert await redeem(another, tmp_path / "machine") != node_id


async def test_an_invitation_is_good_for_one_machine(hub: Hub, tmp_path: Path):
    invitation = invite(hub)
    await redeem(invitation, tmp_path / "machine")
    with pytest.raises(FolkmootError) as used:
        await redeem(invitation, tmp_path / "another machine")
    assert used.value.reason == ErrorReason.ERROR_REASON_INVITATION_INVALID


async def test_joining_waits_for_the_votes_on_its_organization(hub: Hub, tmp_path: Path):
    delta = organization("Delta")
    request = hub.lung.join_request(delta, now=utc_now())
    admin = await hub.server.organization_admin("Delta")
    await hub.server.submit_join_request(request, admin)
    hub.lung.now = utc_now()
    hub.lung.organizations["Delta"] = delta
    before = hub.lung.state
    hub.lung.state = after_admission(hub, request)
    path = invite(hub, "Delta", "delta-1")
    hub.lung.state = before
    told: list[str] = []
    joining = asyncio.create_task(redeem(path, tmp_path / "machine", told))
    await until(lambda: bool(told))
    assert told[0].startswith("JOIN_PENDING")
    assert "2 more must" in told[0]
    for voter in ("Alpha", "Beta"):
        entry = hub.lung.vote(voter, request)
        await hub.server.append(entry, hub.server.users[f"admin@{voter.lower()}"])
    assert await joining


def after_admission(hub: Hub, request):
    """The state in which the organization is a member, where its admin can write invitations."""
    entries, state = list(hub.lung.entries), hub.lung.state
    for voter in ("Alpha", "Beta"):
        hub.lung.vote(voter, request)
    admitted = hub.lung.state
    hub.lung.entries[:], hub.lung.state = entries, state
    return admitted


# ---- the start check -------------------------------------------------------------------------------------------------------


async def test_an_organization_key_that_the_ledger_does_not_show_is_refused_with_both_fingerprints(
    hub: Hub, stations: Stations
):
    config = stations.configure("Beta")
    other = dump_organization_key(organization("Somebody else").organization_key)
    stations.keep_files = True
    (config.parent / "organization.pem").write_bytes(other)
    with pytest.raises(FolkmootError) as refusal:
        async with stations.station("Beta", engine=Engine({})):
            pass
    assert refusal.value.reason == ErrorReason.ERROR_REASON_KEY_MISMATCH
    shown = hub.lung["Beta"].organization_key.encryption
    assert fingerprint(shown.key_id) in str(refusal.value)


async def test_encryption_that_differs_from_the_ledgers_is_refused(stations: Stations):
    with pytest.raises(FolkmootError, match="says 'sealed'"):
        async with stations.station("Beta", engine=Engine({}), encryption="plain"):
            pass


async def test_a_node_that_knows_neither_ledger_nor_organization_says_what_to_do(stations: Stations):
    other = world(("Beta", "Alpha"), now=utc_now())
    with pytest.raises((FolkmootError, TimeoutError)):
        async with (
            asyncio.timeout(3),
            stations.station("Beta", engine=Engine({}), collaboration=str(other.state.reference)),
        ):
            pass


async def test_a_missing_key_says_how_to_get_it(stations: Stations):
    config = stations.configure("Beta")
    stations.keep_files = True
    (config.parent / "node.pem").unlink()
    with pytest.raises(FolkmootError, match="folkmoot node join"):
        async with stations.station("Beta", engine=Engine({})):
            pass


async def test_an_admitted_node_that_was_not_yet_known_is_let_in_when_it_is_approved(
    hub: Hub, stations: Stations, tmp_path: Path
):
    node_key = organization("Beta's third").governance_key
    hub.lung["Beta"].nodes["beta-1"], kept = node_key, hub.lung["Beta"].nodes["beta-1"]
    async with stations.station("Beta", engine=Engine({}), attached=False) as node:
        await asyncio.sleep(0)
        assert not node.stations[0].link.is_attached
        hub.lung.now = utc_now()
        entry = node_approve_entry(
            hub.lung.state,
            hub.lung.claim("Beta", "beta-3", node_key),
            key=hub.lung["Beta"].governance_key,
            organization_id=hub.lung["Beta"].address,
            now=utc_now(),
        )
        await hub.server.append(hub.lung.append(entry), hub.server.users["admin@beta"])
        async with asyncio.timeout(30):
            await node.attached()
    hub.lung["Beta"].nodes["beta-1"] = kept
