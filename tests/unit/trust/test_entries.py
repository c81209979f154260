"""What is made here is taken everywhere; what others would refuse is refused where it is made."""

from datetime import timedelta
from typing import Any

import pytest

from folkmoot.trust import (
    EntryNotPossible,
    InvitationInvalid,
    LedgerEntryInvalid,
    Malformed,
    Reference,
    SigningKey,
    WrongCollaboration,
    digest,
    found,
    make_entry,
    make_invitation,
    node_approve_entry,
    read_invitation,
    replay,
    verify_invitation,
    verify_join_request,
    vote_entry,
)
from folkmoot.v1.keys_pb2 import InvitationFile, KeyKind
from folkmoot.v1.ledger_pb2 import Decision, LedgerEntry, NodeApprove
from tests.builders import DAY, NOW, SECOND, organization, randomness, world
from tests.vectors.forge import base, changed, invite, new_claim, redeem, request

APPROVE = Decision.DECISION_APPROVE


def founded(**changes):
    alpha = organization("Alpha")
    wish: dict[str, Any] = {"name": "lung", "founder_name": "Alpha", "governance_key": alpha.governance_key}
    wish |= {"organization_key": alpha.organization_key, "now": NOW, "random": randomness("found")}
    return found(**(wish | changes))


def test_founder_is_alone_with_a_named_collaboration():
    entry = founded()
    state = replay([entry])
    assert state.reference == Reference("lung", digest(entry.body))
    assert Reference.parse(str(state.reference)) == state.reference
    assert [member.name for member in state.members.values()] == ["Alpha"]


def test_same_founder_and_name_never_give_the_same_collaboration():
    assert digest(founded().body) != digest(founded(random=randomness("again")).body)


def test_founding_under_a_wrong_name_is_refused_at_once():
    with pytest.raises(EntryNotPossible, match="a name has 1 to 63"):
        founded(name="lung@home")


def test_members_with_rsa_keys_and_with_x_wing_keys_mix():
    w = world(("Alpha",), "rsa", nodes=False)
    w.join(organization("Beta"))
    kinds = [receiver.public_key.kind for receiver in w.state.receivers(["Alpha", "Beta"])]
    assert kinds == [KeyKind.KEY_KIND_RSA, KeyKind.KEY_KIND_X_WING]


def test_votes_by_request_and_by_digest_are_the_same_vote():
    w = base()
    wish = request(w)
    w.vote("Alpha", wish)
    w.vote("Beta", digest(wish.body))
    assert w.state.requests[digest(wish.body)].decided
    assert w.state.member("Delta").key_entry == w.state.position


def test_entry_that_would_be_refused_is_not_made():
    w = base()
    with pytest.raises(EntryNotPossible, match="only after a vote that brought it in whole") as refused:
        vote_entry(w.state, bytes(32), APPROVE, governance_key=w["Alpha"].governance_key, now=NOW)
    assert refused.value.metadata["rule"] == "REQUEST_UNKNOWN"


def test_entry_by_the_wrong_key_is_not_made():
    w, address = base(), base()["Alpha"].address
    data = NodeApprove(claim=new_claim(w))
    wrong = w["Beta"].governance_key
    with pytest.raises(EntryNotPossible, match="signed by its organization's governance key"):
        make_entry(w.state, "node.approve", data, key=wrong, organization_id=address, now=NOW)


def test_entry_for_a_head_that_moved_is_made_anew():
    w = base()
    wish = request(w)
    late = vote_entry(w.state, wish, APPROVE, governance_key=w["Beta"].governance_key, now=NOW)
    w.vote("Alpha", wish)
    with pytest.raises(LedgerEntryInvalid, match="one more than that of the entry before it") as refused:
        replay([late], state=w.state)
    assert not isinstance(refused.value, EntryNotPossible)  # it was signed, and could be in a ledger
    w.append(vote_entry(w.state, wish, APPROVE, governance_key=w["Beta"].governance_key, now=NOW))


def test_clock_that_is_behind_the_newest_entry_makes_entries_at_its_time():
    w = base()
    slow = NOW - timedelta(minutes=4)
    entry = vote_entry(w.state, request(w), APPROVE, governance_key=w["Alpha"].governance_key, now=slow)
    assert LedgerEntry.FromString(entry.body).created_at.ToNanoseconds() == w.state.last_created_at_nanoseconds


def test_clock_that_is_far_behind_makes_no_entry():
    w = base()
    slow = NOW - timedelta(minutes=6)
    with pytest.raises(EntryNotPossible, match="5 minutes ahead"):
        vote_entry(w.state, request(w), APPROVE, governance_key=w["Alpha"].governance_key, now=slow)


def test_node_is_admitted_by_its_own_organization_alone():
    w = base()
    node_key = SigningKey.generate(w.random)
    alpha = w["Alpha"]
    entry = node_approve_entry(
        w.state,
        w.claim("Alpha", "second", node_key),
        key=alpha.governance_key,
        organization_id=alpha.address,
        now=NOW,
        created_by="admin",
    )
    w.append(entry)
    assert w.state.node(node_key.fingerprint).name == "second"


# ---- join requests --------------------------------------------------------------------------------------------------


def test_join_request_is_whole_in_itself():
    w = base()
    wish = request(w)
    for genesis in (None, w.genesis):
        assert verify_join_request(wish, NOW, genesis=genesis).name == "Delta"
    assert verify_join_request(wish).name == "Delta"


@pytest.mark.parametrize(
    ("now", "rule"),
    [(NOW + 90 * DAY, "REQUEST_EXPIRED"), (NOW - timedelta(minutes=5) - SECOND, "TIME_AHEAD")],
    ids=["expired", "from the future"],
)
def test_join_request_out_of_its_time(now, rule):
    with pytest.raises(Malformed) as refused:
        verify_join_request(request(base()), now)
    assert refused.value.metadata["rule"] == rule


def test_join_request_that_nobody_would_take_is_not_made():
    with pytest.raises(Malformed, match="at most 90 days"):
        base().join_request(organization("Delta"), valid_for=91 * DAY)


def test_join_request_for_another_collaboration():
    with pytest.raises(Malformed, match="for this ledger"):
        verify_join_request(request(base()), NOW, genesis=bytes(32))


def test_join_request_that_somebody_altered():
    wish = request(base())
    with pytest.raises(Malformed, match="signed by the governance key"):
        verify_join_request(changed(wish, body=wish.body.replace(b"Delta", b"Omega")), NOW)


# ---- invitations ----------------------------------------------------------------------------------------------------


def test_invitation_tells_a_machine_all_that_it_needs():
    w = base()
    invitation, reference, one_time = read_invitation(w.invite("Alpha", "invited"))
    assert reference == w.state.reference
    assert (invitation.node_name, invitation.server_address) == ("invited", "localhost:7443")
    assert one_time.public == invitation.public_key


def test_invitation_file_with_another_seed():
    file = base().invite("Alpha", "invited")
    with pytest.raises(InvitationInvalid, match="one-time key is not that of its invitation"):
        read_invitation(changed(file, seed=bytes(32)))


def test_invitation_file_that_names_another_collaboration():
    w = base()
    other = str(Reference(w.state.name, bytes(32)))
    with pytest.raises(WrongCollaboration):
        read_invitation(changed(w.invite("Alpha", "invited"), collaboration=other))


def test_invitation_file_of_something_else():
    file = InvitationFile(invitation=request(base()), seed=bytes(32), collaboration=str(base().state.reference))
    with pytest.raises(InvitationInvalid, match="Invitation"):
        read_invitation(file)


def test_invitation_is_void_once_it_was_used():
    w = base()
    signed, one_time = invite(w)
    assert verify_invitation(signed, w.state, now=NOW).node_name == "invited"
    w.append(redeem(w, signed, one_time))
    with pytest.raises(InvitationInvalid, match="used once"):
        verify_invitation(signed, w.state, now=NOW)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"expires_at": NOW + SECOND}, None),
        ({"organization_id": organization("Delta").address}, "SIGNER"),
        ({"organization_id": organization("Beta").address}, "INVITATION"),
        ({"genesis": bytes(32)}, "INVITATION"),
        ({"node_name": "Alpha-1"}, "NAME_TAKEN"),
    ],
    ids=["good", "of no member", "of another member", "for another collaboration", "name taken"],
)
def test_invitation_is_judged_by_the_ledger(changes, rule):
    w = base()
    signed, _ = invite(w, **changes)
    if rule is None:
        verify_invitation(signed, w.state, now=NOW)
        with pytest.raises(InvitationInvalid, match="before it expires"):
            verify_invitation(signed, w.state, now=NOW + SECOND)
    else:
        with pytest.raises(InvitationInvalid) as refused:
            verify_invitation(signed, w.state, now=NOW)
        assert refused.value.metadata["rule"] == rule


def test_invitation_by_no_member_is_not_made():
    w = base()
    wish = {"node_name": "new", "server_address": "localhost:7443", "server_certificate_authority": ""}
    with pytest.raises(InvitationInvalid, match="current member"):
        make_invitation(
            w.state,
            governance_key=organization("Delta").governance_key,
            now=NOW,
            valid_for=DAY,
            random=w.random,
            **wish,
        )
