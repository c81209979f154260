"""Proof files: what they prove without a server, and that whatever was altered is named."""

import random
import re
import tracemalloc
from typing import Any

import pytest

from folkmoot.trust import (
    KeyEnding,
    Malformed,
    OrganizationKey,
    ProofInvalid,
    Reference,
    SigningKey,
    VerifiedProof,
    WrongCollaboration,
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
    verify_proof,
    vote_removal_entry,
)
from folkmoot.trust.proof_format import MAGIC, MAX_PARTS, MAX_PROOF_BYTES
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.proof_pb2 import Proof, ProvenTask
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Approval, Receipt, TaskChain, TaskSpec
from tests.builders import SECOND, World, organization, world
from tests.proofs import CAME_ALTERED, LOST, REFUSED, Story, asked, told

NAMED = re.compile(
    r"structure at byte \d+|collaboration"
    r"|ledger entry \d+: [a-z ]+"
    r"|task [0-9a-f-]+: (spec|spec of the task \d above it|order|receipt \d+|approval 1)(: form)?"
    r"|receipt of [A-Z][a-z]+ for run [0-9a-f-]{36}: [a-z ]+"
)
"""What a part may be called."""


@pytest.fixture(scope="module")
def story():
    return told()


@pytest.fixture(scope="module")
def data(story):
    return story.proof()


@pytest.fixture(scope="module")
def message(data):
    return Proof.FromString(data[len(MAGIC) :])


def file_of(message: Proof) -> bytes:
    return MAGIC + serialize(message)


def refused(data: bytes) -> str:
    """Return the part that is named; fail if the proof is accepted or the part has no name."""
    with pytest.raises(ProofInvalid) as caught:
        verify_proof(data, expected=None)
    part = caught.value.metadata["part"]
    assert NAMED.fullmatch(part), part
    assert part in caught.value.message
    return part


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


# ---- what is altered -----------------------------------------------------------------------------------------------


def small() -> Story:
    """A proof with parts of all kinds, and as short as one can be, so that each of its bytes can be tried."""
    story = Story(world(("Alpha",)), [])
    story.add(spec=story.world.task("Alpha", ("Alpha",)))
    story.receipt(1, "Alpha")
    return story


def test_every_altered_byte_is_named():
    data = small().proof()
    for at in range(len(data)):
        refused(data[:at] + bytes((data[at] ^ 0x01,)) + data[at + 1 :])


def test_bytes_altered_in_any_way_are_named(data):
    draw = random.Random(1)
    for _ in range(600):
        at = draw.randrange(len(data))
        refused(data[:at] + bytes((data[at] ^ draw.randrange(1, 256),)) + data[at + 1 :])


def test_cut_file_is_named(story, data):
    fewer = [make_proof(story.world.entries, story.tasks[:count]) for count in (1, 2)]
    for length in range(0, len(data), 3):
        refused(data[:length])
    for part in fewer:  # What ends between two tasks is a proof of its own, without those below.
        assert data.startswith(part)
        refused(part[:-1])
        refused(data[: len(part) + 1])
        assert verify_proof(part, expected=None)


@pytest.mark.parametrize("more", [b"\0", b"\x1a\0", b"\x22\0", b"\x22\x02\x0a\0", b"\xff" * 20, MAGIC])
def test_extended_file_is_named(data, more):
    refused(data + more)


def parts_of(message: Proof) -> dict[str, Any]:
    return {
        "entries": message.entries,
        "tasks": message.tasks,
        "specs": message.tasks[2].chain.specs,
        "receipts": message.tasks[0].receipts,
    }


@pytest.mark.parametrize("part", ["entries", "tasks", "specs", "receipts"])
def test_reordered_parts_are_named(message, part):
    count = len(parts_of(message)[part])
    for first in range(count - 1):
        changed = Proof.FromString(serialize(message))
        parts = parts_of(changed)[part]
        order = list(range(count))
        order[first], order[first + 1] = order[first + 1], order[first]
        copies = [type(parts[each]).FromString(serialize(parts[each])) for each in order]
        del parts[:]
        parts.extend(copies)
        refused(file_of(changed))


@pytest.mark.parametrize("part", ["entries", "tasks", "specs", "receipts"])
def test_parts_that_are_there_twice_are_named(message, part):
    for index in range(len(parts_of(message)[part])):
        changed = Proof.FromString(serialize(message))
        parts = parts_of(changed)[part]
        copies = list(parts)
        copies.insert(index, copies[index])
        copies = [type(each).FromString(serialize(each)) for each in copies]
        del parts[:]
        parts.extend(copies)
        refused(file_of(changed))


def test_dropped_entries_are_named(message):
    for index in range(len(message.entries)):
        changed = Proof.FromString(serialize(message))
        del changed.entries[index]
        assert refused(file_of(changed))


def test_receipt_of_one_run_in_place_of_anothers(message):
    changed = Proof.FromString(serialize(message))
    changed.tasks[2].receipts.append(changed.tasks[1].receipts[0])
    assert refused(file_of(changed)).endswith("receipt 1")


def test_signature_of_an_entry_is_named(message):
    changed = Proof.FromString(serialize(message))
    changed.entries[3].signature = bytes(64)
    assert refused(file_of(changed)) == "ledger entry 3: signature"


def test_spec_above_is_named(message):
    changed = Proof.FromString(serialize(message))
    spec = TaskSpec.FromString(changed.tasks[2].chain.specs[0].body)
    spec.purpose = "another one"
    changed.tasks[2].chain.specs[0].body = serialize(spec)
    assert refused(file_of(changed)).endswith(": spec of the task 2 above it")


def test_receipt_with_a_nicer_outcome_is_named(message):
    changed = Proof.FromString(serialize(message))
    receipt = Receipt.FromString(changed.tasks[1].receipts[0].body)
    receipt.bytes_out = 0
    changed.tasks[1].receipts[0].body = serialize(receipt)
    assert refused(file_of(changed)) == f"receipt of Gamma for run {receipt.run_id}: signature"


def test_collaboration_that_is_not_the_ledgers(message):
    changed = Proof.FromString(serialize(message))
    changed.collaboration = str(world(("Delta",)).state.reference)
    assert refused(file_of(changed)) == "collaboration"


def test_approvals_are_of_a_later_release(message):
    changed = Proof.FromString(serialize(message))
    changed.tasks[0].approvals.append(Signed(body=serialize(Approval(version=1))))
    assert refused(file_of(changed)).endswith(": approval 1")


def test_whole_proof_of_another_collaboration(data):
    other = world(("Delta",)).state.reference
    with pytest.raises(WrongCollaboration, match="not about"):
        verify_proof(data, expected=other)
    of_its_own = verify_proof(data, expected=None).reference
    with pytest.raises(WrongCollaboration):
        verify_proof(data, expected=Reference("kidney", of_its_own.genesis))


# ---- what is meant to tire the reader ------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(result) + bytes((value,))


def field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + varint(len(content)) + content


HEAD = MAGIC + b"\x08\x01" + field(2, b"lung@x")
NESTED = b"\x0b" * 100_000


@pytest.mark.parametrize(
    "body",
    {
        "length of a terabyte": b"\x1a" + varint(10**12),
        "endless length": b"\x1a" + b"\x80" * 100,
        "length longer than it must be": b"\x1a\x81\x80\x00" + b"x",
        "entry beyond anything signed": field(3, bytes(2 * 1024 * 1024)) + field(4, b""),
        "deep groups": NESTED,
        "deep groups in an entry": field(3, field(2, NESTED) + NESTED) + field(4, field(1, field(1, b""))),
        "deep groups in a spec": field(3, b"\x08\x03") + field(4, field(1, field(1, field(2, NESTED)))),
        "no text": b"",
    }.items(),
    ids=lambda each: each[0],
)
def test_hostile_structure_ends_at_once_in_little_memory(body):
    data = HEAD + body[1]
    tracemalloc.start()
    try:
        refused(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024 * 1024


LIMITED = {
    "entries": b"\x1a\0" * (MAX_PARTS + 1),
    "tasks": b"\x1a\0" + b"\x22\0" * (MAX_PARTS + 1),
    "bytes of an entry": field(3, bytes(2 * 1024 * 1024)) + field(4, field(1, field(1, b""))),
}


@pytest.mark.parametrize("body", LIMITED.values(), ids=list(LIMITED))
def test_limits_are_what_ends_it(body):
    with pytest.raises(ProofInvalid, match=r"at most|nothing signed has more"):
        verify_proof(HEAD + body, expected=None)


def test_receipts_without_end_are_refused_before_any_is_read(message):
    cut = Proof.FromString(serialize(message))
    del cut.tasks[:]
    chain = serialize(message.tasks[0].chain)
    data = file_of(cut) + field(4, field(1, chain) + b"\x12\0" * (MAX_PARTS + 1))
    with pytest.raises(ProofInvalid, match="at most"):
        verify_proof(data, expected=None)


@pytest.mark.parametrize("first", [3, 4])
def test_parts_come_in_the_order_of_their_numbers(message, first):
    parts = {2: field(2, message.collaboration.encode())}
    parts[3] = b"".join(field(3, serialize(each)) for each in message.entries)
    parts[4] = b"".join(field(4, serialize(each)) for each in message.tasks)
    assert MAGIC + b"\x08\x01" + b"".join(parts.values()) == file_of(message)
    others = [number for number in parts if number != first]
    order = [first, *others]
    assert refused(MAGIC + b"\x08\x01" + b"".join(parts[number] for number in order)).startswith("structure")


def test_more_parts_than_one_file_may_have(data, monkeypatch):
    monkeypatch.setattr("folkmoot.trust.proof.MAX_PARTS", 10)
    assert refused(data).startswith("structure at byte")


def test_file_that_is_too_large():
    assert refused(MAGIC + bytes(MAX_PROOF_BYTES)) == f"structure at byte {MAX_PROOF_BYTES}"


def test_verification_keeps_only_one_entry_at_a_time():
    w = world(("Alpha", "Beta"))
    for number in range(300):
        w.add_node("Alpha", f"node {number}")
    story = Story(w, [])
    story.add(spec=w.task("Alpha"))
    data = story.proof()
    tracemalloc.start()
    try:
        proof = verify_proof(data, expected=None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(proof, VerifiedProof)
    assert len(proof.ledger.nodes) == 302
    assert peak < 4 * 1024 * 1024


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
