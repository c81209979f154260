"""Nodes without an invitation: they ask, an admin compares words and approves; and any node can be revoked."""

from pathlib import Path
from typing import Any

import pytest

from folkmoot.cli.exits import Exit
from folkmoot.client import FolkmootError, nodes
from folkmoot.trust import SigningKey, fingerprint_words
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.admin_service_pb2 import NodeAttempt, SubmitNodeAttemptRequest
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import randomness, world
from tests.integration.client.admins import Admins
from tests.integration.client.conftest import Gathered, Hub
from tests.integration.harness import utc_now
from tests.integration.stub_node import StubNode


async def machine_asks(hub: Hub, organization: str, name: str, seed: str = "") -> SigningKey:
    """A machine makes a key and asks to become a node."""
    key = SigningKey.generate(randomness(seed or name))
    hub.lung.now = utc_now()
    request = SubmitNodeAttemptRequest(claim=hub.lung.claim(organization, name, key))
    await hub.server.admin.SubmitNodeAttempt(request)
    return key


async def listed(admins: Admins, name: str) -> list[str]:
    return [one["name"] for one in (await admins(name, "collaboration", "nodes", "--json")).json]


async def test_machine_that_asks_is_approved_by_one_admin_of_its_organization(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        key = await machine_asks(admins.hub, "Beta", "beta-2")
        assert (await admins("Alpha", "node", "attempts", "--json")).json == []
        [attempt] = (await admins("Beta", "node", "attempts", "--json")).json
        words = fingerprint_words(key.fingerprint)
        assert (attempt["name"], attempt["node_id"], attempt["words"]) == ("beta-2", key.fingerprint, words)

        doubtful = await admins.try_to("Beta", "node", "approve", "beta-2", typed="n\n")
        assert (doubtful.code, words in doubtful.output) == (Exit.INTERRUPTED, True)
        assert await listed(admins, "Beta") == ["alpha-1", "beta-1"]
        await admins("Beta", "node", "approve", "beta-2", typed="y\n")
        assert await listed(admins, "Alpha") == ["alpha-1", "beta-1", "beta-2"]
        assert (await admins("Beta", "node", "attempts", "--json")).json == []
        entries = (await admins("Alpha", "collaboration", "log", "--json", "--intent", "node")).json
        assert entries[-1]["what"] == f"admits the node beta-2 ({key.fingerprint})"
        token = await admins.hub.server.authenticate(
            genesis=admins.hub.lung.genesis, organization_id=admins.hub.lung["Beta"].address, key=key
        )
        assert token


async def test_two_machines_under_one_name_must_be_told_apart_by_id(gathered: Gathered):
    async with gathered("Alpha") as admins:
        real = await machine_asks(admins.hub, "Alpha", "alpha-2", "real")
        await machine_asks(admins.hub, "Alpha", "alpha-2", "impostor")
        unclear = await admins.try_to("Alpha", "node", "approve", "alpha-2", "--yes")
        assert real.fingerprint in unclear.errors
        assert unclear.code != Exit.OK
        await admins("Alpha", "node", "approve", real.fingerprint, "--yes")
        assert await listed(admins, "Alpha") == ["alpha-1", "alpha-2"]


async def test_approval_of_nobody(gathered: Gathered):
    async with gathered("Alpha") as admins:
        refused = await admins.try_to("Alpha", "node", "approve", "alpha-9", "--yes")
        assert "no machine of that name or id asks" in refused.errors
        assert refused.code == Exit.NOT_FOUND
        nobody = await admins.try_to("Alpha", "node", "revoke", "alpha-9", "--yes")
        assert (nobody.code, "its nodes are alpha-1" in nobody.errors) == (Exit.NOT_FOUND, True)


async def test_invitation_for_a_name_that_is_taken_is_not_written(gathered: Gathered, tmp_path: Path):
    async with gathered("Alpha") as admins:
        file = tmp_path / "invitation"
        refused = await admins.try_to("Alpha", "node", "invite", "ALPHA-1", "--output", str(file))
        assert (refused.code, "NAME_TAKEN" in refused.errors, file.exists()) == (Exit.STATE, True, False)


async def test_revoked_node_is_cut_off_at_once_and_its_name_is_free(gathered: Gathered):
    async with gathered("Alpha", "Beta") as admins:
        async with StubNode(admins.hub.server, admins.hub.lung, "Beta") as beta:
            await beta.attached.wait()
            thought_better = await admins.try_to("Beta", "node", "revoke", "beta-1", typed="n\n")
            assert thought_better.code == Exit.INTERRUPTED
            assert await listed(admins, "Alpha") == ["alpha-1", "beta-1"]
            await admins("Beta", "node", "revoke", "beta-1", "--yes")
        assert await listed(admins, "Alpha") == ["alpha-1"]
        others = await admins.try_to("Beta", "node", "revoke", "alpha-1", "--yes")
        assert "your organization has no such node" in others.errors
        key = await machine_asks(admins.hub, "Beta", "beta-1", "new machine")
        await admins("Beta", "node", "approve", key.fingerprint, "--yes")
        assert await listed(admins, "Alpha") == ["alpha-1", "beta-1"]


async def test_invented_attempts_in_the_servers_list_are_left_out(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    key = await machine_asks(hub, "Alpha", "alpha-2")
    elsewhere = world(("Alpha",), name="elsewhere", now=utc_now())
    call = client.connection.session.call
    invented = [
        Signed(body=b"\xff"),
        hub.lung.claim("Alpha", "alpha-3", SigningKey.generate(randomness("three"))),
        elsewhere.claim("Alpha", "alpha-4", SigningKey.generate(randomness("four"))),
        hub.lung.claim("Alpha", "alpha-1", hub.lung["Alpha"].nodes["alpha-1"]),  # admitted already
    ]
    invented[1].signature = bytes(64)

    async def lying(method: Any, request: Any) -> Any:
        answer = await call(method, request)
        if hasattr(answer, "attempts"):
            answer.attempts.extend(NodeAttempt(claim=claim) for claim in invented)
        return answer

    monkeypatch.setattr(client.connection.session, "call", lying)
    assert [one.node_id for one in await nodes.attempts(client.connection)] == [key.fingerprint]


async def test_claim_for_another_member_is_not_approved(hub: Hub):
    client, key = hub.client("Alpha"), SigningKey.generate(randomness("beta-9"))
    claim = hub.lung.claim("Beta", "beta-9", key)
    attempt = nodes.NodeAttempt(key.fingerprint, "beta-9", hub.lung["Beta"].address, utc_now(), claim)
    with pytest.raises(FolkmootError) as refused:
        await nodes.approve(client.connection, attempt, governance_key=hub.lung["Alpha"].governance_key)
    assert refused.value.reason == reasons.ERROR_REASON_LEDGER_ENTRY_INVALID
