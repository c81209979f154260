"""Tasks, receipts and envelopes as clients and nodes really make them, for tests of what the server does with them."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from folkmoot.trust import SigningKey, digest, seal_bytes, serialize, sign_receipt, sign_subtask, sign_task, timestamp
from folkmoot.trust.task import verify_task
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Parent, RunState, TaskChain, TaskInputRef, TaskSpec
from folkmoot.v1.task_service_pb2 import CommitRunRequest, CreateTaskRequest
from tests.builders import World

INPUT = b"the question"
RESULT = b"the answer"


@dataclass(frozen=True)
class SealedTask:
    """A signed task and the envelope of its input."""

    world: World
    chain: TaskChain
    envelope: bytes

    @property
    def spec(self) -> TaskSpec:
        return TaskSpec.FromString(self.chain.specs[-1].body)

    @property
    def task_id(self) -> str:
        return self.spec.task_id

    @property
    def digest(self) -> bytes:
        return digest(self.chain.specs[-1].body)

    def run_id(self, organization: str) -> str:
        address = self.world[organization].address
        return next(each.run_id for each in self.spec.receivers if each.organization_id == address)

    def request(self, *, envelope: bool = True) -> CreateTaskRequest:
        return CreateTaskRequest(chain=self.chain, envelopes=[self.envelope] if envelope else [])

    # ---- what its runs give ----------------------------------------------------------------------------------------

    def seal(
        self,
        organization: str,
        kind: EnvelopeKind.ValueType = EnvelopeKind.ENVELOPE_KIND_RESULT,
        content: bytes = RESULT,
        *,
        sequence: int = 0,
        attempt: int = 1,
    ) -> tuple[bytes, bytes]:
        """Return an envelope from a run, and its digest."""
        context = EnvelopeContext(
            genesis=self.world.genesis,
            kind=kind,
            task_digest=self.digest,
            task_id=self.task_id,
            run_id=self.run_id(organization),
            attempt=attempt,
            sequence=sequence,
            sender_organization_id=self.world[organization].address,
            content_type="application/json",
            created_at=timestamp(self.world.now),
            ledger_sequence=self.world.state.position.sequence,
            ledger_hash=self.world.state.position.hash,
        )
        receivers = self.world.state.receivers(self.spec.result_receivers)
        sealed = seal_bytes(
            content, context=context, receivers=receivers, key=_node(self.world, organization), random=os.urandom
        )
        return sealed.envelope, sealed.digest

    def commit(
        self,
        organization: str,
        outcome: str = "COMPLETED",
        *,
        content: bytes = RESULT,
        node_key: SigningKey | None = None,
        **changes: Any,
    ) -> CommitRunRequest:
        """Return what a node commits: receipt and, if the outcome has one, the envelope."""
        state = RunState.Value(f"RUN_STATE_{outcome}")
        key = node_key or _node(self.world, organization)
        envelope, wish = b"", {"outcome": state, "node_id": key.fingerprint}
        if outcome in ("COMPLETED", "FAILED"):
            kind = "RESULT" if outcome == "COMPLETED" else "FAILURE"
            envelope, named = self.seal(organization, EnvelopeKind.Value(f"ENVELOPE_KIND_{kind}"), content)
            wish |= {"result_digest": named}
        else:
            wish |= {"result_digest": b"", "result_receivers": [], "bytes_out": 0}
        verified = verify_task(self.chain, self.world.state, now=None)
        receipt = self.world.receipt(verified, organization, **(wish | changes))
        return CommitRunRequest(receipt=sign_receipt(receipt, key), envelope=envelope)


def _node(world: World, organization: str) -> SigningKey:
    return next(iter(world[organization].nodes.values()))


def task(
    world: World,
    receivers: Iterable[str] = ("Beta", "Gamma"),
    *,
    initiator: str = "Alpha",
    after: Sequence[SealedTask] = (),
    content: bytes = INPUT,
    parent: tuple[SealedTask, str] | None = None,
    **changes: Any,
) -> SealedTask:
    """Return a task of the initiator for the receivers; with `parent`, a subtask of that organization's run of that task."""
    names = tuple(receivers)
    if parent is not None:
        initiator = parent[1]
    spec = world.spec(initiator, names)
    if parent is not None:
        above = parent[0]
        spec.job_id, spec.initiator.user_id = above.spec.job_id, ""
        spec.expires_at.CopyFrom(above.spec.expires_at)
        spec.parent.CopyFrom(
            Parent(task_id=above.task_id, task_digest=above.digest, run_id=above.run_id(initiator), attempt=1)
        )
    if after:
        spec.job_id = after[0].spec.job_id
        for each in after:
            spec.depends_on.add(task_id=each.task_id, task_digest=each.digest)
    sealed = _seal_input(world, spec, initiator, names, content)
    spec.ClearField("inputs")
    spec.inputs.append(TaskInputRef(envelope_digest=sealed.digest, size_bytes=len(sealed.envelope)))
    spec.MergeFrom(TaskSpec(**changes))
    return SealedTask(world, _chain(world, spec, initiator, parent), sealed.envelope)


def resigned(sealed: SealedTask, **changes: Any) -> SealedTask:
    """Return another task with the same id: some fields differ."""
    spec = sealed.spec
    spec.MergeFrom(TaskSpec(**changes))
    return SealedTask(sealed.world, _chain(sealed.world, spec, "Alpha", None), sealed.envelope)


def expiring_in(world: World, **after: float) -> Any:
    return timestamp(world.now + timedelta(**after))


def _chain(world: World, spec: TaskSpec, initiator: str, parent: tuple[SealedTask, str] | None) -> TaskChain:
    if parent is None:
        signed: list[Signed] = [sign_task(spec, world[initiator].organization_key.task_signing)]
    else:
        signed = [*parent[0].chain.specs, sign_subtask(spec, _node(world, initiator))]
    return TaskChain(specs=signed)


def _seal_input(world: World, spec: TaskSpec, initiator: str, receivers: Sequence[str], content: bytes) -> Any:
    is_root = not spec.HasField("parent")
    context = EnvelopeContext(
        genesis=world.genesis,
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=spec.task_id,
        sender_organization_id=world[initiator].address,
        content_type="application/vnd.folkmoot.input",
        created_at=timestamp(world.now),
        ledger_sequence=world.state.position.sequence,
        ledger_hash=world.state.position.hash,
    )
    key = world[initiator].organization_key.task_signing if is_root else _node(world, initiator)
    sealed_to = world.state.receivers(world[each].address for each in receivers)
    return seal_bytes(content, context=context, receivers=sealed_to, key=key, random=os.urandom)


def bytes_of(sealed: SealedTask) -> bytes:
    return serialize(sealed.chain)
