"""New tasks: stored with all that follows from them in one transaction, and what their nodes are to be told.

Tasks that come together are stored at once, statement by statement, as if it had been one after the other: a task that
rests on rows of others is stored by itself, and so is whatever comes behind it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, null, select, union_all
from sqlalchemy.exc import IntegrityError

from folkmoot.server.audit import events
from folkmoot.server.context import Caller
from folkmoot.server.payloads.quotas import Quota
from folkmoot.server.store import deliveries, endings, links, payload_rows, runs, searches, session_rows, views
from folkmoot.server.store import placement as places
from folkmoot.server.store.bindings import is_tied
from folkmoot.server.store.deliveries import Delivery, Kind
from folkmoot.server.store.payload_rows import Envelope, Sending
from folkmoot.server.store.placement import Placement
from folkmoot.server.store.prepared import Prepared, at_once
from folkmoot.server.store.task_tables import deleted_tasks, node_links, task_dependencies
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import session_access, states
from folkmoot.server.tasks.creation import NewTask, input_place
from folkmoot.server.tasks.states import PENDING, Verdict
from folkmoot.trust import Malformed, timestamp
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.spec import attempts_allowed
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Parent, Receiver, Run, Task, TaskInputRef, TaskSpec

Begun = tuple[Task, list[Run]]
"""A task and its runs, as they are when it is stored."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A task that is to be stored, and the event that says so."""

    new: NewTask
    event: events.Event

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.new.spec.task_id


def store(connection: Connection, wanted: Sequence[Wanted], touched: Touched, quota: Quota) -> list[Begun]:
    """Store tasks with their runs, deliveries and inputs; return how each begins, or how it is if it was stored before.

    Raises ID_TAKEN, and whatever else is wrong with one of them.
    """
    begun: list[Begun] = []
    for several in _at_once(wanted):
        known = _known(connection, several)
        new = [each for each in several if each.task_id not in known]
        stored = _store(connection, new, touched, quota) if new else []
        begins = dict(zip((each.task_id for each in new), stored, strict=True))
        begun += [begins.get(each.task_id) or _as_it_is(connection, each.new) for each in several]
    return begun


def _at_once(wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
    """Cut tasks into what can be stored at once: none of these rests on another, or is another."""
    several: dict[str, Wanted] = {}
    for each in wanted:
        if several and (_rests_on_others(each.new.spec) or each.task_id in several):
            yield list(several.values())
            several = {}
        several[each.task_id] = each
        if _rests_on_others(each.new.spec):
            yield [each]
            several = {}
    if several:
        yield list(several.values())


def _rests_on_others(spec: TaskSpec) -> bool:
    return spec.job_id != spec.task_id or bool(spec.depends_on) or spec.HasField("parent") or is_tied(spec)


def _as_it_is(connection: Connection, new: NewTask) -> Begun:
    return views.task_and_runs(connection, new.caller, new.spec.task_id)


_KNOWN = Prepared(
    union_all(
        select(task_table.c.task_id, task_table.c.chain).where(task_table.c.task_id == bindparam("task_id")),
        select(deleted_tasks.c.task_id, null()).where(deleted_tasks.c.task_id == bindparam("task_id")),
    )
)


def _known(connection: Connection, wanted: Sequence[Wanted]) -> set[str]:
    """Return which of the tasks were stored before; raise ID_TAKEN if one is another one, or was deleted."""
    found = _KNOWN.rows_of_each(connection, [{"task_id": each.task_id} for each in wanted])
    chains = {row.task_id: row.chain for rows in found for row in rows}
    for each in wanted:
        if each.task_id in chains and chains[each.task_id] != each.new.chain:
            text = f"There is another task {each.task_id}"
            if chains[each.task_id] is None:
                text = f"The task {each.task_id} was deleted: make a new one if it is wanted after all"
            raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"task_id": each.task_id})
    return set(chains)


def _store(connection: Connection, wanted: Sequence[Wanted], touched: Touched, quota: Quota) -> list[Begun]:
    several = [each.new for each in wanted]
    for new in several:
        check_above(connection, new)
    verdicts = [_check_dependencies(connection, new.spec) for new in several]
    with at_once(connection):
        events.record(connection, [each.event for each in wanted])
        _insert_tasks(connection, several, verdicts)
    _store_inputs(connection, several, quota)
    placements = places.place(connection, [new.spec for new in several])
    told = []
    for new, verdict, placement in zip(several, verdicts, placements, strict=True):
        if new.spec.HasField("session"):
            session_rows.used(connection, new.spec.session.session_id, now=new.now)
        told += _assignments(new.spec, placement) if verdict is Verdict.START else []
    with _run_ids_are_new(several), at_once(connection):
        _insert_runs(connection, several, placements)
        deliveries.enqueue(connection, told, touched)
    return [
        _begin(connection, new, verdict, placement, touched)
        for new, verdict, placement in zip(several, verdicts, placements, strict=True)
    ]


def _begin(connection: Connection, new: NewTask, verdict: Verdict, placement: Placement, touched: Touched) -> Begun:
    """End at once what can't be executed; return how the task begins."""
    if verdict is Verdict.FAIL:
        endings.fail(connection, new.spec.task_id, now=new.now, touched=touched)
        return _as_it_is(connection, new)
    if placement.lost:
        _end_without_files(connection, new.spec, placement, now=new.now, touched=touched)
        return _as_it_is(connection, new)
    return _beginning(new, placement, blocked=verdict is Verdict.WAIT)


def _beginning(new: NewTask, placement: Placement, *, blocked: bool) -> Begun:
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
        state=states.task_state([PENDING]),
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
            waiting=states.waiting(PENDING, blocked=blocked, created_at=new.now, station=station, reported=None),
            created_at=created_at,
            revision=revision,
        )

    return task, [run(receiver, revision) for revision, receiver in enumerate(spec.receivers, start=1)]


def _assignments(spec: TaskSpec, placement: Placement) -> list[Delivery]:
    return [
        Delivery(placement.link_ids[receiver.organization_id], Kind.ASSIGN, receiver.run_id, attempt=1)
        for receiver in spec.receivers
        if receiver.organization_id in placement.link_ids and receiver.organization_id not in placement.lost
    ]


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
        endings.end(connection, ended, states.EXPIRED, lost[run.run_id], now=now, touched=touched)


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


def held_run(connection: Connection, parent: Parent, caller: Caller) -> states.Run:
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
        insert(task_dependencies), [{"task_id": spec.task_id, "depends_on_task_id": task_id} for task_id in digests]
    )
    return states.verdict(row.state for row in rows)


# ---- rows ----------------------------------------------------------------------------------------------------------

_INSERT_TASK = Prepared(insert(task_table))
_INSERT_RUN = Prepared(insert(run_table))


def _insert_tasks(connection: Connection, several: Sequence[NewTask], verdicts: Sequence[Verdict]) -> None:
    _INSERT_TASK.each(
        connection,
        [_task_row(new, blocked=verdict is Verdict.WAIT) for new, verdict in zip(several, verdicts, strict=True)],
    )
    for new in several:
        searches.note_labels(connection, new.spec)


def _task_row(new: NewTask, *, blocked: bool) -> dict[str, object]:
    spec = new.spec
    return {
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


def _store_inputs(connection: Connection, several: Sequence[NewTask], quota: Quota) -> None:
    sendings = [Sending(new.spec.initiator.organization_id, _inputs(new), new.now) for new in several]
    sizes = payload_rows.store(connection, sendings, quota)
    if any(sizes[each.envelope_digest] != each.size_bytes for new in several for each in new.spec.inputs):
        raise Malformed("An input has another size than the task says")


def _inputs(new: NewTask) -> list[Envelope]:
    everybody = [receiver.organization_id for receiver in new.spec.receivers]
    place = input_place(new.spec)

    def named(reference: TaskInputRef) -> Envelope:
        digest = reference.envelope_digest
        return Envelope(digest, place, reference.organization_ids or everybody, new.inlines.get(digest))

    return [named(reference) for reference in new.spec.inputs]


def _insert_runs(connection: Connection, several: Sequence[NewTask], placements: Sequence[Placement]) -> None:
    rows = [
        row for new, placement in zip(several, placements, strict=True) for row in _run_rows(new, placement.link_ids)
    ]
    _INSERT_RUN.each(connection, rows)


@contextmanager
def _run_ids_are_new(several: Sequence[NewTask]) -> Iterator[None]:
    """Raise ID_TAKEN if a run is there already, however late the database says so."""
    try:
        yield
    except IntegrityError as error:
        text = "A run of the task has the id of another task's run: make run ids as you make task ids, each once"
        task_id = several[0].spec.task_id  # of several, each is tried alone now
        raise FolkmootError(ErrorReason.ERROR_REASON_ID_TAKEN, text, metadata={"task_id": task_id}) from error


def _run_rows(new: NewTask, placed: Mapping[str, int]) -> list[dict[str, object]]:
    expires_at = moment_at(nanoseconds(new.spec.expires_at))
    inputs = _input_digests(new.spec)
    return [
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


def _input_digests(spec: TaskSpec) -> dict[str, bytes]:
    """Return the envelope of each receiver: one for all, or one that names it."""
    everybody = [receiver.organization_id for receiver in spec.receivers]
    return {
        organization_id: reference.envelope_digest
        for reference in spec.inputs
        for organization_id in reference.organization_ids or everybody
    }
