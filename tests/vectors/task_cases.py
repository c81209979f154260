"""Cases of task.json: tasks and receipts that everybody must take, refuse by a rule, or put off."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import SigningKey, VerifiedTask, fingerprint, serialize, sign, uuid7, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import LedgerPosition
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import (
    ExitClass,
    Grant,
    Image,
    LocalImage,
    ProcessImage,
    Receipt,
    RegistryImage,
    RunState,
    TaskChain,
    TaskInputRef,
)
from tests.builders import DAY, NOW, World
from tests.vectors.forge import UNKNOWN_FIELD, base, changed, overgrown, stamp
from tests.vectors.task_breaches import OTHER_IMAGE, RULES, SHA, root, sub

RECEIPT = SignedKind.SIGNED_KIND_RECEIPT


@dataclass(frozen=True)
class Case:
    """A task and what a reader of `base()`'s ledger must say to it."""

    name: str
    chain: list[Signed]
    verdict: str = "accepted"
    """Or "refused", "expired", "ahead"."""
    rule: str = ""
    now: datetime | None = NOW


@dataclass(frozen=True)
class ReceiptCase:
    """A receipt of Beta's for `receipts_task` and what a reader must say to it."""

    name: str
    receipt: Signed
    verdict: str = "accepted"
    """Or "refused", "node not approved"."""
    rule: str = ""
    chain: list[Signed] = field(default_factory=list)
    run_id: str = ""


# ---- tasks ----------------------------------------------------------------------------------------------------------


def good() -> Iterator[Case]:
    """Yield tasks that everybody takes."""
    w = base()
    above = root(w)
    below = sub(w, above, grant=Grant(subtask_depth=1, subtask_number=1), labels=["patients"])
    yield Case("a root task", [above])
    yield Case("a subtask", [above, below])
    yield Case("a subtask of a subtask", [above, below, sub(w, below, run_of="Gamma")])
    yield Case("read long after", [above], now=None)
    yield Case("a nanosecond before it expires", [root(w, expires_at=stamp(NOW, 1))])
    yield Case("five minutes ahead", [root(w, created_at=stamp(NOW, 300 * 10**9))])
    yield Case("7 days long", [root(w, expires_at=stamp(NOW + 7 * DAY))])
    yield Case("in an earlier job", [root(w, job_id=uuid7(NOW, w.random))])
    first = LedgerPosition(sequence=0, hash=w.genesis)
    yield Case("made when the ledger was young", [root(w, ledger_position=first)])
    two = [
        TaskInputRef(organization_ids=[w[name].address], envelope_digest=w.random(32), size_bytes=1)
        for name in ("Alpha", "Beta")
    ]
    yield Case("an input for each", [root(w, inputs=two)])
    port = RegistryImage(repository="localhost:5000/folkmoot/average", digest=SHA)
    for case, image in {
        "a registry image": Image(registry=port),
        "a module": Image(process=ProcessImage(module="examples.average", tree_hash=bytes(32))),
    }.items():
        yield Case(case, [root(w, image=image)])
    granting = root(w, grant=Grant(subtask_depth=1, subtask_number=1, images=[OTHER_IMAGE]))
    yield Case("a subtask with a granted image", [granting, sub(w, granting, image=OTHER_IMAGE)])
    renamed = Image(local=LocalImage(id=OTHER_IMAGE.local.id, name="renamed"))
    yield Case("a granted image under another name", [granting, sub(w, granting, image=renamed)])


def put_off() -> Iterator[Case]:
    """Yield tasks that are too late, or too early."""
    w = base()
    yield Case("at its expiry", [root(w, expires_at=stamp(NOW, 1))], "expired", now=NOW + DAY)
    above = root(w, expires_at=stamp(NOW + 2 * DAY))
    yield Case("subtask at its expiry", [above, sub(w, above)], "expired", now=NOW + DAY)
    ahead = LedgerPosition(sequence=w.state.position.sequence + 1, hash=bytes(32))
    yield Case("made on a newer ledger", [root(w, ledger_position=ahead)], "ahead")
    yield Case("subtask made on a newer ledger", [above, sub(w, above, ledger_position=ahead)], "ahead")
    last = LedgerPosition(sequence=(1 << 64) - 1, hash=w.state.position.hash)
    yield Case("made on the last entry of all, which is no negative number", [root(w, ledger_position=last)], "ahead")


def task_cases() -> Iterator[Case]:
    """Yield all cases of tasks."""
    yield from good()
    for rule, breaches in RULES.items():
        for case, chain in breaches(base()):
            yield Case(case, chain, "refused", rule)
    yield from put_off()


# ---- receipts -------------------------------------------------------------------------------------------------------


def receipts_task(w: World) -> tuple[list[Signed], VerifiedTask]:
    """Return the subtask whose receipts are told about; its run of Beta's counts."""
    above = root(w)
    chain = [above, sub(w, above, max_attempts=2)]
    return chain, verify_task(TaskChain(specs=chain), w.state, now=NOW)


def good_receipts() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield changes to a receipt that leave it right."""
    nothing: dict[str, Any] = {"result_digest": None, "result_receivers": []}
    yield "completed", {}
    yield "second attempt", {"attempt": 2}
    yield "of a node that knows more of the ledger", {"ledger_position": LedgerPosition(sequence=99, hash=bytes(32))}
    yield "failed, in its own words", {"outcome": RunState.RUN_STATE_FAILED}
    crashed = {"outcome": RunState.RUN_STATE_CRASHED, "exit_class": ExitClass.EXIT_CLASS_OUT_OF_MEMORY}
    yield "crashed without a word", crashed | nothing
    reason = ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED
    refused = {"outcome": RunState.RUN_STATE_REFUSED, "reason": reason, "rule": "images", "started_at": None}
    yield "refused before it was opened", refused | nothing | {"input_digest": None, "image_id": None}
    yield "cancelled", {"outcome": RunState.RUN_STATE_CANCELLED} | nothing
    yield "expired at the node", {"outcome": RunState.RUN_STATE_EXPIRED} | nothing


def bad_receipts(w: World, task: VerifiedTask) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield rule, case and changes that break it."""
    nothing: dict[str, Any] = {"result_digest": None, "result_receivers": []}
    run_id = next(each.run_id for each in task.spec.receivers if each.organization_id == w["Gamma"].address)
    yield "FORM", "exit class of a later release", {"outcome": RunState.RUN_STATE_FAILED, "exit_class": 99}
    yield "FORM", "isolation of a later release", {"isolation": 99}
    yield "FORM", "format 2", {"version": 2}
    yield "RUN", "of another task", {"task_id": task.root.task_id}
    yield "RUN", "of another digest", {"task_digest": task.chain_digests[0]}
    yield "RUN", "of another run", {"run_id": run_id}
    yield "RUN", "of another collaboration", {"genesis": bytes(32)}
    yield "RUN", "of another organization", {"organization_id": w["Gamma"].address}
    yield "RUN", "attempt 0", {"attempt": None}
    yield "RUN", "an attempt too many", {"attempt": 3}
    yield "NODE", "of another organization's node", {"node_id": w["Gamma"].nodes["gamma-1"].fingerprint}
    yield "OUTCOME", "still running", {"outcome": RunState.RUN_STATE_RUNNING} | nothing
    yield "OUTCOME", "an outcome of a later release", {"outcome": 99} | nothing
    yield "OUTCOME", "completed without result", nothing
    yield "OUTCOME", "completed, and yet a reason", {"reason": ErrorReason.ERROR_REASON_CANCELLED}
    yield "OUTCOME", "completed, and yet crashed", {"exit_class": ExitClass.EXIT_CLASS_ERROR}
    yield "OUTCOME", "crashed nobody knows how", {"outcome": RunState.RUN_STATE_CRASHED}
    yield "OUTCOME", "refused without reason", {"outcome": RunState.RUN_STATE_REFUSED} | nothing
    refused = {"outcome": RunState.RUN_STATE_REFUSED, "reason": ErrorReason.ERROR_REASON_TASK_NOT_PROVEN}
    yield "OUTCOME", "refused, and yet a result", refused
    yield "OUTCOME", "cancelled, and yet a result", {"outcome": RunState.RUN_STATE_CANCELLED}
    yield "OUTCOME", "a short result digest", {"result_digest": bytes(31)}
    yield "OUTCOME", "a short policy digest", {"policy_digest": bytes(31)}
    yield "INPUT", "another input", {"input_digest": bytes(32)}
    yield "INPUT", "completed without input", {"input_digest": None}
    yield "IMAGE", "another image", {"image_id": SHA}
    yield "RESULT_RECEIVERS", "sealed to one more", {"result_receivers": [w["Beta"].address, w["Gamma"].address]}
    yield "RESULT_RECEIVERS", "sealed to another", {"result_receivers": [w["Gamma"].address]}
    yield "RESULT_RECEIVERS", "sealed to nobody", {"result_receivers": []}
    sealed_nothing = {"outcome": RunState.RUN_STATE_CANCELLED, "result_digest": None}
    yield "RESULT_RECEIVERS", "nothing sealed to somebody", sealed_nothing
    yield "TIMES", "without end", {"ended_at": None}
    yield "TIMES", "a beginning that is no time", {"started_at": Timestamp(nanos=-1)}
    yield "LEDGER_POSITION", "another ledger", {"ledger_position": LedgerPosition(sequence=1, hash=bytes(32))}
    yield "LEDGER_POSITION", "no ledger", {"ledger_position": None}
    yield "LEDGER_POSITION", "half a hash", {"ledger_position": LedgerPosition(sequence=99, hash=bytes(16))}


def receipt_cases() -> Iterator[ReceiptCase]:
    """Yield all cases of receipts."""
    w = base()
    chain, task = receipts_task(w)
    about: dict[str, Any] = {"chain": chain}
    about["run_id"] = next(each.run_id for each in task.spec.receivers if each.organization_id == w["Beta"].address)
    key = w["Beta"].nodes["beta-1"]

    def signed(changes: dict[str, Any], signer: SigningKey = key) -> Signed:
        receipt = changed(w.receipt(task, "Beta"), **{k: v for k, v in changes.items() if not isinstance(v, list)})
        if isinstance(receivers := changes.get("result_receivers"), list):
            receipt.ClearField("result_receivers")
            receipt.result_receivers.extend(receivers)
        return sign(RECEIPT, serialize(receipt), key=signer, genesis=w.genesis)

    for case, changes in good_receipts():
        yield ReceiptCase(case, signed(changes), **about)
    for rule, case, changes in bad_receipts(w, task):
        yield ReceiptCase(case, signed(changes), "refused", rule, **about)
    right = signed({})
    unknown = sign(RECEIPT, right.body + UNKNOWN_FIELD, key=key, genesis=w.genesis)
    altered = serialize(changed(Receipt.FromString(right.body), bytes_out=0))
    wide = overgrown(Receipt.FromString(right.body), "attempt")
    for rule, case, wrong in (
        ("FORM", "unknown field", unknown),
        ("FORM", "an attempt that is 1 only if cut off", sign(RECEIPT, wide, key=key, genesis=w.genesis)),
        (
            "SIGNATURE",
            "signed by the organization's task-signing key",
            signed({}, w["Beta"].organization_key.task_signing),
        ),
        ("SIGNATURE", "signed by another node", signed({}, w["Gamma"].nodes["gamma-1"])),
        ("SIGNATURE", "altered by the server", changed(right, body=altered)),
        ("SIGNATURE", "said to be another kind", changed(right, kind=SignedKind.SIGNED_KIND_HEAD)),
    ):
        yield ReceiptCase(case, wrong, "refused", rule, **about)
    yield ReceiptCase("of no node", signed({"node_id": fingerprint(bytes(32))}), "node not approved", **about)
