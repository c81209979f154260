"""Proof files: what they prove without a server, and what is told of what was left out."""

import re

import pytest

from folkmoot.trust import (
    KeyEnding,
    Malformed,
    OrganizationKey,
    SigningKey,
    XWingKey,
    digest,
    leave_entry,
    make_proof,
    node_approve_entry,
    node_revoke_entry,
    request_removal_entry,
    revoke_key_entry,
    rotate_key_entry,
    serialize,
    sign_receipt,
    verify_proof,
    vote_removal_entry,
)
from folkmoot.trust.proof_format import MAGIC
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.proof_pb2 import Proof, ProvenTask
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, TaskChain
from tests.builders import SECOND, World, organization, world
from tests.proofs import CAME_ALTERED, LOST, REFUSED, Story, asked, told
from tests.unit.trust.proof_scene import file_of, refused
from tests.vectors import second_reader_proof


@pytest.fixture(scope="module")
def story():
    return told()


@pytest.fixture(scope="module")
def data(story):
    return story.proof()


@pytest.fixture(scope="module")
def message(data):
    return Proof.FromString(data[len(MAGIC) :])


# ---- what is proven ------------------------------------------------------------------------------------------------


def test_everything_that_happened_is_told(story, data):
    proof = verify_proof(data, expected=story.world.state.reference)
    assert proof.reference == story.world.state.reference
    assert [len(each.task.chain) for each in proof.tasks] == [1, 2, 3]
    root, below, deepest = proof.tasks
    assert root.task.spec.purpose == "to learn"
    assert [[len(run.receipts) for run in each.runs] for each in proof.tasks] == [[2, 1], [1], [0]]
    assert [receipt.attempt for receipt in root.runs[0].receipts] == [1, 2]
    assert root.runs[1].receipts[0].rule == "images"
    assert below.runs[0].proven
    assert proof.unproven == ((deepest, deepest.runs[0]),)


def test_members_are_told_with_their_keys_and_the_votes_that_let_them_in(story, data):
    proof = verify_proof(data, expected=None)
    alpha, beta, gamma = proof.ledger.members_at(proof.tasks[0].made_at.sequence)
    assert [each.membership.name for each in (alpha, beta, gamma)] == ["Alpha", "Beta", "Gamma"]
    assert [each.founder for each in (alpha, beta, gamma)] == [True, False, False]
    address = {name: story.world[name].address for name in ("Alpha", "Beta")}
    assert beta.approved_by == (address["Alpha"],)
    assert set(gamma.approved_by) == set(address.values())
    assert gamma.keys is not None
    assert gamma.keys.keys.encryption == story.world["Gamma"].organization_key.encryption.public
    assert gamma.since.sequence == 3
    nodes = proof.ledger.nodes
    assert [each.node.name for each in nodes] == ["alpha-1", "beta-1", "gamma-1"]
    assert all(each.invited for each in nodes)


def test_members_are_those_of_the_time_when_the_task_was_made():
    w = world(("Alpha", "Beta", "Gamma"))
    story = told(w)
    w.join(organization("Delta"))
    w.append(leave_entry(w.state, governance_key=w["Beta"].governance_key, now=w.now))
    proof = verify_proof(story.proof(), expected=None)
    then = proof.ledger.members_at(proof.tasks[0].made_at.sequence)
    assert [each.membership.name for each in then] == ["Alpha", "Beta", "Gamma"]
    assert then[1].membership.until is not None
    now = proof.ledger.members_at(proof.ledger.head.sequence)
    assert [each.membership.name for each in now] == ["Alpha", "Delta", "Gamma"]


def test_votes_against_are_told():
    w = world(("Alpha", "Beta", "Gamma"))
    delta = organization("Delta")
    request = w.join_request(delta)
    w.vote("Gamma", request, Decision.DECISION_DECLINE)
    w.vote("Alpha", request)
    w.vote("Beta", request)
    w.organizations["Delta"] = delta
    story = Story(w, [])
    story.add(spec=w.task("Alpha", ("Delta",)))
    proof = verify_proof(story.proof(), expected=None)
    _, _, told_of, _ = proof.ledger.members_at(proof.ledger.head.sequence)
    assert told_of.membership.name == "Delta"
    assert set(told_of.approved_by) == {w["Alpha"].address, w["Beta"].address}
    assert told_of.declined_by == (w["Gamma"].address,)


def test_node_that_the_governance_key_approved_itself_is_told_as_that():
    w = world(("Alpha", "Beta"))
    key = SigningKey.generate(w.random)
    claim, own = w.claim("Beta", "beta-2", key), w["Beta"]
    w.append(node_approve_entry(w.state, claim, key=own.governance_key, organization_id=own.address, now=w.now))
    w.append(node_revoke_entry(w.state, key.fingerprint, governance_key=own.governance_key, now=w.now))
    story = Story(w, [])
    story.add(spec=w.task("Alpha"))
    *_, node = verify_proof(story.proof(), expected=None).ledger.nodes
    assert (node.node.name, node.invited) == ("beta-2", False)
    assert node.node.until is not None


def test_task_that_came_altered_is_refused_by_a_receipt_for_its_run_alone():
    story = asked()
    story.receipt(1, "Gamma", **CAME_ALTERED)
    [_, gamma] = verify_proof(story.proof(), expected=None).tasks[0].runs
    assert gamma.receipts[0].task_digest != story.verified(1).digest


def test_subtask_may_be_what_a_proof_is_about(story):
    tasks = [each for each in story.tasks if len(each.chain.specs) > 1]
    proof = verify_proof(make_proof(story.world.entries, reversed(tasks)), expected=None)
    assert [len(each.task.chain) for each in proof.tasks] == [2, 3]


def later(w: World) -> None:
    w.now += SECOND


def rotated(w: World, name: str) -> None:
    later(w)
    keys = OrganizationKey(XWingKey.generate(w.random), SigningKey.generate(w.random))
    generation = w.state.keys(w[name].address).generation + 1
    claim = keys.claim(organization_id=w[name].address, generation=generation, now=w.now)
    w.append(rotate_key_entry(w.state, claim, governance_key=w[name].governance_key, now=w.now))


def test_keys_that_were_rotated_since_prove_what_they_signed_before():
    s = told(world(("Alpha", "Beta", "Gamma")))
    rotated(s.world, "Alpha")
    proof = verify_proof(s.proof(), expected=None)
    [alpha, *_] = proof.ledger.members_at(proof.tasks[0].made_at.sequence)
    assert alpha.keys is not None
    assert alpha.keys.ending is KeyEnding.ROTATED
    assert len(proof.tasks) == 3


def revoked(w: World, name: str) -> None:
    later(w)
    ids = [w[name].organization_key.task_signing.key_id, w[name].organization_key.encryption.key_id]
    w.append(revoke_key_entry(w.state, ids, None, governance_key=w[name].governance_key, now=w.now))


def test_key_that_was_revoked_since_proves_only_what_has_a_receipt_from_before():
    s = told(world(("Alpha", "Beta", "Gamma")))
    revoked(s.world, "Alpha")
    proof = verify_proof(s.proof(), expected=None)
    assert all(each.task.revoked_at == s.world.state.position.sequence for each in proof.tasks)
    s.receipt(3, "Alpha", **LOST)
    assert refused(s.proof()) == f"receipt of Alpha for run {s.run_id(3, 'Alpha')}: revoked"


def test_member_that_was_voted_out_since_and_its_nodes_prove_what_they_signed_before():
    s = told(world(("Alpha", "Beta", "Gamma", "Delta")))
    w = s.world
    beta = w["Beta"].address
    asked_for = w.append(request_removal_entry(w.state, beta, governance_key=w["Alpha"].governance_key, now=w.now))
    for voter in ("Alpha", "Gamma"):
        vote = vote_removal_entry(
            w.state,
            digest(asked_for.body),
            Decision.DECISION_APPROVE,
            governance_key=w[voter].governance_key,
            now=w.now,
        )
        w.append(vote)
    assert beta not in w.state.members
    proof = verify_proof(s.proof(), expected=None)
    then = {each.membership.name: each.membership for each in proof.ledger.members_at(proof.tasks[0].made_at.sequence)}
    assert then["Beta"].removed
    assert proof.tasks[0].runs[0].proven
    s.receipt(3, "Alpha", **LOST)  # Beta's node signed a subtask above it, and may be anybody's now.
    assert refused(s.proof()) == f"receipt of Alpha for run {s.run_id(3, 'Alpha')}: revoked"


def test_node_that_was_revoked_since_proves_what_it_signed_before():
    s = told(world(("Alpha", "Beta", "Gamma")))
    own, [node_key] = s.world["Gamma"], s.world["Gamma"].nodes.values()
    s.world.append(
        node_revoke_entry(s.world.state, node_key.fingerprint, governance_key=own.governance_key, now=s.world.now)
    )
    proof = verify_proof(s.proof(), expected=None)
    assert [run.proven for run in proof.tasks[0].runs] == [True, True]
    s.tasks[0].receipts.pop()
    s.receipt(1, "Gamma", **REFUSED)
    assert refused(s.proof()) == f"receipt of Gamma for run {s.run_id(1, 'Gamma')}: node"


# ---- what is left out ----------------------------------------------------------------------------------------------


def test_ledger_without_the_entry_that_a_task_was_made_on(message):
    cut = Proof.FromString(serialize(message))
    del cut.entries[-1]
    assert re.fullmatch(r"task [0-9a-f-]{36}: spec", refused(file_of(cut)))


def test_ledger_without_the_entry_that_a_receipt_was_signed_on():
    s = asked()
    s.world.join(organization("Delta"))
    s.receipt(1, "Beta")
    s.world.entries.pop()
    assert refused(s.proof()) == f"receipt of Beta for run {s.run_id(1, 'Beta')}: ledger position"


def test_run_whose_receipt_is_left_out_is_not_proven(message):
    cut = Proof.FromString(serialize(message))
    del cut.tasks[1].receipts[0]
    proof = verify_proof(file_of(cut), expected=None)
    assert [run.run_id for _, run in proof.unproven] == [
        proof.tasks[1].runs[0].run_id,
        proof.tasks[2].runs[0].run_id,
    ]


def test_task_in_the_middle_is_left_out(message):
    cut = Proof.FromString(serialize(message))
    del cut.tasks[1]
    assert refused(file_of(cut)).endswith(": order")


def test_nothing_is_left():
    assert refused(b"") == "structure at byte 0"
    assert refused(MAGIC) == f"structure at byte {len(MAGIC)}"


@pytest.mark.parametrize("part", ["entries", "tasks"])
def test_proof_without(message, part):
    cut = Proof.FromString(serialize(message))
    cut.ClearField(part)
    assert refused(file_of(cut)).startswith("structure at byte")


def test_an_attempt_that_a_server_gave_to_two_nodes_is_shown_with_both():
    """Each has executed it, as each believes once: both receipts are genuine, and stand side by side for both readers."""
    story = told()
    other = story.world.add_node("Beta", "beta-2")
    receipt = Receipt.FromString(story.tasks[0].receipts[1].body)
    receipt.node_id = other.fingerprint
    receipt.ledger_position.CopyFrom(story.world.state.position.message())
    story.tasks[0].receipts.append(sign_receipt(receipt, other))
    data = story.proof()
    run = verify_proof(data, expected=None).tasks[0].runs[0]
    assert run.shared_attempts == (2,)
    assert sorted(each.node_id for each in run.receipts if each.attempt == 2) == [
        each.node_id for each in run.receipts[1:]
    ]
    assert second_reader_proof.judge(data, None)[0] == "accepted"
    assert not any(each.shared_attempts for each in verify_proof(told().proof(), expected=None).tasks[0].runs)

    turned = Proof.FromString(data[len(MAGIC) :])
    turned.tasks[0].receipts.insert(1, turned.tasks[0].receipts.pop(2))
    assert refused(file_of(turned)).endswith(": order")
    assert second_reader_proof.judge(file_of(turned), None)[0] == "refused"


# ---- making one ----------------------------------------------------------------------------------------------------


def test_same_content_gives_the_same_file_in_whatever_order_it_is_given(story, data):
    shuffled = [
        ProvenTask(chain=each.chain, receipts=reversed(each.receipts), approvals=each.approvals)
        for each in reversed(story.tasks)
    ]
    assert make_proof(story.world.entries, shuffled) == data


def test_nothing_is_made_without_a_ledger_or_of_what_is_no_task(story):
    with pytest.raises(Malformed):
        make_proof([], story.tasks)
    with pytest.raises(Malformed):
        make_proof(story.world.entries, [ProvenTask()])
    with pytest.raises(Malformed):
        make_proof(story.world.entries, [ProvenTask(chain=TaskChain(specs=[Signed(body=b"x")]))])
