"""Proof files that somebody altered, or made to tire their reader: whatever was done is named, soon and in little memory."""

import random
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from folkmoot.trust import (
    ProofInvalid,
    Reference,
    SigningKey,
    VerifiedProof,
    WrongCollaboration,
    make_proof,
    serialize,
    verify_proof,
)
from folkmoot.trust.proof_format import MAGIC, MAX_PARTS, MAX_PROOF_BYTES
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.proof_pb2 import Proof
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject, Receipt, TaskSpec
from tests.builders import world
from tests.proofs import Story, told
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


# ---- what is altered -----------------------------------------------------------------------------------------------


def small() -> Story:
    """A proof with parts of all kinds, and as short as one can be, so that each of its bytes can be tried."""
    story = Story(world(("Alpha",)), [])
    story.add(spec=story.world.task("Alpha", ("Alpha",)))
    story.receipt(1, "Alpha")
    story.approval(1, "Alpha")
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
        verify_proof(part, expected=None)


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


def decided() -> tuple[Story, Proof]:
    """Beta's people let a run start and its result leave; Gamma's declined the run of the subtask."""
    story = told()
    story.approval(1, "Beta")
    story.approval(1, "Beta", subject=ApprovalSubject.APPROVAL_SUBJECT_RELEASE)
    story.approval(2, "Gamma", decision=Decision.DECISION_DECLINE)
    return story, Proof.FromString(story.proof()[len(MAGIC) :])


def test_what_people_decided_is_told_and_the_second_reader_agrees():
    story, message = decided()
    proof = verify_proof(file_of(message), expected=None)
    beta, gamma = proof.tasks[0].runs[0], proof.tasks[1].runs[0]
    assert [each.subject for each in beta.approvals] == [1, 2]
    assert [each.decision for each in gamma.approvals] == [Decision.DECISION_DECLINE]
    assert not proof.tasks[0].runs[1].approvals
    verdict, _, told_too = second_reader_proof.judge(file_of(message), None)
    assert verdict == "accepted"
    run_id = story.run_id(1, "Beta")
    assert told_too["tasks"][0]["approvals"] == {run_id: [[1, 1, 1], [1, 2, 1]]}


ALTERED_APPROVALS: dict[str, tuple[Callable[[Story, Proof], None], str]] = {
    "an empty one": (
        lambda _, proof: proof.tasks[0].approvals.append(Signed(body=serialize(Approval(version=1)))),
        r"task .*: approval 3",
    ),
    "a receipt as one": (
        lambda _, proof: proof.tasks[0].approvals.append(proof.tasks[0].receipts[0]),
        r"task .*: approval 3: form",
    ),
    "twice the same": (
        lambda _, proof: proof.tasks[0].approvals.append(proof.tasks[0].approvals[1]),
        r"approval of Beta for run .*: order",
    ),
    "of another task": (
        lambda _, proof: proof.tasks[0].approvals.append(proof.tasks[1].approvals[0]),
        r"task .*: approval 3",
    ),
    "out of order": (lambda _, proof: proof.tasks[0].approvals.reverse(), r"approval of Beta for run .*: order"),
    "another person": (
        lambda _, proof: rewritten(proof.tasks[0].approvals[0], approved_by="uid:0"),
        r"approval of Beta for run .*: signature",
    ),
    "the other decision": (
        lambda _, proof: rewritten(proof.tasks[1].approvals[0], decision=Decision.DECISION_APPROVE),
        r"approval of Gamma for run .*: signature",
    ),
    "of another organization's node": (
        lambda story, proof: (
            proof.tasks[1]
            .approvals[0]
            .CopyFrom(story.approval(2, "Gamma", node_key=story.world["Beta"].nodes["beta-1"]))
        ),
        r"approval of Gamma for run .*: node",
    ),
    "of a node that nobody admitted": (
        lambda story, proof: (
            proof.tasks[1]
            .approvals[0]
            .CopyFrom(story.approval(2, "Gamma", node_key=SigningKey.generate(story.world.random)))
        ),
        r"approval of Gamma for run .*: node",
    ),
    "of an attempt that the task does not allow": (
        lambda story, proof: proof.tasks[1].approvals[0].CopyFrom(story.approval(2, "Gamma", attempt=9)),
        r"approval of Gamma for run .*: run",
    ),
}


@pytest.mark.parametrize("name", ALTERED_APPROVALS)
def test_a_claimed_approval_is_named_and_the_second_reader_refuses_it_too(name):
    story, message = decided()
    alter, part = ALTERED_APPROVALS[name]
    alter(story, message)
    assert re.fullmatch(part, refused(file_of(message)))
    assert second_reader_proof.judge(file_of(message), None)[0] == "refused"


def rewritten(signed: Signed, **changes: Any) -> None:
    approval = Approval.FromString(signed.body)
    for name, value in changes.items():
        setattr(approval, name, value)
    signed.body = serialize(approval)


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
