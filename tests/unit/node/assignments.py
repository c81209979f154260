"""Tasks as a server hands them to a station: signed, with a sealed input, wrapped into deliveries."""

import json
import os
from typing import Any

from folkmoot.trust import digest, seal_bytes, sign_task, timestamp, uuid7
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.link_pb2 import Assign, ServerFrame
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import TaskChain, TaskInput, TaskInputRef, TaskSpec
from tests.builders import World


def content(function: str = "mean", **arguments: Any) -> bytes:
    head = TaskInput(function=function, arguments_json=json.dumps(arguments)).SerializeToString()
    return len(head).to_bytes(4, "big") + head


def sealed_task(
    lung: World,
    initiator: str = "Alpha",
    receivers: tuple[str, ...] = ("Beta",),
    *,
    data: bytes | None = None,
    sealed_to: tuple[str, ...] | None = None,
    **changes: Any,
) -> tuple[TaskSpec, Signed, bytes]:
    """Return a task's spec, the signed form, and the envelope of its input."""
    task_id = changes.pop("task_id", None) or uuid7(lung.now, lung.random)
    context = EnvelopeContext(
        genesis=lung.genesis,
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task_id,
        sender_organization_id=lung[initiator].address,
        content_type="application/vnd.folkmoot.input",
        created_at=timestamp(lung.now),
        ledger_sequence=lung.state.position.sequence,
        ledger_hash=lung.state.position.hash,
    )
    sealed = seal_bytes(
        content() if data is None else data,
        context=context,
        receivers=lung.state.receivers(lung[each].address for each in sealed_to or receivers),
        key=lung[initiator].organization_key.task_signing,
        random=os.urandom,
    )
    inputs = [TaskInputRef(envelope_digest=sealed.digest, size_bytes=len(sealed.envelope))]
    spec = lung.spec(initiator, receivers, task_id=task_id, **({"inputs": inputs, "job_id": task_id} | changes))
    return spec, sign_task(spec, lung[initiator].organization_key.task_signing), sealed.envelope


def assign(
    lung: World, organization: str = "Beta", *, sequence: int = 1, attempt: int = 1, **changes: Any
) -> ServerFrame:
    spec, signed, envelope = sealed_task(lung, **({"receivers": (organization,)} | changes))
    run_id = next(each.run_id for each in spec.receivers if each.organization_id == lung[organization].address)
    given = Assign(run_id=run_id, attempt=attempt, chain=TaskChain(specs=[signed]), input_envelope=envelope)
    return ServerFrame(sequence=sequence, assign=given)


def task_digest(frame: ServerFrame) -> bytes:
    return digest(frame.assign.chain.specs[-1].body)
