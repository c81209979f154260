"""A server that shows another ledger than the members signed: keys swapped, names changed, members invented, votes dropped or counted twice.

Who notices: client and node alike, each by replaying the ledger against the fingerprint that its user was told. What they see:
LEDGER_ENTRY_INVALID with the entry and the rule, or WRONG_COLLABORATION. What is stored: nothing of it; as soon as the server shows what
was signed, the same client and the same node go on.
"""

import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from folkmoot.client import AsyncClient, FolkmootError
from folkmoot.trust import (
    BytesSource,
    Expected,
    OrganizationKey,
    SigningKey,
    State,
    XWingKey,
    open_envelope,
    serialize,
    sign,
)
from folkmoot.trust.rules import LedgerRule
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.keys_pb2 import Invitation
from folkmoot.v1.ledger_pb2 import Decision, JoinRequest, NodeApprove, OrganizationVote
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import TaskSpec
from tests.builders import organization
from tests.hostile.forgery import branch, forged, rechained, shown, with_requests
from tests.hostile.misleading import asked
from tests.hostile.protections import (
    CHAINED_LEDGER,
    ONE_VOTE_EACH,
    SIGNED_INVITATIONS,
    SIGNED_LEDGER,
)
from tests.hostile.stage import ORGANIZATIONS, Stage
from tests.hostile.unprotected import Protection, without
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN_KEY = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
OWN_SIGNING_KEY, OWN_NODE_KEY = SigningKey.generate(os.urandom), SigningKey.generate(os.urandom)
APPROVE = Decision.DECISION_APPROVE


@dataclass(frozen=True)
class Forgery:
    """What the server shows, the rule that it breaks, what would have to be missing for it to be believed, and what it gains then."""

    entries: Callable[[Stage], list[Signed]]
    rule: str
    off: tuple[Protection, ...]
    gained: Callable[[Stage, AsyncClient], Awaitable[bool]]
    """At a client."""
    held: Callable[[Stage, State], bool]
    """What a node holds true then."""


# ---- what is shown ---------------------------------------------------------------------------------------------------


def swapped_key(stage: Stage) -> list[Signed]:
    """Beta's join request, with the server's key in the place of Beta's."""
    beta = stage.world["Beta"].address

    def swap(request: JoinRequest) -> None:
        if request.name == "Beta":
            request.key_claim.CopyFrom(OWN_KEY.claim(beta, 1, stage.world.now))

    return with_requests(stage.world.entries, swap)


def swapped_names(stage: Stage) -> list[Signed]:
    def swap(request: JoinRequest) -> None:
        request.name = {"Beta": "Gamma", "Gamma": "Beta"}[request.name]

    return with_requests(stage.world.entries, swap)


def ghost_member(stage: Stage) -> list[Signed]:
    """Two members vote for an organization that nobody knows; the ghost signs for both."""
    shown, ghost = branch(stage.world), organization("Ghost")
    ballot = OrganizationVote(join_request=shown.join_request(ghost), decision=APPROVE)
    votes = [
        forged(shown, "organization.vote", ballot, organization=each, key=ghost.governance_key)
        for each in ("Alpha", "Beta")
    ]
    return rechained([*shown.entries, *votes])


def dropped_vote(stage: Stage) -> list[Signed]:
    """Alpha and Beta have admitted Delta, and Gamma has gone on from there; Beta's vote is left out."""
    shown, delta = branch(stage.world), organization("Delta")
    request = shown.join_request(delta)
    for voter in ("Alpha", "Beta"):
        shown.vote(voter, request)
    shown.add_node("Gamma", "gamma-2")
    return [*shown.entries[:-2], shown.entries[-1]]


def vote_shown_twice(stage: Stage) -> list[Signed]:
    """Alpha alone has voted for Delta: the vote comes again, as it is."""
    shown, delta = branch(stage.world), organization("Delta")
    voted = shown.vote("Alpha", shown.join_request(delta))
    return [*shown.entries, voted]


def minted_invitation(stage: Stage) -> list[Signed]:
    """The server invites a node of its own in Beta's name."""
    genuine = branch(stage.world).invite("Beta", "beta-2", random=os.urandom).invitation
    invitation = Invitation.FromString(genuine.body)
    invitation.public_key.CopyFrom(OWN_SIGNING_KEY.public)
    minted = sign(
        SignedKind.SIGNED_KIND_INVITATION, serialize(invitation), key=OWN_SIGNING_KEY, genesis=stage.world.genesis
    )
    data = NodeApprove(claim=stage.world.claim("Beta", "beta-2", OWN_NODE_KEY), invitation=minted)
    return [*stage.world.entries, forged(stage.world, "node.approve", data, organization="Beta", key=OWN_SIGNING_KEY)]


def redeemed_invitation(stage: Stage) -> list[Signed]:
    """Beta has invited a node: whoever forwards the invitation sees it, but not the seed of its one-time key."""
    file = branch(stage.world).invite("Beta", "beta-2", random=os.urandom)
    data = NodeApprove(claim=stage.world.claim("Beta", "beta-2", OWN_NODE_KEY), invitation=file.invitation)
    return [*stage.world.entries, forged(stage.world, "node.approve", data, organization="Beta", key=OWN_SIGNING_KEY)]


def claimed_approval(stage: Stage) -> list[Signed]:
    """The server says that Beta's admin has approved its node."""
    data = NodeApprove(claim=stage.world.claim("Beta", "beta-2", OWN_NODE_KEY))
    return [*stage.world.entries, forged(stage.world, "node.approve", data, organization="Beta", key=OWN_SIGNING_KEY)]


# ---- what that would give --------------------------------------------------------------------------------------------


async def reads_the_question(stage: Stage, client: AsyncClient) -> bool:
    """The question for Beta is sealed to the server, which reads it."""
    request = await asked(stage, client)
    spec = TaskSpec.FromString(request.chain.specs[0].body)
    opened = open_envelope(
        BytesSource(request.envelopes[0]),
        genesis=stage.world.genesis,
        expected=Expected(
            kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
            task_id=spec.task_id,
            sender_organization_id=spec.initiator.organization_id,
        ),
        sender=lambda _: stage.world.state.keys(spec.initiator.organization_id).task_signing,
        keys={OWN_KEY.encryption.key_id: OWN_KEY.encryption},
    )
    return b"21" in opened.content()


async def asks_the_wrong_one(stage: Stage, client: AsyncClient) -> bool:
    """What is meant for Beta goes to Gamma."""
    spec = TaskSpec.FromString((await asked(stage, client)).chain.specs[0].body)
    return spec.receivers[0].organization_id == stage.world["Gamma"].address


async def is_there(name: str, client: AsyncClient) -> bool:
    return name in [each.name for each in await client.organizations]


async def has_its_node(stage: Stage, client: AsyncClient) -> bool:
    """A node of the server's counts as Beta's: what it signs is believed."""
    return OWN_NODE_KEY.fingerprint in (await client.connection.state()).nodes


async def ghost_is_there(stage: Stage, client: AsyncClient) -> bool:
    return await is_there("Ghost", client)


async def delta_is_there(stage: Stage, client: AsyncClient) -> bool:
    return await is_there("Delta", client)


async def delta_is_missing(stage: Stage, client: AsyncClient) -> bool:
    return not await is_there("Delta", client)


def names(state: State) -> set[str]:
    return {each.name for each in state.members.values()}


def seals_to_the_server(stage: Stage, state: State) -> bool:
    """What the node computes for Beta, and says to Beta's run, the server can read."""
    (beta,) = state.receivers(["Beta"])
    return beta.public_key == OWN_KEY.encryption.public


def takes_one_for_another(stage: Stage, state: State) -> bool:
    """A rule of the data owner's for Beta holds for Gamma."""
    return state.member("Beta").organization_id == stage.world["Gamma"].address


def believes_its_node(stage: Stage, state: State) -> bool:
    """A node of the server's counts as Beta's: its messages and receipts would be believed."""
    node = state.nodes.get(OWN_NODE_KEY.fingerprint)
    return node is not None and node.organization_id == stage.world["Beta"].address


FORGERIES = {
    "an organization's key is swapped": Forgery(
        swapped_key, "SIGNATURE", (SIGNED_LEDGER,), reads_the_question, seals_to_the_server
    ),
    "organizations are renamed": Forgery(
        swapped_names, "SIGNATURE", (SIGNED_LEDGER,), asks_the_wrong_one, takes_one_for_another
    ),
    "a ghost is admitted": Forgery(
        ghost_member, "SIGNATURE", (SIGNED_LEDGER,), ghost_is_there, lambda _, state: "Ghost" in names(state)
    ),
    "a vote is dropped": Forgery(
        dropped_vote,
        "SEQUENCE",
        (CHAINED_LEDGER,),
        delta_is_missing,
        lambda _, state: "Delta" not in names(state) and "gamma-2" in {each.name for each in state.nodes.values()},
    ),
    "a vote comes twice": Forgery(
        vote_shown_twice,
        "SEQUENCE",
        (CHAINED_LEDGER, ONE_VOTE_EACH),
        delta_is_there,
        lambda _, state: "Delta" in names(state),
    ),
    "an invitation is minted": Forgery(
        minted_invitation, "INVITATION", (SIGNED_INVITATIONS,), has_its_node, believes_its_node
    ),
    "an invitation is redeemed": Forgery(
        redeemed_invitation, "SIGNATURE", (SIGNED_LEDGER,), has_its_node, believes_its_node
    ),
    "an approval is claimed": Forgery(claimed_approval, "SIGNATURE", (SIGNED_LEDGER,), has_its_node, believes_its_node),
}


@pytest.mark.parametrize("what", FORGERIES)
async def test_a_fresh_client_believes_no_ledger_in_which(stage: Stage, what: str):
    forgery, before = FORGERIES[what], stage.before("client")
    entries = forgery.entries(stage)
    async with stage.fresh_client() as client:
        with shown(before, entries), pytest.raises(FolkmootError) as caught:
            _ = await client.organizations
        assert (caught.value.reason_name, caught.value.metadata["rule"]) == ("LEDGER_ENTRY_INVALID", forgery.rule)
        assert [each.name for each in await client.organizations] == list(ORGANIZATIONS)

    with without(*forgery.off), shown(before, entries):
        async with stage.fresh_client() as client:
            assert await forgery.gained(stage, client)


@pytest.mark.parametrize("what", FORGERIES)
async def test_a_fresh_node_believes_no_ledger_in_which(stage: Stage, what: str):
    forgery, before = FORGERIES[what], stage.before("Gamma")
    entries = forgery.entries(stage)
    with ExitStack() as lies, capture_logs() as said:
        lies.enter_context(shown(before, entries))
        async with stage.fresh_node("Gamma") as node:
            await until(lambda: [each for each in said if LedgerRule[forgery.rule].value in str(each.get("detail"))])
            (running,) = node.stations
            assert not running.link.is_attached
            lies.close()
            await node.attached()  # by itself, now that nobody lies
            assert running.station.state.hashes == stage.world.state.hashes

    with without(*forgery.off):
        lies = ExitStack()
        lies.enter_context(shown(before, entries))
        async with stage.fresh_node("Gamma") as node:
            await node.attached()
            (running,) = node.stations
            assert forgery.held(stage, running.station.state)
            lies.close()
    await stage.works("Gamma")
