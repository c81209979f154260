"""What replay promises beyond single rules: one meaning for one ledger, and states that nobody changes."""

from dataclasses import FrozenInstanceError, replace
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
    SigningKey,
    Terms,
    WrongCollaboration,
    digest,
    fingerprint,
    node_approve_entry,
    replay,
)
from folkmoot.v1.ledger_pb2 import Decision, Encryption, JoinRequestState, NodeApprove, Quorum
from tests.builders import DAY, NOW, SECOND, organization, world
from tests.vectors.forge import APPROVE, DECLINE, base, entry, fork, founding_data, redeem, request, vote

MEMBERS, APPLICANTS = ("Alpha", "Beta", "Gamma"), ("Delta", "Epsilon")
ACTIONS = st.one_of(
    st.tuples(
        st.just("vote"), st.sampled_from(MEMBERS), st.sampled_from(APPLICANTS), st.sampled_from([APPROVE, DECLINE])
    ),
    st.tuples(st.just("node"), st.sampled_from(MEMBERS), st.sampled_from(["one", "two", "Two"]), st.booleans()),
)


def history(actions):
    """Let a collaboration live through actions, of which some are refused; return it."""
    w = base()
    requests = {name: request(w, organization(name)) for name in APPLICANTS}
    for kind, member, name, choice in actions:
        try:
            if kind == "vote":
                w.vote(member, requests[name], choice)
            elif choice:
                w.add_node(member, name)
            else:
                claim, owner = w.claim(member, name, SigningKey.generate(w.random)), w[member]
                w.append(
                    node_approve_entry(
                        w.state, claim, key=owner.governance_key, organization_id=owner.address, now=w.now
                    )
                )
        except (LedgerEntryInvalid, InvitationInvalid):
            continue
    return w


@given(st.lists(ACTIONS, max_size=12), st.integers(min_value=1, max_value=8))
def test_replay_equals_appends_however_they_are_cut(actions, size):
    w = history(actions)
    whole, pieces = replay(w.entries), None
    for first in range(0, len(w.entries), size):
        pieces = replay(w.entries[first : first + size], state=pieces)
    assert whole == pieces == w.state
    assert whole.position.sequence == len(w.entries) - 1


@given(st.lists(st.sampled_from([APPROVE, DECLINE]), min_size=3, max_size=3), st.permutations(MEMBERS))
def test_order_of_votes_that_leave_membership_alone_changes_nothing(decisions, order):
    """Four members, three votes: nobody is admitted before the last one that could admit."""
    w = fork(world((*MEMBERS, "Zeta"), nodes=False, quorum=Quorum.QUORUM_UNANIMOUS))
    wish, chosen = request(w), dict(zip(MEMBERS, decisions, strict=True))
    verdicts = []
    for members in (MEMBERS, order):
        later = fork(w)
        for member in members:
            later.append(vote(later, wish, member, chosen[member]))
        told = later.state.requests[digest(wish.body)]
        verdicts.append((told, later.state.members, later.state.missing_votes(told.digest)))
    assert verdicts[0] == verdicts[1]


def test_who_votes_first_does_not_decide():
    for order in permutations(MEMBERS):
        w = base()
        wish = request(w)
        for member in order:
            if not w.state.is_member(organization("Delta").address):
                w.vote(member, wish, DECLINE if member == "Beta" else APPROVE)
        assert w.state.is_member(organization("Delta").address)


def test_invitation_with_a_hundred_claims_admits_one():
    w = base()
    file = w.invite("Alpha", "invited")
    one_time = SigningKey.from_seed(file.seed)
    redeemed = [redeem(w, file.invitation, one_time) for _ in range(100)]
    winner = w.append(redeemed[57])
    for loser in redeemed:
        if loser != winner:  # Made for the head that moved, and made anew for the new one: both are refused.
            with pytest.raises(LedgerEntryInvalid, match="Entry 8 breaks a rule"):
                replay([loser], state=w.state)
            with pytest.raises(LedgerEntryInvalid) as refused:
                replay([redeem(w, file.invitation, one_time)], state=w.state)
            assert refused.value.metadata == {"sequence": "8", "rule": "INVITATION_USED"}
    assert [node.organization_id for node in w.state.nodes.values()].count(w["Alpha"].address) == 2


def test_all_or_nothing():
    """An entry that breaks a rule takes those before it in the same call with it, and leaves the state as it was."""
    w = base()
    before, good = w.state, vote(w, request(w))
    later = fork(w)
    later.append(good)
    bad = entry(later, "organization.vote", b"\xff")
    with pytest.raises(LedgerEntryInvalid) as refused:
        replay([good, bad], state=before)
    assert refused.value.metadata["sequence"] == "8"
    assert before == replay(w.entries)
    assert digest(request(w).body) not in before.requests


def test_one_state_has_many_futures():
    w = base()
    left, right = fork(w), fork(w)
    left.vote("Alpha", request(w, organization("Delta")))
    right.vote("Beta", request(w, organization("Epsilon")), DECLINE)
    assert left.state != right.state
    asking = {name: organization(name).address for name in APPLICANTS}
    assert {each.organization_id for each in left.state.requests.values()} & {*asking.values()} == {asking["Delta"]}
    assert {each.organization_id for each in w.state.requests.values()}.isdisjoint(asking.values())


def test_readers_cannot_change_a_state():
    state = base().state
    for mapping in (state.members, state.nodes, state.requests, state.used_keys, state.used_names):
        with pytest.raises(TypeError):
            mapping["x"] = "y"  # type: ignore[index]
    with pytest.raises(FrozenInstanceError):
        state.hashes = ()  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        next(iter(state.members.values())).name = "Mallory"  # type: ignore[misc]


def test_empty_ledger_is_none():
    with pytest.raises(LedgerEntryInvalid, match="founds"):
        replay([])


def test_nothing_new_gives_the_same_state():
    state = base().state
    assert replay([], state=state, expected_genesis=state.genesis, now=NOW) == state


def test_state_of_another_collaboration_is_not_continued():
    with pytest.raises(WrongCollaboration):
        replay([], state=base().state, expected_genesis=bytes(32))


def test_a_verified_past_is_not_judged_by_todays_clock():
    """Entries are refused as too new at first sight only: `now` is not given for what one has seen before."""
    w = base()
    with pytest.raises(LedgerEntryInvalid, match="5 minutes ahead"):
        replay(w.entries, now=NOW - timedelta(minutes=6))
    assert replay(w.entries) == replay(w.entries, now=NOW - timedelta(minutes=5)) == w.state


# ---- quorum ---------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=200), st.data())
def test_quorum_is_what_it_says(members, data):
    approvals = data.draw(st.integers(min_value=0, max_value=members))
    for quorum, enough in {
        Quorum.QUORUM_MAJORITY: approvals * 2 > members,
        Quorum.QUORUM_TWO_THIRDS: approvals * 3 >= members * 2,
        Quorum.QUORUM_UNANIMOUS: approvals == members,
    }.items():
        assert (approvals >= replace(base().state.terms, quorum=quorum).votes_needed(members)) == enough


@pytest.mark.parametrize(
    ("quorum", "needed"),
    [(Quorum.QUORUM_MAJORITY, 3), (Quorum.QUORUM_TWO_THIRDS, 3), (Quorum.QUORUM_UNANIMOUS, 4)],
)
def test_admitted_by_exactly_the_vote_that_makes_the_quorum(quorum, needed):
    w = fork(world((*MEMBERS, "Zeta"), nodes=False, quorum=quorum))
    wish = request(w)
    for count, member in enumerate((*MEMBERS, "Zeta")[:needed]):
        assert w.state.missing_votes(digest(wish.body)) == needed - count
        assert not w.state.is_member(organization("Delta").address)
        w.vote(member, wish)
    assert w.state.is_member(organization("Delta").address)
    assert w.state.missing_votes(digest(wish.body)) == 0


def test_half_is_no_majority():
    w = fork(world(("Alpha", "Beta"), nodes=False))
    w.vote("Alpha", request(w))
    assert len(w.state.members) == 2


def test_a_vote_counts_once_however_often_it_is_given():
    w = base()
    wish = request(w)
    for _ in range(3):
        w.vote("Alpha", wish)
    assert len(w.state.members) == 3
    assert w.state.missing_votes(digest(wish.body)) == 1


def test_a_new_member_votes_on_requests_that_are_older_than_it():
    w = base()
    old, wish = request(w, organization("Epsilon")), request(w)
    w.vote("Alpha", old)
    w.vote("Alpha", wish)
    w.vote("Beta", wish)
    w.organizations["Delta"] = organization("Delta")
    assert w.state.missing_votes(digest(old.body)) == 2  # Three of four are needed now.
    w.vote("Delta", old)
    assert not w.state.is_member(organization("Epsilon").address)
    w.vote("Beta", old)
    assert w.state.is_member(organization("Epsilon").address)


def test_admitting_one_does_not_admit_another():
    """Nothing passes as a side effect: a request is counted after entries about that request alone."""
    w = base()
    other, wish = request(w, organization("Epsilon")), request(w)
    w.vote("Alpha", other)
    for member in ("Alpha", "Beta"):
        w.vote(member, wish)
    told = w.state.requests[digest(other.body)]
    assert (told.approved_by, told.decided) == (frozenset({w["Alpha"].address}), False)


def test_who_asks_twice_for_a_name_gets_it_once():
    w = base()
    first, second = request(w, organization("Delta"), name="Omega"), request(w, organization("Epsilon"), name="omega")
    w.vote("Alpha", first)
    w.vote("Alpha", second)
    w.vote("Beta", first)
    with pytest.raises(LedgerEntryInvalid, match="same name"):
        w.vote("Beta", second)
    assert w.state.member("OMEGA").organization_id == organization("Delta").address


# ---- reading a state ------------------------------------------------------------------------------------------------


def test_members_are_found_by_name_and_by_address():
    w = base()
    alpha = w["Alpha"].address
    assert {w.state.member(each).organization_id for each in ("Alpha", "alpha", alpha)} == {alpha}
    assert w.state.keys(alpha).task_signing == w["Alpha"].organization_key.task_signing.public
    receivers = w.state.receivers(["Beta", alpha])
    assert [each.organization_id for each in receivers] == [w["Beta"].address, alpha]
    assert receivers[1].public_key == w["Alpha"].organization_key.encryption.public


def test_unknown_organization_is_answered_with_the_members():
    with pytest.raises(
        OrganizationNotFound, match=r"'Delta' is not a member of lung; its members are Alpha, Beta, Gamma"
    ):
        base().state.member("Delta")


def test_unknown_node_is_not_approved():
    w = base()
    node_key = w["Alpha"].nodes["alpha-1"]
    assert w.state.node_key(node_key.fingerprint) == node_key.public
    with pytest.raises(NodeNotApproved, match="does not admit"):
        w.state.node_key(fingerprint(bytes(32)))


def test_hashes_are_known_by_sequence():
    w = base()
    assert [w.state.hash_at(each) for each in range(7)] == [digest(each.body) for each in w.entries]
    assert w.state.hash_at(7) is None
    assert w.state.position.hash == w.state.hash_at(6)
    assert w.state.hash_at(0) == w.state.genesis == w.state.reference.genesis


def test_how_a_request_stands():
    w = base()
    wish = request(w)
    assert w.state.request_state(wish, NOW) == JoinRequestState.JOIN_REQUEST_STATE_PENDING
    assert w.state.missing_votes(digest(wish.body)) == 2
    w.vote("Alpha", wish, DECLINE)
    assert w.state.request_state(wish, NOW) == JoinRequestState.JOIN_REQUEST_STATE_PENDING
    w.vote("Beta", wish, DECLINE)
    assert w.state.request_state(wish, NOW) == JoinRequestState.JOIN_REQUEST_STATE_DECLINED
    assert w.state.request_state(wish, NOW + 90 * DAY) == JoinRequestState.JOIN_REQUEST_STATE_EXPIRED
    assert w.state.request_state(wish, NOW + 90 * DAY - SECOND) == JoinRequestState.JOIN_REQUEST_STATE_DECLINED
    w.vote("Beta", wish, Decision.DECISION_APPROVE)
    w.vote("Gamma", wish)
    assert w.state.request_state(wish, NOW + 90 * DAY) == JoinRequestState.JOIN_REQUEST_STATE_ADMITTED


def test_address_of_a_member_follows_from_its_governance_key():
    w = base()
    for member in w.state.members.values():
        assert member.organization_id == w[member.name].governance_key.fingerprint
    with pytest.raises(LedgerEntryInvalid):
        w.append(entry(w, "node.approve", NodeApprove(), organization_id=w["Beta"].address))


def test_terms_are_set_once():
    w = base()
    plain = founding_data()
    plain.encryption = Encryption.ENCRYPTION_PLAIN
    again = entry(w, "collaboration.create", plain)
    with pytest.raises(LedgerEntryInvalid) as refused:
        w.append(again)
    assert refused.value.metadata["rule"] == "FOUNDING"
    assert w.state.encryption == Encryption.ENCRYPTION_SEALED


def test_terms_are_those_of_the_founder():
    state = base().state
    assert state.terms == Terms(state.name, state.encryption, state.post_quantum, state.quorum)
    assert str(state.reference) == f"lung@{fingerprint(state.genesis)}"
    assert state.last_created_at == NOW
