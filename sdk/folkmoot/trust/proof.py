"""Proofs: what happened in a collaboration, for people who trust no server, without one.

A proof file has the ledger from its first entry on, a task with those below it, and what nodes signed about their runs.
`verify_proof` replays the ledger, verifies each spec with its chain and each receipt, and says who belonged to the
collaboration, what they were asked, and what came of it. Whatever byte was altered, the error names the part
(metadata: part), such as "ledger entry 3: signature", "receipt of Alpha for run R: result receivers", "structure at byte 17".

What is left out leaves a trace only where something else names it: a task or receipt made on an entry that is not there is
refused, a run without receipts is told as not proven, and the end of the ledger is told with its time.

A file has one form. Its first task is the one that it is about; those below it follow by their depth, then by id. A task's
receipts are in the order of its receivers, then by attempt, then by node: an attempt has one, unless a server gave it to several.
Its approvals follow in the same order, then by what was decided about.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from folkmoot.trust.approval import verify_approval
from folkmoot.trust.encoding import FORMAT_VERSION, Reference, digest, fingerprint, is_uuid, parse, serialize
from folkmoot.trust.errors import LedgerBehind, Malformed, TrustError, WrongCollaboration
from folkmoot.trust.proof_facts import ProvenLedger, RunProof, TaskProof, VerifiedProof
from folkmoot.trust.proof_format import (
    MAGIC,
    MAX_PARTS,
    MAX_PROOF_BYTES,
    ProofParts,
    Span,
    TaskParts,
    bad_structure,
    find_parts,
    find_task_parts,
    proof_invalid,
    read_message,
    read_signed,
)
from folkmoot.trust.proof_ledger import read_ledger
from folkmoot.trust.receipt import verify_receipt, verify_refusal
from folkmoot.trust.state import State
from folkmoot.trust.task import VerifiedTask, verify_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import CollaborationCreate, LedgerEntry
from folkmoot.v1.proof_pb2 import Proof, ProvenTask
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Approval, Receipt, RunState, TaskChain, TaskSpec

_CAME_ALTERED = RunState.RUN_STATE_REFUSED, ErrorReason.ERROR_REASON_TASK_NOT_PROVEN


def make_proof(entries: Sequence[Signed], tasks: Iterable[ProvenTask]) -> bytes:
    """Return the bytes of a proof file: a ledger, whole; the task that it is about and those below it, in any order.

    Nothing is verified here: `verify_proof` does. Raises Malformed for what can't be read, or is too much for one file.
    """
    if not entries:
        raise Malformed("A proof has a ledger.")
    founding = CollaborationCreate.FromString(parse(LedgerEntry, entries[0].body).data)
    reference = Reference(founding.name, digest(entries[0].body))
    ordered = sorted(map(_ordered, tasks), key=_place_of_message)
    proof = Proof(version=FORMAT_VERSION, collaboration=str(reference), entries=entries, tasks=ordered)
    data = MAGIC + serialize(proof)
    if len(data) > MAX_PROOF_BYTES:
        raise Malformed(f"A proof of {len(data):,} bytes is larger than a file may be ({MAX_PROOF_BYTES:,}).")
    return data


def verify_proof(data: bytes, *, expected: Reference | None) -> VerifiedProof:
    """Return what a proof file proves; `expected` is the collaboration that it must be of, None for whichever it is of.

    Raises ProofInvalid (metadata: part), and WrongCollaboration for a proof that is valid for another collaboration.
    """
    parts = find_parts(data)
    ledger = read_ledger(data, parts.entries)
    reference = ledger.state.reference
    if parts.collaboration != str(reference):
        raise proof_invalid("collaboration", f"the ledger is that of {reference}")
    proof = VerifiedProof(ledger, tuple(_verified_tasks(data, parts, ledger)))
    if expected not in (None, reference):
        raise WrongCollaboration(
            f"The proof is about {reference}, not about {expected}", metadata={"genesis": reference.genesis.hex()}
        )
    return proof


# ---- the one order -------------------------------------------------------------------------------------------------


def _place(chain: Sequence[TaskSpec]) -> tuple[int, str]:
    """Return what tasks are in the order of: their depth, and their id."""
    return len(chain), chain[-1].task_id


def _place_of_message(task: ProvenTask) -> tuple[int, str]:
    return _place([parse(TaskSpec, signed.body) for signed in task.chain.specs])


def _ordered(task: ProvenTask) -> ProvenTask:
    """Return a task whose receipts and approvals are in order."""
    if not task.chain.specs:
        raise Malformed("A task in a proof has a chain.")
    runs = [receiver.run_id for receiver in parse(TaskSpec, task.chain.specs[-1].body).receivers]

    def place(signed: Signed) -> tuple[int, int, str]:
        receipt = parse(Receipt, signed.body)
        run = runs.index(receipt.run_id) if receipt.run_id in runs else len(runs)
        return run, receipt.attempt, receipt.node_id

    def place_of_approval(signed: Signed) -> tuple[int, int, str, int]:
        approval = parse(Approval, signed.body)
        run = runs.index(approval.run_id) if approval.run_id in runs else len(runs)
        return run, approval.attempt, fingerprint(signed.key_id), approval.subject

    return ProvenTask(
        chain=task.chain,
        receipts=sorted(task.receipts, key=place),
        approvals=sorted(task.approvals, key=place_of_approval),
    )


# ---- tasks ---------------------------------------------------------------------------------------------------------


class _Unverified(NamedTuple):
    """A task as the file has it."""

    part: str
    """What errors call it."""
    chain: TaskChain
    spec: TaskSpec
    parts: TaskParts


def _read_task(data: bytes, span: Span, number: int) -> _Unverified:
    parts, part = find_task_parts(data, span), f"task {number}"
    *above, last = parts.specs
    own = read_signed(data, last, f"{part}: spec")
    spec = read_message(TaskSpec, own.body, f"{part}: spec")
    part = f"task {spec.task_id}" if is_uuid(spec.task_id) else part
    specs = [read_signed(data, each, f"{part}: {_spec_name(level, parts)}") for level, each in enumerate(above)]
    return _Unverified(part, TaskChain(specs=[*specs, own]), spec, parts)


def _spec_name(level: int, parts: TaskParts) -> str:
    above = len(parts.specs) - 1 - level
    return f"spec of the task {above} above it" if above else "spec"


def _verified_tasks(data: bytes, parts: ProofParts, ledger: ProvenLedger) -> Iterator[TaskProof]:
    """Yield the tasks, verified, each below one before it."""
    signed_things = len(parts.entries)
    last: VerifiedTask | None = None
    digests: set[bytes] = set()
    for number, span in enumerate(parts.tasks, 1):
        read = _read_task(data, span, number)
        signed_things += read.parts.count
        if signed_things > MAX_PARTS:
            raise bad_structure(span.begin, f"a proof has at most {MAX_PARTS:,} parts")
        task = _verified_task(read, ledger.state)
        if last and _place(last.chain) >= _place(task.chain):
            raise proof_invalid(f"{read.part}: order", "tasks come by their depth and their id, each once")
        if last and (len(task.chain) == 1 or task.chain_digests[-2] not in digests):
            raise proof_invalid(f"{read.part}: order", "the task above it is not in the proof")
        digests.add(task.digest)
        last = task
        made_at = ledger.place(task.spec.ledger_position.sequence)
        yield TaskProof(task, made_at, _verified_runs(data, read, task, ledger.state))


def _verified_task(read: _Unverified, state: State) -> VerifiedTask:
    try:
        return verify_task(read.chain, state, now=None)
    except TrustError as error:
        level = int(error.metadata.get("level", len(read.parts.specs) - 1))
        raise proof_invalid(f"{read.part}: {_spec_name(level, read.parts)}", error.message) from error


# ---- receipts and approvals ----------------------------------------------------------------------------------------


def _verified_runs(data: bytes, read: _Unverified, task: VerifiedTask, state: State) -> tuple[RunProof, ...]:
    """Return a task's runs with their receipts, which come in the order of its receivers, of attempts and of nodes."""
    runs = [receiver.run_id for receiver in task.spec.receivers]
    receipts: dict[str, list[Receipt]] = {run_id: [] for run_id in runs}
    last = (-1, 0, "")
    for number, span in enumerate(read.parts.receipts, 1):
        part = f"{read.part}: receipt {number}"
        signed = read_signed(data, span, part)
        claimed = read_message(Receipt, signed.body, part)
        if claimed.run_id not in receipts:
            raise proof_invalid(part, "the task has no such run")
        executor = task.receiver(claimed.run_id).organization_id
        part = f"receipt of {state.organization_name(executor)} for run {claimed.run_id}"
        try:
            receipt = proven_receipt(signed, task=task, state=state)
        except TrustError as error:
            raise proof_invalid(f"{part}: {_broken_rule(error)}", error.message) from error
        place = runs.index(receipt.run_id), receipt.attempt, receipt.node_id
        if place <= last:
            raise proof_invalid(f"{part}: order", "receipts come by receivers, attempts and nodes, each once")
        last = place
        receipts[receipt.run_id].append(receipt)
    approvals = _verified_approvals(data, read, task, state)
    return tuple(
        RunProof(each.run_id, each.organization_id, tuple(receipts[each.run_id]), tuple(approvals[each.run_id]))
        for each in task.spec.receivers
    )


def _verified_approvals(data: bytes, read: _Unverified, task: VerifiedTask, state: State) -> dict[str, list[Approval]]:
    """Return what people decided about a task's runs, by run; in the order of its receivers, of attempts, nodes and subjects."""
    runs = [receiver.run_id for receiver in task.spec.receivers]
    approvals: dict[str, list[Approval]] = {run_id: [] for run_id in runs}
    last = (-1, 0, "", 0)
    for number, span in enumerate(read.parts.approvals, 1):
        part = f"{read.part}: approval {number}"
        signed = read_signed(data, span, part)
        claimed = read_message(Approval, signed.body, part)
        if claimed.run_id not in approvals:
            raise proof_invalid(part, "the task has no such run")
        executor = state.organization_name(task.receiver(claimed.run_id).organization_id)
        part = f"approval of {executor} for run {claimed.run_id}"
        try:
            approval = verify_approval(signed, task=task, run_id=claimed.run_id, state=state)
        except TrustError as error:
            raise proof_invalid(f"{part}: {_broken_rule(error)}", error.message) from error
        place = runs.index(approval.run_id), approval.attempt, fingerprint(signed.key_id), approval.subject
        if place <= last:
            raise proof_invalid(
                f"{part}: order", "approvals come by receivers, attempts, nodes and subjects, each once"
            )
        last = place
        approvals[approval.run_id].append(approval)
    return approvals


def proven_receipt(signed: Signed, *, task: VerifiedTask, state: State) -> Receipt:
    """Return a receipt for a run of a task, if it is one that a proof with this ledger may have.

    One that says that the task came altered to its node is bound to the run alone. Raises TaskNotProven, NodeNotApproved,
    Malformed, and LedgerBehind for one that was signed on an entry that the ledger does not have.
    """
    claimed = parse(Receipt, signed.body)
    run_id, executor = claimed.run_id, task.receiver(claimed.run_id).organization_id
    if (claimed.outcome, claimed.reason) == _CAME_ALTERED:
        receipt = verify_refusal(signed, run_id=run_id, organization_id=executor, state=state)
    else:
        receipt = verify_receipt(signed, task=task, run_id=run_id, state=state)
    state.check_position(receipt.ledger_position.sequence, receipt.ledger_position.hash)
    return receipt


def _broken_rule(error: TrustError) -> str:
    """Return what of a receipt or approval is wrong, in words."""
    if isinstance(error, LedgerBehind):
        return "ledger position"
    return error.metadata.get("rule", "node").lower().replace("_", " ")
