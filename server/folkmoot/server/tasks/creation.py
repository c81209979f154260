"""Creating a task: checked as far as a server can without its database. How it is stored: store/new_tasks.py.

What is checked here protects the server and its users from garbage. Nodes rely on none of it: they verify the same
chain against their own replica.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import DecodeError

from folkmoot.server.collaborations.entries import not_a_member
from folkmoot.server.context import Caller
from folkmoot.server.store.payload_rows import Place
from folkmoot.transport.limits import INLINE_BYTES
from folkmoot.trust import (
    BytesSource,
    LedgerBehind,
    Malformed,
    State,
    TaskAheadOfLedger,
    TaskNotProven,
    VerifiedTask,
    inspect,
    serialize,
    verify_check,
    verify_task,
)
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import CheckTaskRequest, CreateTaskRequest


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that has passed every check that needs no rows."""

    verified: VerifiedTask
    chain: bytes
    inlines: Mapping[bytes, bytes]
    """Envelopes that rode along, by digest."""
    caller: Caller
    now: datetime

    @property
    def spec(self) -> TaskSpec:
        """The task's own spec."""
        return self.verified.spec


def genesis_of(chain: TaskChain) -> bytes:
    """Return the collaboration that a chain, not verified yet, says it is for."""
    try:
        return TaskSpec.FromString(chain.specs[-1].body).genesis
    except DecodeError as error:
        raise Malformed("The task's spec does not parse") from error


def check(request: CreateTaskRequest, *, caller: Caller, state: State, now: datetime) -> NewTask:
    """Verify the chain, that it is the caller's to send, and that the envelopes are some that it names."""
    with _refused_as_the_contract_says():
        verified = verify_task(request.chain, state, now=now)
    return _checked(verified, request, caller=caller, state=state, now=now)


def check_question(request: CheckTaskRequest, *, caller: Caller, state: State, now: datetime) -> NewTask:
    """Verify what somebody asks about as if it were to be created; every input comes along, since nothing is stored."""
    with _refused_as_the_contract_says():
        verified = verify_check(request.chain, state, now=now)
    new = _checked(verified, request, caller=caller, state=state, now=now)
    if any(reference.envelope_digest not in new.inlines for reference in new.spec.inputs):
        raise Malformed("An input does not ride along; for a question the function is enough, without large arguments")
    return new


@contextmanager
def _refused_as_the_contract_says() -> Iterator[None]:
    """Say what is wrong as the contract does: whoever sends a task that is not proven made a mistake himself."""
    try:
        yield
    except TaskAheadOfLedger as error:  # This server was restored from a backup; its ledger is about to be given back.
        raise LedgerBehind(error.message, metadata=error.metadata) from error
    except TaskNotProven as error:
        reason = _REFUSALS.get(error.metadata.get("rule", ""), Malformed.REASON)
        raise FolkmootError(reason, error.message, metadata=error.metadata) from error


_REFUSALS: Mapping[str, ErrorReason.ValueType] = {
    "SIGNATURE": ErrorReason.ERROR_REASON_SIGNATURE_INVALID,
    "MEMBER": ErrorReason.ERROR_REASON_NOT_A_MEMBER,
}


def _checked(
    verified: VerifiedTask,
    request: CreateTaskRequest | CheckTaskRequest,
    *,
    caller: Caller,
    state: State,
    now: datetime,
) -> NewTask:
    spec = verified.spec
    if spec.initiator.organization_id != caller.organization_id:
        raise _not_allowed("The task's initiator is another organization than yours")
    for receiver in spec.receivers:
        if receiver.organization_id not in state.members:
            raise not_a_member(state, receiver.organization_id)
    if (caller.kind == options.CALLER_NODE) != spec.HasField("parent"):
        raise _not_allowed("Users create root tasks, nodes create subtasks")
    inlines = dict(_inline(envelope, spec) for envelope in request.envelopes)
    return NewTask(verified, serialize(request.chain), inlines, caller, now)


def _inline(envelope: bytes, spec: TaskSpec) -> tuple[bytes, bytes]:
    if len(envelope) > INLINE_BYTES:
        text = f"An envelope of {len(envelope)} bytes can't ride along; upload what has more than {INLINE_BYTES}"
        raise FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)
    inspected = inspect(BytesSource(envelope))
    named = {reference.envelope_digest: reference.size_bytes for reference in spec.inputs}
    if named.get(inspected.digest) != len(envelope):
        raise Malformed("An envelope rides along that the task does not name, or of another size")
    if Place.of(inspected) != input_place(spec):
        raise Malformed("An envelope rides along that is no input of this task")
    return inspected.digest, envelope


def input_place(spec: TaskSpec) -> Place:
    """Return what a task's inputs are bound to."""
    return Place(EnvelopeKind.ENVELOPE_KIND_INPUT, spec.task_id)


def _not_allowed(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_NOT_ALLOWED, text)
