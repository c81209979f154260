"""A server that shows different histories: to different members, at different times, or one that stands still.

Who notices: client and node, by what other members have signed of the ledger (head statements, tasks, results) and by their own copies.
What they see: LEDGER_FORK, LEDGER_STALE, WRONG_COLLABORATION. What is stored: their own history stays; both sides of a fork are kept as
evidence until a person decides. New work stops, old results stay readable; with an honest server everything goes on.
"""

import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from folkmoot.algorithm.values import encode
from folkmoot.client import AsyncClient, FolkmootError, governance
from folkmoot.client.results import Result
from folkmoot.trust import BytesSource, algorithm_propose_entry, inspect, node_approve_entry, seal_bytes
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest, AppendLedgerEntryResponse
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Encryption
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import TaskSpec
from folkmoot.v1.task_service_pb2 import WatchTaskResponse
from tests.builders import World, organization, world
from tests.hostile.forgery import branch, showing, shown
from tests.hostile.misleading import asked, genuine, misled, refused_at, resigned, taking
from tests.hostile.protections import (
    AGREED_POSITIONS,
    APPENDED_ENTRIES,
    HEADS_OF_OTHERS,
    NAMED_COLLABORATION,
    ONE_VOTE_EACH,
    POSITIONS_OF_RESULTS,
)
from tests.hostile.stage import ORGANIZATIONS, Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now

pytestmark = pytest.mark.asyncio(loop_scope="module")


def proposal(lung: World, image: str) -> Signed:
    """Something that a member can always say."""
    key = lung["Gamma"].governance_key
    return algorithm_propose_entry(lung.state, AlgorithmPropose(image=image), governance_key=key, now=utc_now())


def others(stage: Stage) -> World:
    """The other history that Gamma's admin, who is in league with the server, signs for whoever is to see it."""
    other = branch(stage.world)
    other.append(proposal(other, "example.org/other@sha256:" + "b" * 64))
    return other


async def grown(stage: Stage) -> None:
    """Let the true history grow by an entry, which is shown to everybody else."""
    await stage.append("Gamma", proposal(stage.world, f"example.org/{os.urandom(4).hex()}@sha256:{'a' * 64}"))


# ---- another collaboration -------------------------------------------------------------------------------------------


async def test_a_fresh_client_takes_no_other_collaboration_for_the_one_that_was_named(stage: Stage):
    """All of it is genuine: the same organizations, the same keys, another collaboration, in which nothing is encrypted."""
    other = world(ORGANIZATIONS, now=utc_now(), name="test", encryption=Encryption.ENCRYPTION_PLAIN)
    async with stage.fresh_client() as client:
        with shown(stage.before("client"), other.entries), pytest.raises(FolkmootError) as caught:
            await asked(stage, client)
        assert caught.value.reason_name == "WRONG_COLLABORATION"
        assert (await client.collaboration).name == "lung"

    with without(NAMED_COLLABORATION), shown(stage.before("client"), other.entries):
        async with stage.fresh_client() as client:
            assert b"21" in (await asked(stage, client)).envelopes[0]  # in the open


async def test_a_fresh_node_takes_no_other_collaboration_for_the_one_that_was_named(stage: Stage):
    """The node takes part in another collaboration too, with others in it, and the server shows it that one's ledger."""
    other = world((*ORGANIZATIONS, "Mallory"), now=utc_now(), name="test")
    key, gamma = stage.world["Gamma"].nodes["gamma-1"], other["Gamma"]
    claim = other.claim("Gamma", "gamma-x", key)
    other.append(
        node_approve_entry(other.state, claim, key=gamma.governance_key, organization_id=gamma.address, now=utc_now())
    )
    before = stage.before("Gamma")
    with shown(before, other.entries):
        async with stage.fresh_node("Gamma") as node:
            with pytest.raises(FolkmootError) as caught:
                await node.attached()
    assert caught.value.reason_name == "WRONG_COLLABORATION"

    with without(NAMED_COLLABORATION), ExitStack() as lies:
        lies.enter_context(shown(before, other.entries))
        async with stage.fresh_node("Gamma") as node:
            await node.attached()
            (running,) = node.stations
            assert "Mallory" in [each.name for each in running.station.state.members.values()]
            lies.close()
    await stage.works("Gamma")


# ---- votes -----------------------------------------------------------------------------------------------------------


async def test_a_vote_that_the_server_swallows_is_missed_by_who_cast_it(stage: Stage):
    delta = organization("Delta")
    admin = await stage.net.server.organization_admin("Delta")
    await stage.net.server.submit_join_request(stage.world.join_request(delta, now=utc_now()), admin)

    def swallow(request: AppendLedgerEntryRequest) -> AppendLedgerEntryResponse:
        return AppendLedgerEntryResponse()

    async def cast(client: AsyncClient) -> int:
        attempt = await governance.find_request(client.connection, "Delta")
        key = stage.world["Alpha"].governance_key
        return await governance.vote(client.connection, attempt, approve=True, governance_key=key)

    async with stage.fresh_client(username="admin@alpha") as client:
        with stage.before("client").instead("AppendLedgerEntry", swallow):
            with pytest.raises(FolkmootError, match="does not show it") as caught:
                await cast(client)
            with without(APPENDED_ENTRIES):
                assert await cast(client) == 2  # the admin has no reason to think that his vote is not among them
        assert caught.value.reason_name == "LEDGER_STALE"
        assert await cast(client) == 1
        replica = await client.connection.replica()
        stage.world.append(replica.entries[-1])


async def test_two_votes_of_one_organization_count_once(stage: Stage):
    """Alpha's admin votes again and again, and the server is glad to store it."""
    shown_, delta = branch(stage.world), organization("Epsilon")
    request = shown_.join_request(delta, now=utc_now())
    shown_.now = utc_now()
    for _ in range(2):
        shown_.vote("Alpha", request)

    async def members(client: AsyncClient) -> list[str]:
        return [each.name for each in await client.organizations]

    with shown(stage.before("client"), shown_.entries):
        async with stage.fresh_client() as client:
            assert await members(client) == list(ORGANIZATIONS)
        with without(ONE_VOTE_EACH):
            async with stage.fresh_client() as client:
                assert "Epsilon" in await members(client)


# ---- two histories ---------------------------------------------------------------------------------------------------


async def test_two_histories_are_found_out_by_head_statements(stage: Stage):
    """Alpha is shown another newest entry than everybody else; Beta's and Gamma's nodes say what they see."""
    other = others(stage)
    await grown(stage)

    with stage.before("client").instead("GetLedger", showing(other.entries)):
        async with stage.fresh_client() as client:
            with pytest.raises(FolkmootError) as caught:
                await asked(stage, client)
            assert caught.value.reason_name == "LEDGER_FORK"
            assert "another history to most of the others" in str(caught.value)
        with without(HEADS_OF_OTHERS):
            async with stage.fresh_client() as client:
                (signed,) = (await asked(stage, client)).chain.specs
                position = TaskSpec.FromString(signed.body).ledger_position
                assert position.hash == other.state.position.hash  # Alpha's task stands in the server's history
    await stage.works()


async def test_two_histories_are_found_out_by_a_task(stage: Stage):
    """Beta's node gets a task that Alpha has signed in the other history: that is refused, and one signer's word stops nothing else."""
    other = others(stage)
    await grown(stage)

    with capture_logs() as said:
        foreign = await genuine(other, "Beta")
        await misled(stage, "Beta", lambda given: given.CopyFrom(foreign))
        await refused_at(stage, "Beta", foreign.run_id, "", said, known_to_the_server=False, reason="LEDGER_FORK")
    assert "node.ledger_contradicted" in [each["event"] for each in said]
    await stage.works("Beta")

    foreign = await genuine(other, "Beta")
    with without(AGREED_POSITIONS), taking(stage, "Beta") as taken:
        await misled(stage, "Beta", lambda given: given.CopyFrom(foreign))
        assert (await taken.of(foreign.run_id)).read_by("Alpha") == 42


async def test_a_second_history_after_the_first_is_kept_as_evidence(stage: Stage):
    """Whoever has a copy sees both sides of the fork; a person who has compared them lets work go on."""
    other = others(stage)
    await grown(stage)
    before = stage.before("client")
    async with stage.fresh_client() as client:
        await client.collaboration  # it has a copy now
        with before.instead("GetLedger", showing(other.entries)), pytest.raises(FolkmootError) as caught:
            await client.connection.state(newest=True)
        assert caught.value.reason_name == "LEDGER_FORK"
        path = Path(caught.value.metadata["evidence"])
        assert all(json.loads(path.read_text())[side] for side in ("ours", "theirs"))
        with pytest.raises(FolkmootError, match="two histories"):
            await asked(stage, client)  # also once the server shows the first one again
        assert (await client.collaboration).sequence == stage.world.state.position.sequence  # to look at
        path.unlink()
        await asked(stage, client)

    with shown(before, other.entries):
        async with stage.fresh_client() as client:  # one without a copy
            assert (await client.connection.state()).position == other.state.position


async def test_two_histories_are_found_out_by_a_result(stage: Stage):
    """Beta's node has worked in the other history, and says so in all that it signs: Alpha's client sees that run alone as forked."""
    other = others(stage)
    await grown(stage)
    task = await stage.ask("Beta", "Gamma")
    assert (await stage.result(task, "Beta")).value == 42
    key = stage.world["Beta"].nodes["beta-1"]

    def foreign(answer: WatchTaskResponse) -> None:
        if answer.run.run_id == stage.run_id(task, "Beta") and answer.result_envelope:
            context = inspect(BytesSource(answer.result_envelope)).context
            context.ledger_hash = other.state.position.hash
            receivers = stage.world.state.receivers(["Alpha"])
            sealed = seal_bytes(encode(43).content, context=context, receivers=receivers, key=key, random=os.urandom)
            answer.result_envelope = sealed.envelope
            position, signed = other.state.position.message(), answer.run.receipt
            signed.CopyFrom(resigned(signed, key, result_digest=sealed.digest, ledger_position=position))

    async def seen(organization: str) -> Result:
        return await stage.result(await stage.client.tasks.get(task.id), organization)

    with stage.before("client").answers("WatchTask", foreign):
        result = await seen("Beta")
        assert result.problem is not None
        assert result.problem.reason_name == "LEDGER_FORK"
        assert (await seen("Gamma")).value == 42  # one signer's word costs nobody else's result
        with without(POSITIONS_OF_RESULTS):
            assert (await seen("Beta")).value == 43
    assert (await seen("Beta")).value == 42
