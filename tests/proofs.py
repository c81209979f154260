"""Proofs for tests: a task three deep, with every way in which a run can end or be tried again.

story = told()                              # Alpha asks Beta and Gamma; Beta asks Gamma; Gamma asks Alpha
verify_proof(story.proof(), expected=story.world.state.reference)
"""

from dataclasses import dataclass
from typing import Any

from folkmoot.trust import VerifiedTask, digest, make_approval, make_proof, sign_receipt, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.proof_pb2 import ProvenTask
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject, ExitClass, Grant, RunState, TaskChain
from tests.builders import NOW, World, world

NOTHING: dict[str, Any] = {"result_digest": b"", "result_receivers": [], "bytes_out": 0}
LOST: dict[str, Any] = {
    **NOTHING,
    "outcome": RunState.RUN_STATE_CRASHED,
    "exit_class": ExitClass.EXIT_CLASS_LOST,
}
REFUSED: dict[str, Any] = {
    **NOTHING,
    "outcome": RunState.RUN_STATE_REFUSED,
    "reason": ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED,
    "rule": "images",
    "image_id": "",
    "input_digest": b"",
    "started_at": None,
}
CAME_ALTERED: dict[str, Any] = {
    **REFUSED,
    "reason": ErrorReason.ERROR_REASON_TASK_NOT_PROVEN,
    "rule": "",
    "task_digest": digest(b"what the node was handed instead"),
}


@dataclass
class Story:
    """A collaboration, and the tasks of one tree with what was signed about them."""

    world: World
    tasks: list[ProvenTask]

    def proof(self) -> bytes:
        return make_proof(self.world.entries, self.tasks)

    def chain(self, depth: int) -> list[Signed]:
        """The specs down to a depth, the root's being 1."""
        return list(self.tasks[depth - 1].chain.specs)

    def verified(self, depth: int) -> VerifiedTask:
        return verify_task(self.tasks[depth - 1].chain, self.world.state, now=None)

    def run_id(self, depth: int, executor: str) -> str:
        address = self.world[executor].address
        return next(one.run_id for one in self.verified(depth).spec.receivers if one.organization_id == address)

    def add(self, *above: Signed, spec: Signed) -> None:
        self.tasks.append(ProvenTask(chain=TaskChain(specs=[*above, spec])))

    def receipt(self, depth: int, executor: str, **changes: Any) -> Signed:
        """Have the executor's node sign a receipt for its run of the task at that depth, and take it into the proof."""
        node_key = next(iter(self.world[executor].nodes.values()))
        signed = sign_receipt(self.world.receipt(self.verified(depth), executor, **changes), node_key)
        self.tasks[depth - 1].receipts.append(signed)
        return signed

    def approval(self, depth: int, executor: str, **changes: Any) -> Signed:
        """Have a person at the executor's station decide about its run of the task at that depth, and take it into the proof."""
        task = self.verified(depth)
        wish: dict[str, Any] = {
            "genesis": self.world.genesis,
            "task_digest": task.digest,
            "run_id": self.run_id(depth, executor),
            "attempt": 1,
            "subject": ApprovalSubject.APPROVAL_SUBJECT_RUN,
            "decision": Decision.DECISION_APPROVE,
            "approved_by": "uid:1000",
            "now": NOW,
            "node_key": next(iter(self.world[executor].nodes.values())),
        }
        signed = make_approval(**(wish | changes))
        self.tasks[depth - 1].approvals.append(signed)
        return signed


def asked(w: World | None = None) -> Story:
    """Three tasks, one below the other; nothing has come of them yet."""
    w = w or world(("Alpha", "Beta", "Gamma"))
    story = Story(w, [])
    root = w.task(
        "Alpha",
        ("Beta", "Gamma"),
        name="survival",
        purpose="to learn",
        labels=["patients"],
        max_attempts=2,
        grant=Grant(subtask_depth=2, subtask_number=3),
    )
    story.add(spec=root)
    below = w.subtask(root, "Beta", ("Gamma",), labels=["patients"], grant=Grant(subtask_depth=1, subtask_number=1))
    story.add(root, spec=below)
    story.add(root, below, spec=w.subtask(below, "Gamma", ("Alpha",)))
    return story


def told(w: World | None = None) -> Story:
    """The same with receipts: a second attempt after a lost one, a refusal, a result; and one run without any."""
    story = asked(w)
    story.receipt(1, "Beta", **LOST)
    story.receipt(1, "Beta", attempt=2)
    story.receipt(1, "Gamma", **REFUSED)
    story.receipt(2, "Gamma")
    assert story.world.now == NOW
    return story
