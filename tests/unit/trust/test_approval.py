"""Approvals: what a person decided at a station is bound to one run, one attempt, one subject, and the node that was there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    Malformed,
    NodeNotApproved,
    SigningKey,
    TaskNotProven,
    VerifiedTask,
    make_approval,
    node_revoke_entry,
    sign_receipt,
    verify_approval,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject, TaskChain
from tests.builders import NOW, World, world

LUNG = world(("Alpha", "Beta", "Gamma"))
SUBJECTS = st.sampled_from([ApprovalSubject.APPROVAL_SUBJECT_RUN, ApprovalSubject.APPROVAL_SUBJECT_RELEASE])
DECISIONS = st.sampled_from([Decision.DECISION_APPROVE, Decision.DECISION_DECLINE])
PEOPLE = st.text(min_size=1, max_size=32)


def a_task(lung: World, **changes: Any) -> VerifiedTask:
    return verify_task(TaskChain(specs=[lung.task("Alpha", ["Beta"], **changes)]), lung.state, now=NOW)


def approval(lung: World, task: VerifiedTask, **changes: Any) -> Signed:
    wish: dict[str, Any] = {
        "genesis": lung.genesis,
        "task_digest": task.digest,
        "run_id": task.spec.receivers[0].run_id,
        "attempt": 1,
        "subject": ApprovalSubject.APPROVAL_SUBJECT_RUN,
        "decision": Decision.DECISION_APPROVE,
        "approved_by": "uid:1000",
        "now": NOW,
        "node_key": lung["Beta"].nodes["beta-1"],
    }
    return make_approval(**(wish | changes))


def verified(lung: World, task: VerifiedTask, signed: Signed, **changes: Any) -> Approval:
    place: dict[str, Any] = {"task": task, "run_id": task.spec.receivers[0].run_id}
    return verify_approval(signed, state=lung.state, **(place | changes))


@given(subject=SUBJECTS, decision=DECISIONS, person=PEOPLE, attempt=st.integers(1, 3))
def test_what_was_decided_is_read(subject: int, decision: int, person: str, attempt: int):
    task = a_task(LUNG, max_attempts=3)
    read = verified(
        LUNG, task, approval(LUNG, task, subject=subject, decision=decision, approved_by=person, attempt=attempt)
    )
    assert (read.subject, read.decision, read.approved_by, read.attempt) == (subject, decision, person, attempt)


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_altered_bit_passes(at: int, bit: int):
    task = a_task(LUNG)
    signed = approval(LUNG, task)
    data = bytearray(signed.body)
    data[at % len(data)] ^= 1 << bit
    with pytest.raises((TaskNotProven, NodeNotApproved)):
        verified(
            LUNG, task, Signed(kind=signed.kind, body=bytes(data), key_id=signed.key_id, signature=signed.signature)
        )


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"genesis": b"g" * 32}, "RUN"),
        ({"task_digest": b"t" * 32}, "RUN"),
        ({"run_id": "01890000-0000-7000-8000-000000000000"}, "RUN"),
        ({"attempt": 2}, "RUN"),
        ({"attempt": 0}, "RUN"),
    ],
)
def test_an_approval_of_something_else_is_none(changes: dict[str, Any], rule: str):
    task = a_task(LUNG)
    with pytest.raises(TaskNotProven) as caught:
        verified(LUNG, task, approval(LUNG, task, **changes))
    assert caught.value.metadata["rule"] == rule


@pytest.mark.parametrize(
    "changes", [{"subject": 0}, {"subject": 3}, {"decision": 0}, {"approved_by": ""}, {"approved_by": "x" * 129}]
)
def test_what_decides_nothing_is_not_signed(changes: dict[str, Any]):
    with pytest.raises(Malformed):
        approval(LUNG, a_task(LUNG), **changes)


def test_only_a_node_of_the_runs_organization_says_so():
    task = a_task(LUNG)
    with pytest.raises(TaskNotProven) as caught:
        verified(LUNG, task, approval(LUNG, task, node_key=LUNG["Gamma"].nodes["gamma-1"]))
    assert caught.value.metadata["rule"] == "NODE"
    for key in (
        SigningKey.generate(LUNG.random),
        LUNG["Beta"].governance_key,
        LUNG["Beta"].organization_key.task_signing,
    ):
        with pytest.raises(NodeNotApproved):
            verified(LUNG, task, approval(LUNG, task, node_key=key))


def test_a_receipt_is_no_approval_and_an_approval_no_receipt():
    task = a_task(LUNG)
    run_id, node_key = task.spec.receivers[0].run_id, LUNG["Beta"].nodes["beta-1"]
    receipt = sign_receipt(LUNG.receipt(task, "Beta"), node_key)
    with pytest.raises(TaskNotProven):
        verified(LUNG, task, receipt)
    with pytest.raises(TaskNotProven):
        verify_receipt(approval(LUNG, task), task=task, run_id=run_id, state=LUNG.state)
    relabelled = approval(LUNG, task)
    relabelled.kind = SignedKind.SIGNED_KIND_RECEIPT
    with pytest.raises(TaskNotProven):
        verified(LUNG, task, relabelled)


def test_a_node_that_is_gone_has_said_what_it_said_and_says_nothing_about_later_tasks():
    lung = world(("Alpha", "Beta"))
    before, node = a_task(lung), lung["Beta"].nodes["beta-1"]
    decided = approval(lung, before)
    lung.append(
        node_revoke_entry(lung.state, node.fingerprint, governance_key=lung["Beta"].governance_key, now=lung.now)
    )
    assert verified(lung, before, decided).approved_by == "uid:1000"
    after = a_task(lung)
    with pytest.raises(NodeNotApproved):
        verified(lung, after, approval(lung, after, node_key=node))
