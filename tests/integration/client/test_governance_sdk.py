"""`client.governance`: the same decisions from a script, with and without `await`."""

import asyncio
from pathlib import Path

import pytest

from folkmoot.client import Client, FolkmootError, reason_to_keep
from folkmoot.trust import dump_signing_key, load_invitation
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.ledger_pb2 import Quorum
from tests.builders import organization
from tests.integration.client.conftest import Hub
from tests.integration.client.hub import hub_of
from tests.integration.client.test_node_approval import machine_asks


def key_of(hub: Hub, name: str) -> Path:
    path = hub.folder / f"{name}-governance.pem"
    path.write_bytes(dump_signing_key(hub.lung[name].governance_key))
    return path


async def test_removal_from_scripts(hub: Hub):
    alpha = hub.client("Alpha", governance_key=key_of(hub, "Alpha"))
    beta = hub.client("Beta", governance_key=key_of(hub, "Beta"))
    left = await alpha.governance.remove("Gamma", reason=reason_to_keep("no reports"))
    assert left is not None
    assert (left.missing, left.approved_by) == (1, ("Alpha",))
    again = await alpha.governance.remove("Gamma")  # asked for once
    assert (again and again.hash) == left.hash
    [seen] = await beta.governance.removals()
    assert seen.hash == left.hash
    assert await beta.governance.vote(hub.lung["Gamma"].address, approve=True, removal=True) == 0
    [former] = await alpha.governance.former_members()
    assert (former.name, former.removed) == ("Gamma", True)
    assert [event.intent for event in await alpha.governance.log(organization="Beta", intent="organization")][-1:] == [
        "organization.vote"
    ]
    with pytest.raises(FolkmootError) as nothing:
        await beta.governance.vote("Gamma", approve=True, removal=True)
    assert nothing.value.reason == reasons.ERROR_REASON_JOIN_REQUEST_NOT_FOUND


async def test_reading_needs_no_governance_key_and_deciding_does(hub: Hub):
    client = hub.client("Alpha")
    assert [one.state for one in await client.governance.requests()] == ["ADMITTED", "ADMITTED"]
    with pytest.raises(FolkmootError, match=r"governance\.pem") as refused:
        await client.governance.leave()
    assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH


async def test_nodes_from_a_script_without_await(hub: Hub):
    key = await machine_asks(hub, "Beta", "beta-2")
    arguments = hub.arguments("Beta", governance_key=key_of(hub, "Beta"))

    def administrate() -> list[str]:
        with Client(**arguments) as client:
            assert load_invitation(client.governance.invite_node("beta-3")).collaboration == arguments["collaboration"]
            [attempt] = client.governance.node_attempts()
            assert attempt.node_id == key.fingerprint
            client.governance.approve_node(attempt.node_id)
            client.governance.revoke_node("beta-1")
            return [node.name for node in client.nodes() if node.organization == "Beta"]

    assert await asyncio.to_thread(administrate) == ["beta-2"]


async def test_votes_at_the_same_moment_all_count(tmp_path: Path):
    names = ("Alpha", "Beta", "Gamma", "Delta")
    async with hub_of(tmp_path, *names, quorum=Quorum.QUORUM_UNANIMOUS, nodes=False) as hub:
        epsilon = organization("Epsilon")
        await hub.server.submit_join_request(
            hub.lung.join_request(epsilon), await hub.server.organization_admin("Epsilon")
        )
        clients = [hub.client(name, governance_key=key_of(hub, name)) for name in names]
        votes = (client.governance.vote(epsilon.address, approve=True) for client in clients)
        missing = sorted(await asyncio.gather(*votes))
        assert missing[0] == 0
        # Whoever votes may be told of others' votes that count already.
        assert all(told <= left for told, left in zip(missing, range(4), strict=True))
        assert "Epsilon" in [one.name for one in await clients[0].organizations]
