"""Leaving, voted removal, coming back, revoked nodes, algorithms and successors: what replay makes of them."""

from dataclasses import replace
from datetime import timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    InvitationInvalid,
    LedgerEntryInvalid,
    NodeNotApproved,
    OrganizationNotFound,
    Position,
    Predecessor,
    SigningKey,
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    found,
    node_approve_entry,
    replay,
)
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Decision, Quorum
from tests.builders import DAY, NOW, World, organization, randomness, world
from tests.vectors.forge import APPROVE, DECLINE, MINUTE, fork

FOUR = ("Alpha", "Beta", "Gamma", "Delta")


def refused(w: World, rule: str, act, *arguments) -> None:
    """Let a member do something that breaks a rule; nothing changes by it."""
    before = w.state
    with pytest.raises(LedgerEntryInvalid) as error:
        act(*arguments)
    assert error.value.metadata["rule"] == rule
    assert w.state == before


# ---- removal --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "going"), [("Alpha", "Gamma", "Delta"), ("Beta", "Delta", "Alpha")], ids=["member", "founder"]
)
def test_more_than_half_of_the_others_remove_a_member(first: str, second: str, going: str):
    w = world(FOUR)
    removal = w.request_removal(first, going)
    assert w.state.missing_removal_votes(removal) == 2
    w.vote_removal(first, removal)
    assert w.state.is_member(w[going].address)
    w.vote_removal(second, removal)
    assert not w.state.is_member(w[going].address)
    assert w.state.former_members[w[going].address].removed
    assert w.state.missing_removal_votes(removal) == 0


def test_asking_for_a_removal_is_no_vote():
    w = world(("Alpha", "Beta", "Gamma"))
    removal = w.request_removal("Alpha", "Gamma")
    assert w.state.removals[removal].approved_by == frozenset()
    w.vote_removal("Beta", removal)
    assert w.state.is_member(w["Gamma"].address)


def test_member_in_question_does_not_vote():
    w = world(FOUR)
    removal = w.request_removal("Alpha", "Delta")
    refused(w, "TARGET_VOTES", w.vote_removal, "Delta", removal, DECLINE)


def test_of_two_members_none_removes_the_other():
    w = world(("Alpha", "Beta"))
    refused(w, "RULE_OF_TWO", w.request_removal, "Alpha", "Beta")


def test_removal_of_three_that_became_two_never_passes():
    """The quorum of the one that is left would be one; at least two must approve."""
    w = world(("Alpha", "Beta", "Gamma"))
    removal = w.request_removal("Alpha", "Beta")
    w.leave("Gamma")
    w.vote_removal("Alpha", removal)
    assert w.state.is_member(w["Beta"].address)
    assert w.state.missing_removal_votes(removal) == 1


@pytest.mark.parametrize(
    ("quorum", "needed"),
    [(Quorum.QUORUM_MAJORITY, 3), (Quorum.QUORUM_TWO_THIRDS, 3), (Quorum.QUORUM_UNANIMOUS, 4)],
)
def test_quorum_of_the_others_decides(quorum, needed):
    w = world((*FOUR, "Epsilon"), nodes=False, quorum=quorum)
    removal = w.request_removal("Alpha", "Epsilon")
    for count, voter in enumerate(FOUR, 1):
        if not w.state.is_member(w["Epsilon"].address):
            w.vote_removal(voter, removal)
            assert w.state.is_member(w["Epsilon"].address) == (count < needed)


def test_change_of_mind_counts_once_and_the_newest():
    w = world(FOUR)
    removal = w.request_removal("Alpha", "Delta")
    for decision in (APPROVE, DECLINE, APPROVE, DECLINE):
        w.vote_removal("Beta", removal, decision)
    assert w.state.removals[removal].declined_by == {w["Beta"].address}
    assert w.state.missing_removal_votes(removal) == 2


def test_removal_is_asked_for_once_until_it_is_void():
    w = world(FOUR)
    first = w.request_removal("Alpha", "Delta")
    refused(w, "REMOVAL_OPEN", w.request_removal, "Beta", "Delta")
    w.now += timedelta(days=90)
    refused(w, "REMOVAL_VOID", w.vote_removal, "Beta", first)
    assert w.state.open_removals(w.now) == []
    assert w.request_removal("Beta", "Delta") != first


def test_removal_of_somebody_who_left_and_came_back_is_void():
    w = world(FOUR)
    removal = w.request_removal("Alpha", "Delta")
    w.vote_removal("Alpha", removal)
    w.leave("Delta")
    refused(w, "REMOVAL_VOID", w.vote_removal, "Beta", removal)
    w.join(w["Delta"])
    refused(w, "REMOVAL_VOID", w.vote_removal, "Beta", removal)
    assert w.state.is_member(w["Delta"].address)


@pytest.mark.parametrize(("target", "rule"), [("Alpha", "TARGET_SELF"), ("Nobody", "TARGET")])
def test_only_other_members_are_removed(target, rule):
    w = world(FOUR)
    w.organizations["Nobody"] = organization("Nobody")
    refused(w, rule, w.request_removal, "Alpha", target)


def test_votes_of_the_removed_no_longer_count():
    """Delta approved Epsilon before it was voted out: of the three that are left, two must approve, and one has."""
    w = world(FOUR)
    epsilon = organization("Epsilon")
    wish = w.join_request(epsilon)
    w.vote("Delta", wish)
    w.vote("Alpha", wish)
    w.remove("Delta")
    assert w.state.missing_votes(digest(wish.body)) == 1
    assert not w.state.is_member(epsilon.address)
    w.vote("Beta", wish)
    assert w.state.is_member(epsilon.address)


def test_request_that_was_made_in_the_future_collects_no_votes_for_years():
    w, mallory = world(FOUR), organization("Mallory")
    refused(w, "REQUEST_TERM", w.vote, "Alpha", w.join_request(mallory, now=NOW + 3650 * DAY))
    w.vote("Alpha", w.join_request(mallory, now=w.now + MINUTE))


def test_removed_member_does_not_come_back_by_votes_on_another_request_from_before():
    w, mallory = world(FOUR), organization("Mallory")
    first, second = w.join_request(mallory), w.join_request(mallory)
    for voter in ("Alpha", "Beta"):
        w.vote(voter, second)
    for voter in ("Alpha", "Beta", "Gamma"):
        w.vote(voter, first)
    w.organizations["Mallory"] = mallory
    removal = w.request_removal("Alpha", "Mallory")
    for voter in ("Alpha", "Beta", "Gamma"):
        w.vote_removal(voter, removal)
    refused(w, "REQUEST_DECIDED", w.vote, "Delta", second)
    assert not w.state.is_member(mallory.address)


def test_nothing_passes_as_a_side_effect_of_leaving():
    """After Delta left, two of three would be enough; but nobody is admitted until somebody votes again."""
    w = world((*FOUR, "Epsilon"), nodes=False)
    wish = w.join_request(organization("Zeta"))
    w.vote("Alpha", wish)
    w.vote("Beta", wish)
    w.leave("Delta")
    w.leave("Epsilon")
    assert w.state.missing_votes(digest(wish.body)) == 0
    assert not w.state.is_member(organization("Zeta").address)
    w.vote("Alpha", wish)
    assert w.state.is_member(organization("Zeta").address)


@given(
    st.permutations(("Alpha", "Beta", "Gamma")), st.lists(st.sampled_from([APPROVE, DECLINE]), min_size=3, max_size=3)
)
def test_order_of_votes_on_a_removal_changes_nothing(order, decisions):
    w = world(FOUR, quorum=Quorum.QUORUM_UNANIMOUS)
    removal = w.request_removal("Alpha", "Delta")
    chosen = dict(zip(("Alpha", "Beta", "Gamma"), decisions, strict=True))
    ends = []
    for voters in (("Alpha", "Beta", "Gamma"), order):
        later = fork(w)
        for voter in voters:
            later.vote_removal(voter, removal, chosen[voter])
        told = later.state.removals[removal]
        ends.append((told, later.state.members, later.state.missing_removal_votes(removal)))
    assert ends[0] == ends[1]


def test_who_votes_first_on_a_removal_does_not_decide():
    for order in permutations(("Alpha", "Beta", "Gamma")):
        w = world(FOUR)
        removal = w.request_removal("Beta", "Delta")
        for voter in order:
            if w.state.is_member(w["Delta"].address):
                w.vote_removal(voter, removal, DECLINE if voter == "Beta" else APPROVE)
        assert not w.state.is_member(w["Delta"].address)


# ---- what ends with a membership ------------------------------------------------------------------------------------


def test_leaving_ends_nodes_and_keys_and_frees_the_name():
    w = world(("Alpha", "Beta", "Gamma"))
    node_id, address = w["Gamma"].nodes["gamma-1"].fingerprint, w["Gamma"].address
    left = w.leave("Gamma")
    with pytest.raises(OrganizationNotFound):
        w.state.member("Gamma")
    with pytest.raises(NodeNotApproved, match="any more: entry"):
        w.state.node(node_id)
    assert w.state.organization_name(address) == "Gamma"
    assert w.state.former_members[address].until == w.state.position
    assert not w.state.former_members[address].removed
    assert w.state.key_terms[address][-1].until == w.state.position
    assert w.state.position.hash == digest(left.body)
    other = replace(organization("Another Gamma"), name="Gamma")
    w.join(other)
    assert w.state.member("Gamma").organization_id == other.address


def test_the_last_member_stays():
    w = world(("Alpha", "Beta"))
    w.leave("Beta")
    refused(w, "LAST_MEMBER", w.leave, "Alpha")


@pytest.mark.parametrize("gone", ["leave", "remove"])
def test_former_member_does_nothing_any_more(gone):
    w = world(FOUR)
    getattr(w, gone)("Delta")
    wish = w.join_request(organization("Epsilon"))
    refused(w, "SIGNER", w.vote, "Delta", wish)
    refused(w, "SIGNER", w.request_removal, "Delta", "Alpha")
    with pytest.raises(InvitationInvalid, match="current member"):
        w.add_node("Delta", "delta-2")


def test_who_left_comes_back_with_the_same_keys_and_new_nodes():
    w = world(("Alpha", "Beta", "Gamma"))
    node_key = w["Gamma"].nodes["gamma-1"]
    gamma = w["Gamma"]
    since = w.state.member("Gamma").since
    first_request = next(iter(r for r in w.state.requests.values() if r.organization_id == gamma.address))
    w.leave("Gamma")
    refused(w, "REQUEST_DECIDED", w.vote, "Alpha", first_request.digest)
    w.join(gamma)
    assert w.state.member("Gamma").since.sequence > since.sequence
    assert [term.until is None for term in w.state.key_terms[gamma.address]] == [False, True]
    assert node_key.fingerprint not in w.state.nodes

    def admit(key: SigningKey) -> None:
        claim = w.claim("Gamma", "gamma-1", key)
        entry = node_approve_entry(w.state, claim, key=gamma.governance_key, organization_id=gamma.address, now=w.now)
        w.append(entry)

    refused(w, "KEY_REUSED", admit, node_key)
    admit(SigningKey.generate(w.random))
    assert w.state.was_member(gamma.address, since.sequence)


def test_state_knows_who_was_a_member_when():
    w = world(("Alpha", "Beta", "Gamma"))
    joined = w.state.member("Gamma").since.sequence
    address = w["Gamma"].address
    w.leave("Gamma")
    left = w.state.position.sequence
    w.vote("Alpha", w.join_request(w["Gamma"]))
    w.join(w["Gamma"])
    back = w.state.member("Gamma").since.sequence
    members = [w.state.was_member(address, sequence) for sequence in range(back + 1)]
    assert members == [joined <= each < left or each >= back for each in range(back + 1)]


# ---- nodes ----------------------------------------------------------------------------------------------------------


def test_revoked_node_is_known_but_not_admitted():
    w = world(("Alpha", "Beta"))
    key = w["Beta"].nodes["beta-1"]
    since = w.state.node(key.fingerprint).since.sequence
    w.revoke_node("Beta", "beta-1")
    until = w.state.position.sequence
    with pytest.raises(NodeNotApproved, match="any more"):
        w.state.node(key.fingerprint)
    assert w.state.node_at(key.fingerprint, until - 1).name == "beta-1"
    for sequence in (since - 1, until, until + 5):
        with pytest.raises(NodeNotApproved):
            w.state.node_at(key.fingerprint, sequence)


def test_node_is_revoked_by_its_own_organization_once():
    w = world(("Alpha", "Beta"))
    key = w["Beta"].nodes["beta-1"]
    w["Alpha"].nodes["beta-1"] = key
    refused(w, "NODE", w.revoke_node, "Alpha", "beta-1")
    w.revoke_node("Beta", "beta-1")
    refused(w, "NODE", w.revoke_node, "Beta", "beta-1")


def test_name_of_a_revoked_node_is_free_its_key_is_not():
    w = world(("Alpha", "Beta"))
    key, beta = w["Beta"].nodes["beta-1"], w["Beta"]
    w.revoke_node("Beta", "beta-1")
    claim = w.claim("Beta", "beta-2", key)
    with pytest.raises(LedgerEntryInvalid) as error:
        node_approve_entry(w.state, claim, key=beta.governance_key, organization_id=beta.address, now=w.now)
    assert error.value.metadata["rule"] == "KEY_REUSED"
    assert w.add_node("Beta", "beta-1").fingerprint in w.state.nodes


# ---- algorithms -----------------------------------------------------------------------------------------------------


def propose(w: World, by: str = "Alpha", **fields) -> bytes:
    proposal = AlgorithmPropose(**({"image": "registry.example.org/average@sha256:*"} | fields))
    key = w[by].governance_key
    return digest(w.append(algorithm_propose_entry(w.state, proposal, governance_key=key, now=w.now)).body)


def vote(w: World, by: str, proposal: bytes, decision: Decision.ValueType = APPROVE) -> None:
    key = w[by].governance_key
    w.append(algorithm_vote_entry(w.state, proposal, decision, governance_key=key, now=w.now))


def withdraw(w: World, by: str, proposal: bytes) -> None:
    w.append(algorithm_revoke_entry(w.state, proposal, governance_key=w[by].governance_key, now=w.now))


def test_algorithm_is_allowed_by_quorum_and_withdrawn_by_its_proposer():
    w = world(("Alpha", "Beta", "Gamma"))
    proposal = propose(w)
    vote(w, "Alpha", proposal)
    assert not w.state.algorithms[proposal].decided
    vote(w, "Beta", proposal, DECLINE)
    vote(w, "Beta", proposal)
    assert w.state.algorithms[proposal].decided
    refused(w, "PROPOSAL_VOID", vote, w, "Gamma", proposal)
    refused(w, "PROPOSER", withdraw, w, "Beta", proposal)
    withdraw(w, "Alpha", proposal)
    assert w.state.algorithms[proposal].revoked
    refused(w, "PROPOSAL_VOID", withdraw, w, "Alpha", proposal)
    refused(w, "PROPOSAL_UNKNOWN", vote, w, "Beta", bytes(32))


@pytest.mark.parametrize(
    "fields",
    [
        {"image": ""},
        {"image": "i" * 513},
        {"functions": ["mean", "mean"]},
        {"labels": [""]},
        {"expires_at": NOW},
    ],
    ids=str,
)
def test_proposal_that_says_nothing_or_too_much_is_refused(fields):
    w = world(("Alpha", "Beta"))
    refused(w, "ALGORITHM", lambda: propose(w, **fields))


def test_expired_proposal_is_not_voted_on():
    w = world(("Alpha", "Beta"))
    proposal = propose(w, expires_at=NOW + DAY)
    w.now += DAY
    refused(w, "PROPOSAL_VOID", vote, w, "Beta", proposal)


# ---- successors -----------------------------------------------------------------------------------------------------


def successor(w: World, predecessor: Predecessor):
    alpha = w["Alpha"]
    return found(
        name="lung-2",
        founder_name="Alpha",
        governance_key=alpha.governance_key,
        organization_key=alpha.organization_key,
        predecessor=predecessor,
        now=NOW,
        random=randomness("successor"),
    )


def test_successor_names_what_it_succeeds():
    w = world(("Alpha", "Beta"))
    named = Predecessor(w.genesis, w.state.position)
    state = replay([successor(w, named)])
    assert state.predecessor == named
    assert w.state.predecessor is None
    assert state.genesis != w.genesis


@pytest.mark.parametrize(
    "broken", [Predecessor(b"", Position(0, bytes(32))), Predecessor(bytes(32), Position(0, b"x"))]
)
def test_successor_of_nothing_in_particular_is_refused(broken):
    with pytest.raises(LedgerEntryInvalid) as error:
        successor(world(("Alpha", "Beta")), broken)
    assert error.value.metadata["rule"] == "PREDECESSOR"
