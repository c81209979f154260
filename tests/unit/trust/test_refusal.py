"""Receipts of nodes that were handed something else than the task: proven for the run, and for nothing but that refusal."""

from typing import Any

import pytest

from folkmoot.trust import NodeNotApproved, SigningKey, TaskNotProven, sign_receipt, verify_refusal, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Receipt, RunState, TaskChain
from tests.builders import NOW, World, randomness, world

NOT_PROVEN: dict[str, Any] = {
    "outcome": RunState.RUN_STATE_REFUSED,
    "reason": ErrorReason.ERROR_REASON_TASK_NOT_PROVEN,
    "task_digest": b"a" * 32,
    "task_id": "",
    "result_digest": b"",
    "result_receivers": [],
    "input_digest": b"",
    "image_id": "",
}


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"))


def refusal(lung: World, **changes: Any) -> tuple[Receipt, Signed]:
    task = verify_task(TaskChain(specs=[lung.task("Alpha", ["Beta"])]), lung.state, now=NOW)
    receipt = lung.receipt(task, "Beta", **(NOT_PROVEN | changes))
    return receipt, sign_receipt(receipt, lung["Beta"].nodes["beta-1"])


def check(lung: World, receipt: Receipt, signed: Signed, **changes: str) -> Receipt:
    usual = {"run_id": receipt.run_id, "organization_id": lung["Beta"].address}
    return verify_refusal(signed, state=lung.state, **(usual | changes))


def test_a_refusal_of_an_altered_task_is_proven_although_it_names_another_digest(lung: World):
    receipt, signed = refusal(lung)
    assert check(lung, receipt, signed) == receipt


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED},
        {"outcome": RunState.RUN_STATE_CANCELLED, "reason": 0},
        {"genesis": b"g" * 32},
    ],
    ids=["another reason", "another outcome", "another collaboration"],
)
def test_no_other_receipt_passes_as_one(lung: World, changes: dict[str, Any]):
    receipt, signed = refusal(lung, **changes)
    with pytest.raises(TaskNotProven):
        check(lung, receipt, signed)


def test_it_counts_for_its_run_and_organization_only(lung: World):
    receipt, signed = refusal(lung)
    for other in ({"run_id": "another"}, {"organization_id": lung["Gamma"].address}):
        with pytest.raises(TaskNotProven):
            check(lung, receipt, signed, **other)


def test_only_a_node_of_the_organization_can_sign_it(lung: World):
    receipt, signed = refusal(lung)
    gamma = lung["Gamma"].nodes["gamma-1"]
    receipt.node_id = gamma.fingerprint
    with pytest.raises(TaskNotProven):
        check(lung, receipt, sign_receipt(receipt, gamma))
    stranger = SigningKey.generate(randomness("stranger"))
    receipt.node_id = stranger.fingerprint
    with pytest.raises(NodeNotApproved):
        check(lung, receipt, sign_receipt(receipt, stranger))
    signed.signature = bytes(64)
    with pytest.raises(TaskNotProven):
        check(lung, receipt, signed)
