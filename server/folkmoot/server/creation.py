"""Creating a task: checked as far as a server can, then stored in one transaction with all that follows from it.

What is checked here protects the server and its users from garbage. Nodes rely on none of it: they verify the same
chain against their own replica.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from folkmoot.server import session_access, tasks
from folkmoot.server.context import Caller
from folkmoot.server.ledgers import not_a_member
from folkmoot.server.quotas import Quota
from folkmoot.server.store import (
    deliveries,
    endings,
    links,
    payload_rows,
    removal_rows,
    runs,
    searches,
    session_rows,
    views,
)
from folkmoot.server.store import placement as places
from folkmoot.server.store.deliveries import Delivery, Kind
from folkmoot.server.store.payload_rows import Envelope, Place
from folkmoot.server.store.placement import Placement
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.task_tables import node_links, task_dependencies
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import PENDING, Verdict
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
    timestamp,
    verify_check,
    verify_task,
)
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.spec import attempts_allowed
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Parent, Receiver, Run, Task, TaskChain, TaskInputRef, TaskSpec
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


# ---- what needs no rows --------------------------------------------------------------------------------------------


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
    if Place.of(inspected) != _input_place(spec):
        raise Malformed("An envelope rides along that is no input of this task")
    return inspected.digest, envelope


def _input_place(spec: TaskSpec) -> Place:
    return Place(EnvelopeKind.ENVELOPE_KIND_INPUT, spec.task_id)


def _not_allowed(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_NOT_ALLOWED, text)


# ---- what needs rows -----------------------------------------------------------------------------------------------

_STORED = Prepared(select(task_table.c.chain).where(task_table.c.task_id == bindparam("task_id")))
_INSERT_TASK = Prepared(insert(task_table))
_INSERT_RUNS = Prepared(insert(run_table))
_INSERT_DEPENDENCIES = insert(task_dependencies)


def is_stored(connection: Connection, new: NewTask) -> bool:
    """Whether the same task was stored before; raise ID_TAKEN if it is another one."""
    spec = new.spec
    known = _STORED.row(connection, {"task_id": spec.task_id})
    if known is not None and known.chain != new.chain:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_ID_TAKEN,
            f"There is another task {spec.task_id}",
            metadata={"task_id": spec.task_id},
        )
    if known is None and removal_rows.was_deleted(connection, spec.task_id):
        text = f"The task {spec.task_id} was deleted: make a new one if it is wanted after all"
        raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"task_id": spec.task_id})
    return known is not None


def store(connection: Connection, new: NewTask, touched: Touched, quota: Quota) -> tuple[Task, list[Run]]:
    """Store a task with its runs, deliveries and inputs; return how it begins."""
    spec = new.spec
    check_above(connection, new)
    dependencies = _check_dependencies(connection, spec)
    _insert_task(connection, new, blocked=dependencies is Verdict.WAIT)
    _store_inputs(connection, new, quota)
    placement = places.place(connection, spec)
    _insert_runs(connection, new, placement.link_ids)
    if spec.HasField("session"):
        session_rows.used(connection, spec.session.session_id, now=new.now)
    if dependencies is Verdict.START:
        _assign(connection, spec, placement, touched)
    elif dependencies is Verdict.FAIL:
        endings.fail(connection, spec.task_id, now=new.now, touched=touched)
        return views.task_and_runs(connection, new.caller, spec.task_id)
    if placement.lost:
        _end_without_files(connection, spec, placement, now=new.now, touched=touched)
        return views.task_and_runs(connection, new.caller, spec.task_id)
    return _beginning(new, placement, blocked=dependencies is Verdict.WAIT)


def _beginning(new: NewTask, placement: Placement, *, blocked: bool) -> tuple[Task, list[Run]]:
    """Return what has just been stored, without reading it again."""
    spec, created_at = new.spec, timestamp(new.now)
    task = Task(
        task_id=spec.task_id,
        job_id=spec.job_id,
        parent_task_id=spec.parent.task_id,
        genesis=spec.genesis,
        name=spec.name,
        initiator_organization_id=spec.initiator.organization_id,
        created_by=new.caller.user_id,
        state=tasks.task_state([PENDING]),
        created_at=created_at,
        revision=len(spec.receivers),
    )

    def run(receiver: Receiver, revision: int) -> Run:
        station = links.station(placement.candidates[receiver.organization_id], created_at=new.now)
        return Run(
            run_id=receiver.run_id,
            task_id=spec.task_id,
            organization_id=receiver.organization_id,
            attempt=1,
            state=PENDING,
            waiting=tasks.waiting(PENDING, blocked=blocked, created_at=new.now, station=station, reported=None),
            created_at=created_at,
            revision=revision,
        )

    return task, [run(receiver, revision) for revision, receiver in enumerate(spec.receivers, start=1)]


def _assign(connection: Connection, spec: TaskSpec, placement: Placement, touched: Touched) -> None:
    told = [
        Delivery(placement.link_ids[receiver.organization_id], Kind.ASSIGN, receiver.run_id, attempt=1)
        for receiver in spec.receivers
        if receiver.organization_id in placement.link_ids and receiver.organization_id not in placement.lost
    ]
    deliveries.enqueue(connection, told, touched)


def _end_without_files(
    connection: Connection, spec: TaskSpec, placement: Placement, *, now: datetime, touched: Touched
) -> None:
    """End what would need files or dataframes that it can't have; nobody is told of it."""
    lost = {
        receiver.run_id: placement.lost[receiver.organization_id]
        for receiver in spec.receivers
        if receiver.organization_id in placement.lost
    }
    for run in runs.load(connection, lost):
        ended = [replace(run, link_id=None)]
        endings.end(connection, ended, tasks.EXPIRED, lost[run.run_id], now=now, touched=touched)


def check_above(connection: Connection, new: NewTask) -> None:
    """Check that the job is the initiator's, or that the caller's node holds the run that creates the subtask; and the session."""
    spec = new.spec
    if spec.HasField("session"):
        session_access.require_open(connection, new.caller, spec.session.session_id, spec.genesis)
    if spec.HasField("parent"):
        _check_parent(connection, spec.parent, new.caller)
    elif spec.job_id != spec.task_id:
        first = select(task_table.c.position).where(
            task_table.c.task_id == spec.job_id,
            task_table.c.parent_task_id.is_(None),
            task_table.c.genesis == spec.genesis,
            task_table.c.initiator_organization_id == spec.initiator.organization_id,
        )
        if connection.scalar(first) is None:
            raise views.task_not_found(spec.job_id)


def _check_parent(connection: Connection, parent: Parent, caller: Caller) -> None:
    """Check that the subtask's parent is a run that the caller's node still holds; raise TASK_NOT_FOUND, TASK_ENDED."""
    run = held_run(connection, parent, caller)
    if run.ended or run.cancelling:
        raise FolkmootError(
            ErrorReason.ERROR_REASON_TASK_ENDED,
            f"The run {run.run_id}, which wants this subtask, has ended or is being cancelled",
            metadata={"run_id": run.run_id},
        )


def held_run(connection: Connection, parent: Parent, caller: Caller) -> tasks.Run:
    """Return the run that a subtask names as its parent; raise TASK_NOT_FOUND unless it is the node's.

    That the node has taken it may not be known yet: who can name its task's digest was told of it.
    """
    named = (
        select(*runs.DECISIVE)
        .join_from(run_table, task_table, task_table.c.task_id == run_table.c.task_id)
        .join(node_links, node_links.c.link_id == run_table.c.link_id)
        .where(
            run_table.c.run_id == parent.run_id,
            run_table.c.task_id == parent.task_id,
            run_table.c.attempt == parent.attempt,
            task_table.c.digest == parent.task_digest,
            task_table.c.genesis == caller.genesis,
            node_links.c.node_id == caller.node_id,
        )
    )
    row = connection.execute(named).one_or_none()
    if row is None:
        raise views.task_not_found(parent.task_id)
    return runs.run_of(row)


def _check_dependencies(connection: Connection, spec: TaskSpec) -> Verdict:
    """Say what the tasks before this one mean for it; raise TASK_NOT_FOUND for one that is not of the same job."""
    if not spec.depends_on:
        return Verdict.START
    digests = {each.task_id: each.task_digest for each in spec.depends_on}
    before = (
        select(task_table.c.task_id, task_table.c.digest, run_table.c.state)
        .join(run_table, run_table.c.task_id == task_table.c.task_id)
        .where(
            task_table.c.task_id.in_(list(digests)),
            task_table.c.job_id == spec.job_id,
            task_table.c.genesis == spec.genesis,
        )
    )
    rows = connection.execute(before).all()
    for task_id, digest in digests.items():
        if (task_id, digest) not in {(row.task_id, row.digest) for row in rows}:
            raise views.task_not_found(task_id)
    connection.execute(
        _INSERT_DEPENDENCIES, [{"task_id": spec.task_id, "depends_on_task_id": task_id} for task_id in digests]
    )
    return tasks.verdict(row.state for row in rows)


def _insert_task(connection: Connection, new: NewTask, *, blocked: bool) -> None:
    spec = new.spec
    row = {
        "task_id": spec.task_id,
        "genesis": spec.genesis,
        "job_id": spec.job_id,
        "parent_task_id": spec.parent.task_id or None,
        "name": spec.name,
        "initiator_organization_id": spec.initiator.organization_id,
        "created_by": new.caller.user_id,
        "chain": new.chain,
        "digest": new.verified.digest,
        "result_receivers": " ".join(spec.result_receivers),
        "image": searches.image_name(spec.image),
        "study": spec.study,
        "session_id": spec.session.session_id or None,
        "blocked": blocked,
        "created_at": new.now,
        "revision": len(spec.receivers),
    }
    _INSERT_TASK.each(connection, [row])
    searches.note_labels(connection, spec)


def _store_inputs(connection: Connection, new: NewTask, quota: Quota) -> None:
    everybody = [receiver.organization_id for receiver in new.spec.receivers]
    place = _input_place(new.spec)

    def named(reference: TaskInputRef) -> Envelope:
        digest = reference.envelope_digest
        return Envelope(digest, place, reference.organization_ids or everybody, new.inlines.get(digest))

    inputs = [named(reference) for reference in new.spec.inputs]
    sender = new.spec.initiator.organization_id
    sizes = payload_rows.store(connection, inputs, sender_organization_id=sender, now=new.now, quota=quota)
    if any(sizes[reference.envelope_digest] != reference.size_bytes for reference in new.spec.inputs):
        raise Malformed("An input has another size than the task says")


def _insert_runs(connection: Connection, new: NewTask, placed: Mapping[str, int]) -> None:
    expires_at = moment_at(nanoseconds(new.spec.expires_at))
    inputs = _input_digests(new.spec)
    rows = [
        {
            "run_id": receiver.run_id,
            "task_id": new.spec.task_id,
            "genesis": new.spec.genesis,
            "organization_id": receiver.organization_id,
            "attempt": 1,
            "attempts_allowed": attempts_allowed(new.spec),
            "state": PENDING,
            "link_id": placed.get(receiver.organization_id),
            "input_digest": inputs[receiver.organization_id],
            "cancelling": False,
            "exit_class": 0,
            "reason": 0,
            "rule": "",
            "fraction": 0.0,
            "result_digest": b"",
            "result_size_bytes": 0,
            "progress_envelope": b"",
            "created_at": new.now,
            "expires_at": expires_at,
            "revision": revision,
        }
        for revision, receiver in enumerate(new.spec.receivers, start=1)
    ]
    try:
        _INSERT_RUNS.each(connection, rows)
    except IntegrityError as error:
        text = "A run of the task has the id of another task's run: make run ids as you make task ids, each once"
        raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"task_id": new.spec.task_id}) from error


def _input_digests(spec: TaskSpec) -> dict[str, bytes]:
    """Return the envelope of each receiver: one for all, or one that names it."""
    everybody = [receiver.organization_id for receiver in spec.receivers]
    return {
        organization_id: reference.envelope_digest
        for reference in spec.inputs
        for organization_id in reference.organization_ids or everybody
    }
