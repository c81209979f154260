"""A server that turns time back or holds it: so that who has gone would be there still, and what was revoked would count.

Who notices: whoever has a copy (it only grows, and gives a server that is behind what it lacks), and whoever hears what others have
seen (head statements), or for too long nothing at all. What they see: LEDGER_STALE, or TASK_NOT_PROVEN with the rule. What is stored:
the newest ledger that anybody has proven, and the refusals; new work waits, and goes on when the server shows everything.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from folkmoot.client import FolkmootError, connection
from folkmoot.trust import (
    BytesSource,
    SigningKey,
    State,
    digest,
    inspect,
    request_removal_entry,
    revoke_key_entry,
    vote_removal_entry,
)
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest, AppendLedgerEntryResponse, ListHeadsResponse
from folkmoot.v1.ledger_pb2 import Decision, OrganizationVote
from folkmoot.v1.task_service_pb2 import AttachResponse
from tests.builders import Organization, World, organization
from tests.hostile.forgery import branch, forged, showing, shown
from tests.hostile.liar import Lie
from tests.hostile.misleading import asked, genuine, misled, refused_at, taking
from tests.hostile.protections import HEADS_OF_OTHERS, LIVING_LEDGER, PRESENT_MEMBERS, SIGNED_LEDGER, VOTING_MEMBERS
from tests.hostile.stage import ORGANIZATIONS, Stage
from tests.hostile.unprotected import Protection, without
from tests.integration.harness import utc_now
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

APPROVE = Decision.DECISION_APPROVE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def past(stage: Stage) -> World:
    """The collaboration as it was before Mallory's key was stolen."""
    await stage.admit("Mallory")
    return branch(stage.world)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def present(stage: Stage, past: World) -> Stage:
    """Mallory's key is revoked."""
    await revoke(stage)
    return stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before_removal(present: Stage) -> World:
    """The collaboration as it was while Oscar was a member, which the others have voted out since."""
    stage = present
    await stage.admit("Oscar")
    before, oscar = branch(stage.world), stage.world["Oscar"].address
    wish = request_removal_entry(
        stage.world.state, oscar, governance_key=stage.world["Alpha"].governance_key, now=utc_now()
    )
    await stage.append("Alpha", wish)
    for voter in ORGANIZATIONS:
        key = stage.world[voter].governance_key
        vote = vote_removal_entry(stage.world.state, digest(wish.body), APPROVE, governance_key=key, now=utc_now())
        await stage.append(voter, vote)
    assert not stage.world.state.is_member(oscar)
    return before


async def revoke(stage: Stage, *, seen_by: Sequence[str] = ORGANIZATIONS[1:]) -> None:
    """Revoke Mallory's key, if it is not revoked yet."""
    mallory = stage.world["Mallory"]
    if not is_revoked(stage, stage.world.state):
        keys, governance_key = [mallory.organization_key.task_signing.key_id], mallory.governance_key
        entry = revoke_key_entry(stage.world.state, keys, governance_key=governance_key, now=utc_now())
        await stage.append("Mallory", entry, seen_by=seen_by)


def is_revoked(stage: Stage, state: State) -> bool:
    return state.revocation(stage.world["Mallory"].organization_key.task_signing.key_id) is not None


async def signed_by(stage: Stage, past: World, initiator: str) -> str:
    """Give Beta's node a task that somebody signs who has gone since, naming the ledger as it was before; the result is for an accomplice."""
    given = await genuine(past, "Beta", initiator=initiator, result_receivers=[past["Gamma"].address])
    await misled(stage, "Beta", lambda assign: assign.CopyFrom(given))
    return given.run_id


# ---- the past, held ----------------------------------------------------------------------------------------------------


async def test_a_frozen_ledger_is_found_out_by_what_others_have_seen(stage: Stage, past: World):
    """Beta's node is not told that Mallory's key was revoked, and gets a task that the thief has signed. Most others have seen more."""
    async with AsyncExitStack() as lies:
        lies.enter_context(stage.before("Beta").instead("GetLedger", showing(past.entries)))
        lies.enter_context(stage.before("Beta").answers("Attach", holding(past)))
        await stage.net.start_node("Alpha")  # of which the stage has none; two of two others tell what they have seen
        lies.push_async_callback(stage.net.stop_node, "Alpha")
        await revoke(stage, seen_by=["Alpha", "Gamma"])
        await restarted(stage, "Beta")

        with capture_logs() as said:
            run_id = await signed_by(stage, past, "Mallory")
            await refused_at(stage, "Beta", run_id, "", said, known_to_the_server=False, reason="LEDGER_STALE")
        with without(HEADS_OF_OTHERS), taking(stage, "Beta") as taken:
            await restarted(stage, "Beta")
            assert (await taken.of(await signed_by(stage, past, "Mallory"))).read_by("Gamma") == 42
    await restarted(stage, "Beta")
    await stage.has_seen("Beta")
    await stage.works("Beta")


def holding(past: World) -> Lie:
    """Name an old entry as the newest one, and tell of none that comes."""

    def hold(answer: AttachResponse) -> list[AttachResponse] | None:
        if answer.frame.HasField("welcome"):
            answer.frame.welcome.ledger_position.CopyFrom(past.state.position.message())
        return [] if answer.frame.HasField("ledger_head") else None

    return hold


async def restarted(stage: Stage, organization: str) -> None:
    await stage.net.stop_node(organization)
    await stage.net.start_node(organization)


class NextWeek(datetime):
    """A clock that is eight days ahead."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + timedelta(days=8)


async def test_a_ledger_of_which_nobody_else_is_heard_for_a_week_is_stale(
    stage: Stage, past: World, monkeypatch: pytest.MonkeyPatch
):
    """The server holds everything back, other nodes' statements too: there is nothing left to see but silence."""
    monkeypatch.setattr(connection, "datetime", NextWeek)
    with stage.before("client").instead("ListHeads", lambda _: ListHeadsResponse()):
        async with stage.fresh_client() as client:
            with pytest.raises(FolkmootError) as caught:
                await asked(stage, client)
            assert caught.value.reason_name == "LEDGER_STALE"
            assert (await client.collaboration).sequence == stage.world.state.position.sequence  # to look at
            with without(LIVING_LEDGER):
                assert (await asked(stage, client)).envelopes


# ---- the past, told again --------------------------------------------------------------------------------------------


async def test_a_ledger_that_is_rolled_back_is_healed_and_not_believed(present: Stage, past: World):
    """The server was restored from a backup, it says: from before Mallory's key was revoked."""
    before, kept = present.before("client"), present.world.entries
    offered: list[bytes] = []

    def take(request: AppendLedgerEntryRequest) -> AppendLedgerEntryResponse:
        offered.append(request.entry.body)
        return AppendLedgerEntryResponse()

    async with present.fresh_client() as client:
        await client.collaboration  # it has a copy now
        with before.instead("GetLedger", showing(past.entries)), before.instead("AppendLedgerEntry", take):
            assert is_revoked(present, await client.connection.state(newest=True))
        assert offered == [each.body for each in kept[len(past.entries) :]]  # the server gets back what it lacks

    with shown(before, past.entries):
        async with present.fresh_client() as client:  # one without a copy
            assert not is_revoked(present, await client.connection.state())


async def test_a_node_keeps_what_it_knows_when_its_server_turns_time_back(present: Stage, past: World):
    """The same server, to Beta's node: the thief asks it for something as if the key had not been revoked."""
    before, kept = present.before("Beta"), present.world.entries
    offered: list[bytes] = []

    def take(request: AppendLedgerEntryRequest) -> AppendLedgerEntryResponse:
        offered.append(request.entry.body)
        return AppendLedgerEntryResponse()

    with ExitStack() as lies, capture_logs() as said:
        lies.enter_context(shown(before, past.entries))
        lies.enter_context(before.instead("AppendLedgerEntry", take))
        lies.enter_context(before.answers("Attach", holding(past)))
        await restarted(present, "Beta")
        await until(lambda: len(offered) >= len(kept) - len(past.entries), "the server gets back what it lacks")
        assert offered[: len(kept) - len(past.entries)] == [each.body for each in kept[len(past.entries) :]]
        run_id = await signed_by(present, past, "Mallory")
        await refused_at(present, "Beta", run_id, "SIGNER_GONE", said, known_to_the_server=False)
        await present.has_seen("Beta")
    await present.works("Beta")

    with shown(before, past.entries), before.answers("Attach", holding(past)), taking(present, "Beta") as taken:
        async with present.fresh_node("Beta") as node:  # one without a copy
            await node.attached()
            assert (await taken.of(await signed_by(present, past, "Mallory"))).read_by("Gamma") == 42


async def test_a_fresh_client_that_is_shown_an_old_ledger_asks_nobody(present: Stage, past: World):
    """It has no copy, but Beta's and Gamma's nodes have said how far the ledger goes; Mallory's stolen key would open what it sends."""
    with present.before("client").instead("GetLedger", showing(past.entries)):
        async with present.fresh_client() as client:
            with pytest.raises(FolkmootError, match="withholds") as caught:
                await asked(present, client, "Mallory")
            assert caught.value.reason_name == "LEDGER_STALE"
        with without(HEADS_OF_OTHERS):
            async with present.fresh_client() as client:
                assert inspect(BytesSource((await asked(present, client, "Mallory")).envelopes[0])).sealed
    async with present.fresh_client() as client:
        with pytest.raises(FolkmootError) as caught:
            await asked(present, client, "Mallory")
        assert caught.value.reason_name == "KEY_UNPUBLISHED"


# ---- who has gone ----------------------------------------------------------------------------------------------------

GONE = {"a revoked key": ("Mallory", "SIGNER_GONE"), "a removed member": ("Oscar", "MEMBER")}


@pytest.mark.parametrize("who", GONE)
async def test_no_work_is_done_for(present: Stage, past: World, before_removal: World, who: str):
    name, rule = GONE[who]
    then = past if name == "Mallory" else before_removal
    with capture_logs() as said:
        run_id = await signed_by(present, then, name)
        await refused_at(present, "Beta", run_id, rule, said, known_to_the_server=False)
    await present.works("Beta")

    with without(PRESENT_MEMBERS), taking(present, "Beta") as taken:
        assert (await taken.of(await signed_by(present, then, name))).read_by("Gamma") == 42


@dataclass(frozen=True)
class Voice:
    """Who would have a say in the ledger, with which key, by which rule it is refused, and what would have to be missing."""

    name: str
    key: Callable[[Organization], SigningKey]
    rule: str
    off: Protection


VOICES = {
    "a revoked key": Voice("Mallory", lambda own: own.organization_key.task_signing, "SIGNATURE", SIGNED_LEDGER),
    "a removed member": Voice("Oscar", lambda own: own.governance_key, "SIGNER", VOTING_MEMBERS),
}


@pytest.mark.parametrize("who", VOICES)
async def test_no_vote_is_counted_of(present: Stage, before_removal: World, who: str):
    """Nobody can take Oscar's key away from it, or the revoked one from the thief; the server would like to count them."""
    voice, world = VOICES[who], present.world
    subject = OrganizationVote(join_request=world.join_request(organization("Friend")), decision=APPROVE)
    vote = forged(world, "organization.vote", subject, organization=voice.name, key=voice.key(world[voice.name]))
    entries = [*world.entries, vote]
    async with present.fresh_client() as client:
        with shown(present.before("client"), entries), pytest.raises(FolkmootError) as caught:
            await client.connection.state(newest=True)
        assert (caught.value.reason_name, caught.value.metadata["rule"]) == ("LEDGER_ENTRY_INVALID", voice.rule)
        assert len((await client.connection.state(newest=True)).requests) == len(world.state.requests)

    with without(voice.off), shown(present.before("client"), entries):
        async with present.fresh_client() as client:
            state = await client.connection.state()
            assert world[voice.name].address in state.requests[digest(subject.join_request.body)].approved_by
