"""Approvals: what a person at a data station decided about a run, signed by the station's node.

A node asks nobody but the people at its own station; what they say is bound to one attempt of one run of one task, and to what is decided.
It proves who let a run start, or its result leave, to those who can read the run. The person is named by an opaque reference.
"""

from datetime import datetime

from folkmoot.trust.encoding import FORMAT_VERSION, fingerprint, parse, serialize, timestamp
from folkmoot.trust.errors import Malformed, NodeNotApproved, TaskNotProven
from folkmoot.trust.keys import SigningKey
from folkmoot.trust.membership import Node
from folkmoot.trust.rules import LONGEST_REFERENCE_BYTES, ApprovalRule, RuleBroken, require, under
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.state import State
from folkmoot.trust.task import VerifiedTask
from folkmoot.trust.times import nanoseconds
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject

_SUBJECTS = (ApprovalSubject.APPROVAL_SUBJECT_RUN, ApprovalSubject.APPROVAL_SUBJECT_RELEASE)
_DECISIONS = (Decision.DECISION_APPROVE, Decision.DECISION_DECLINE)


def make_approval(
    *,
    genesis: bytes,
    task_digest: bytes,
    run_id: str,
    attempt: int,
    subject: ApprovalSubject.ValueType,
    decision: Decision.ValueType,
    approved_by: str,
    now: datetime,
    node_key: SigningKey,
) -> Signed:
    """Sign a person's decision with the node's key; raise Malformed when it breaks a rule by itself."""
    approval = Approval(
        version=FORMAT_VERSION,
        genesis=genesis,
        task_digest=task_digest,
        run_id=run_id,
        attempt=attempt,
        subject=subject,
        decision=decision,
        approved_by=approved_by,
        time=timestamp(now),
    )
    body = serialize(approval)
    try:
        _read(body)
    except RuleBroken as broken:
        raise Malformed(f"The approval breaks a rule: {broken}", metadata=broken.metadata) from broken
    return sign(SignedKind.SIGNED_KIND_APPROVAL, body, key=node_key, genesis=genesis)


def verify_approval(signed: Signed, *, task: VerifiedTask, run_id: str, state: State) -> Approval:
    """Return what a person at a station decided about a run of a task, proven.

    The node is judged by the ledger as it was between the task and now: one that is gone since has said what it said. Raises
    TaskNotProven (metadata: rule), and NodeNotApproved when the ledger did not admit the node then.
    """
    try:
        approval = _read(signed.body)
        named = (approval.genesis, approval.task_digest, approval.run_id)
        require(named == (state.genesis, task.digest, run_id), ApprovalRule.RUN)
        require(1 <= approval.attempt <= task.spec.max_attempts, ApprovalRule.RUN)
        node = _node(signed, task, state)
        require(node.organization_id == task.receiver(run_id).organization_id, ApprovalRule.NODE)
        with under(ApprovalRule.SIGNATURE):
            verify(signed, kind=SignedKind.SIGNED_KIND_APPROVAL, public_key=node.public_key, genesis=state.genesis)
    except RuleBroken as broken:
        raise TaskNotProven(f"The approval breaks a rule: {broken}", metadata=broken.metadata) from broken
    return approval


def _node(signed: Signed, task: VerifiedTask, state: State) -> Node:
    """The node whose key signed; raise NodeNotApproved unless it was admitted at some entry from the task's on."""
    node_id = fingerprint(signed.key_id)
    node = state.nodes.get(node_id) or state.former_nodes.get(node_id)
    if node is None or (node.until and node.until.sequence <= task.spec.ledger_position.sequence):
        raise NodeNotApproved(
            f"The ledger of {state.name} did not admit the node {node_id} when the task was there",
            metadata={"node_id": node_id},
        )
    return node


def _read(body: bytes) -> Approval:
    """Return what an approval says, if it does not contradict itself."""
    with under(ApprovalRule.FORM):
        approval = parse(Approval, body)
        nanoseconds(approval.time)
    require(bool(approval.run_id), ApprovalRule.FORM)
    require(approval.subject in _SUBJECTS and approval.decision in _DECISIONS, ApprovalRule.DECISION)
    require(1 <= len(approval.approved_by.encode()) <= LONGEST_REFERENCE_BYTES, ApprovalRule.PERSON)
    return approval
