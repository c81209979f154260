"""Receipts: what a node signs about a run that has ended with it. With one, a result is proven; without, the server says so."""

from folkmoot.trust.encoding import DIGEST_BYTES, parse, serialize
from folkmoot.trust.errors import Malformed, TaskNotProven
from folkmoot.trust.keys import SigningKey
from folkmoot.trust.rules import ReceiptRule, RuleBroken, require, under
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.state import State
from folkmoot.trust.task import VerifiedTask
from folkmoot.trust.times import nanoseconds
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import ExitClass, Isolation, Receipt, RunState

_WITH_PAYLOAD = (RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CRASHED)
_WITHOUT_PAYLOAD = (RunState.RUN_STATE_REFUSED, RunState.RUN_STATE_CANCELLED, RunState.RUN_STATE_EXPIRED)


def sign_receipt(receipt: Receipt, node_key: SigningKey) -> Signed:
    """Sign a receipt; raise Malformed when it contradicts itself."""
    body = serialize(receipt)
    try:
        _check_outcome(_read(body))
        require(receipt.node_id == node_key.fingerprint, ReceiptRule.NODE)
    except RuleBroken as broken:
        raise Malformed(f"The receipt breaks a rule: {broken}", metadata=broken.metadata) from broken
    return sign(SignedKind.SIGNED_KIND_RECEIPT, body, key=node_key, genesis=receipt.genesis)


def verify_receipt(signed: Signed, *, task: VerifiedTask, run_id: str, state: State) -> Receipt:
    """Return a node's receipt for a run of a task, proven.

    The node is judged by the ledger as it knew it: one that is gone since has said what it said. Raises TaskNotProven
    (metadata: rule), and NodeNotApproved when the ledger did not admit the node. A node may have known more of the ledger
    than this replica: `state.check_position` tells, and whoever can refreshes the replica then.
    """
    try:
        receipt = _read(signed.body)
        _check_run(receipt, task, run_id)
        require(task.revoked_at is None or receipt.ledger_position.sequence < task.revoked_at, ReceiptRule.REVOKED)
        _check_node(signed, receipt, state)
        _check_outcome(receipt)
        _check_against_task(receipt, task)
    except RuleBroken as broken:
        raise TaskNotProven(f"The receipt breaks a rule: {broken}", metadata=broken.metadata) from broken
    return receipt


def verify_refusal(signed: Signed, *, run_id: str, organization_id: str, state: State) -> Receipt:
    """Return an organization's receipt that what its node was handed for a run is not what somebody signed, proven.

    Such a receipt (REFUSED, TASK_NOT_PROVEN) names the task as it came, altered on its way; so it is bound to the run alone.
    Raises TaskNotProven (metadata: rule) for every other receipt, and otherwise as `verify_receipt` does.
    """
    try:
        receipt = _read(signed.body)
        named = (receipt.genesis, receipt.run_id, receipt.organization_id, receipt.outcome, receipt.reason)
        refused, not_proven = RunState.RUN_STATE_REFUSED, ErrorReason.ERROR_REASON_TASK_NOT_PROVEN
        require(named == (state.genesis, run_id, organization_id, refused, not_proven), ReceiptRule.RUN)
        _check_node(signed, receipt, state)
        _check_outcome(receipt)
    except RuleBroken as broken:
        raise TaskNotProven(f"The receipt breaks a rule: {broken}", metadata=broken.metadata) from broken
    return receipt


def _check_node(signed: Signed, receipt: Receipt, state: State) -> None:
    """Check that a node of the organization that the receipt names has signed it, on this ledger."""
    position = receipt.ledger_position
    require(state.hash_at(position.sequence) in (None, position.hash), ReceiptRule.LEDGER_POSITION)
    node = state.node_at(receipt.node_id, position.sequence)
    require(node.organization_id == receipt.organization_id, ReceiptRule.NODE)
    with under(ReceiptRule.SIGNATURE):
        kind = SignedKind.SIGNED_KIND_RECEIPT
        verify(signed, kind=kind, public_key=node.public_key, genesis=state.genesis)


def _read(body: bytes) -> Receipt:
    with under(ReceiptRule.FORM):
        receipt = parse(Receipt, body)
    known = receipt.exit_class in ExitClass.values() and receipt.isolation in Isolation.values()
    require(known, ReceiptRule.FORM)
    return receipt


def _check_run(receipt: Receipt, task: VerifiedTask, run_id: str) -> None:
    spec = task.spec
    named = (receipt.genesis, receipt.task_id, receipt.task_digest, receipt.run_id, receipt.organization_id)
    expected = (spec.genesis, spec.task_id, task.digest, run_id, task.receiver(run_id).organization_id)
    require(named == expected, ReceiptRule.RUN)
    require(1 <= receipt.attempt <= spec.max_attempts, ReceiptRule.RUN)


def _check_outcome(receipt: Receipt) -> None:
    """Check that a receipt does not contradict itself."""
    require(receipt.outcome in _WITH_PAYLOAD + _WITHOUT_PAYLOAD, ReceiptRule.OUTCOME)
    digests = (receipt.result_digest, receipt.input_digest, receipt.policy_digest)
    require(all(len(each) in (0, DIGEST_BYTES) for each in digests), ReceiptRule.OUTCOME)
    require(len(receipt.ledger_position.hash) == DIGEST_BYTES, ReceiptRule.LEDGER_POSITION)
    match receipt.outcome:
        case RunState.RUN_STATE_COMPLETED:
            right = bool(receipt.result_digest) and not receipt.reason and not receipt.exit_class
        case RunState.RUN_STATE_CRASHED:
            right = receipt.exit_class != ExitClass.EXIT_CLASS_UNSPECIFIED
        case RunState.RUN_STATE_FAILED:
            right = True
        case RunState.RUN_STATE_REFUSED:
            right = bool(receipt.reason) and not receipt.result_digest
        case _:
            right = not receipt.result_digest
    require(right, ReceiptRule.OUTCOME)
    require(bool(receipt.result_digest) == bool(receipt.result_receivers), ReceiptRule.RESULT_RECEIVERS)
    if receipt.HasField("dataframe"):
        require(receipt.outcome == RunState.RUN_STATE_COMPLETED, ReceiptRule.DATAFRAME)
    with under(ReceiptRule.TIMES):
        nanoseconds(receipt.ended_at)
        if receipt.HasField("started_at"):
            nanoseconds(receipt.started_at)


def _check_against_task(receipt: Receipt, task: VerifiedTask) -> None:
    """Check that input, image and receivers are those of the task, and that who executed it knew the ledger as its creator did."""
    if receipt.outcome in _WITH_PAYLOAD:
        known = task.spec.ledger_position.sequence
        require(receipt.ledger_position.sequence >= known, ReceiptRule.LEDGER_POSITION)
    expected = task.input(receipt.organization_id).envelope_digest
    unopened = receipt.outcome in _WITHOUT_PAYLOAD and not receipt.input_digest
    require(unopened or receipt.input_digest == expected, ReceiptRule.INPUT)
    if receipt.outcome == RunState.RUN_STATE_COMPLETED and task.spec.image.HasField("local"):
        require(receipt.image_id == task.spec.image.local.id, ReceiptRule.IMAGE)
    if receipt.HasField("dataframe"):
        named = bool(receipt.dataframe.name) and receipt.dataframe.name == task.spec.session.leaves
        require(named, ReceiptRule.DATAFRAME)
    if receipt.result_digest:
        sealed_to = sorted(receipt.result_receivers)
        require(sealed_to == sorted(task.spec.result_receivers), ReceiptRule.RESULT_RECEIVERS)
