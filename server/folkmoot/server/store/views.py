"""What callers are shown of tasks and runs: who may see which, and rows as messages.

A node sees its collaboration; a user what his rules' scope reaches. What a caller may not see does not exist for him.
Sealed things (results, progress, logs) are shown only to organizations that they are sealed to.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, bindparam, false, or_, select, true

from folkmoot.server import access
from folkmoot.server.context import Caller
from folkmoot.server.store import links
from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import former_members, members, nodes
from folkmoot.server.store.task_tables import IS_OPEN, AnyRow, node_links, payloads, run_logs, runs
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.tasks import states
from folkmoot.server.tasks.states import Station
from folkmoot.trust import timestamp
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ExitClass, Run, RunState, Task, TaskState, Waiting
from folkmoot.v1.task_service_pb2 import WatchRunLogResponse

TASK, RUN = options.RESOURCE_TASK, options.RESOURCE_RUN
VIEW, DELETE = options.OPERATION_VIEW, options.OPERATION_DELETE


def visible(
    caller: Caller, resource: options.Resource.ValueType, operation: options.Operation.ValueType = VIEW
) -> ColumnElement[bool]:
    """Meet what the caller may see (or do) of tasks; for runs, of the tasks that they belong to, and of its own runs."""
    genesis = runs.c.genesis if resource == RUN else task_table.c.genesis
    if caller.kind == options.CALLER_NODE:
        return genesis == caller.genesis
    own, of_organization = task_table.c.created_by == caller.user_id, _of_organization(caller, resource)
    match access.scope(caller, resource, operation):
        case options.SCOPE_GLOBAL:
            return true()
        case options.SCOPE_COLLABORATION:
            return or_(
                genesis.in_(_of(caller, members)), and_(genesis.in_(_of(caller, former_members)), of_organization)
            )
        case options.SCOPE_ORGANIZATION:
            return of_organization
        case options.SCOPE_OWN:
            return own
        case _:
            return false()


def _of_organization(caller: Caller, resource: options.Resource.ValueType) -> ColumnElement[bool]:
    """Meet tasks that the caller's organization has made, and runs of these and those that it executes."""
    if not caller.organization_id:
        return task_table.c.created_by == caller.user_id
    made = task_table.c.initiator_organization_id == caller.organization_id
    return or_(made, runs.c.organization_id == caller.organization_id) if resource == RUN else made


def _of(caller: Caller, table: Table) -> Select[tuple[bytes]]:
    """Select the collaborations that the caller's organization is, or was, a member of."""
    return select(table.c.genesis).where(table.c.organization_id == caller.organization_id)


def task_not_found(task_id: str) -> FolkmootError:
    """Return the error of a task that is not there, or not for this caller."""
    return FolkmootError(
        ErrorReason.ERROR_REASON_TASK_NOT_FOUND, f"There is no task {task_id}", metadata={"task_id": task_id}
    )


def run_not_found(run_id: str) -> FolkmootError:
    """Return the error of a run that is not there, or not for this caller."""
    return FolkmootError(
        ErrorReason.ERROR_REASON_RUN_NOT_FOUND, f"There is no run {run_id}", metadata={"run_id": run_id}
    )


# ---- tasks ---------------------------------------------------------------------------------------------------------

TASK_COLUMNS = tuple(column for column in task_table.c if column is not task_table.c.chain)


def find_task(
    connection: Connection, caller: Caller, task_id: str, operation: options.Operation.ValueType = VIEW
) -> AnyRow:
    """Return a task's row; raise TASK_NOT_FOUND."""
    row: AnyRow | None = _task_of(caller, operation).row(connection, {"task_id": task_id})
    if row is None:
        raise task_not_found(task_id)
    return row


@lru_cache(maxsize=1024)
def _task_of(caller: Caller, operation: options.Operation.ValueType) -> Prepared:
    named = task_table.c.task_id == bindparam("task_id")
    return Prepared(select(task_table).where(named, visible(caller, TASK, operation)))


def tasks_page(connection: Connection, caller: Caller, *conditions: ColumnElement[bool], most: int) -> list[AnyRow]:
    """Return rows of tasks that the caller may see, newest first."""
    return _page(connection, caller, TASK, select(*TASK_COLUMNS).where(*conditions), task_table, most)


def _page(
    connection: Connection,
    caller: Caller,
    resource: options.Resource.ValueType,
    query: Select[*tuple[Any, ...]],
    table: Table,
    most: int,
) -> list[AnyRow]:
    """Return what the caller may see of a query's rows, newest first.

    Each collaboration is asked for by itself: then the index that has its rows in their order serves, however many rows
    there are of others.
    """
    reaches = [visible(caller, resource)]
    if access.scope(caller, resource, VIEW) == options.SCOPE_COLLABORATION:
        own = _of_organization(caller, resource)
        reaches = [table.c.genesis == genesis for genesis in connection.scalars(_of(caller, members))]
        reaches += [(table.c.genesis == genesis) & own for genesis in connection.scalars(_of(caller, former_members))]
    newest = query.order_by(table.c.position.desc()).limit(most)
    found = [row for reach in reaches for row in connection.execute(newest.where(reach))]
    return sorted(found, key=lambda row: row.position, reverse=True)[:most]


def task_messages(connection: Connection, rows: Sequence[AnyRow]) -> list[Task]:
    """Return tasks, their states derived from their runs'."""
    run_states: defaultdict[str, list[RunState.ValueType]] = defaultdict(list)
    counted = select(runs.c.task_id, runs.c.state).where(runs.c.task_id.in_([row.task_id for row in rows]))
    for task_id, state in connection.execute(counted.group_by(runs.c.task_id, runs.c.state)):
        run_states[task_id].append(state)
    return [task_message(row, states.task_state(run_states[row.task_id])) for row in rows]


def task_message(row: AnyRow, state: TaskState.ValueType) -> Task:
    """Return a task."""
    return Task(
        task_id=row.task_id,
        job_id=row.job_id,
        parent_task_id=row.parent_task_id or "",
        genesis=row.genesis,
        name=row.name,
        initiator_organization_id=row.initiator_organization_id,
        created_by=row.created_by,
        state=state,
        created_at=timestamp(row.created_at),
        revision=row.revision,
    )


# ---- runs ----------------------------------------------------------------------------------------------------------

_RUNS = (
    select(
        *(column for column in runs.c if column is not runs.c.input_digest),
        task_table.c.blocked,
        task_table.c.result_receivers,
        node_links.c.node_id,
        node_links.c.attached_at,
        node_links.c.away_since,
        nodes.c.node_id.label("admitted_node_id"),
    )
    .join_from(runs, task_table, task_table.c.task_id == runs.c.task_id)
    .outerjoin(node_links, node_links.c.link_id == runs.c.link_id)
    .outerjoin(nodes, and_(nodes.c.genesis == node_links.c.genesis, nodes.c.node_id == node_links.c.node_id))
)
_TASK = Prepared(select(*TASK_COLUMNS).where(task_table.c.task_id == bindparam("task_id")))
_RUN = Prepared(_RUNS.where(runs.c.run_id == bindparam("run_id")))
_RUNS_OF_TASK = Prepared(_RUNS.where(runs.c.task_id == bindparam("task_id")).order_by(runs.c.position))


def run(connection: Connection, caller: Caller, run_id: str) -> Run:
    """Return a run that there is. Access is the caller's to check."""
    (message,) = run_messages(connection, caller, _RUN.rows(connection, {"run_id": run_id}))
    return message


def task_and_runs(connection: Connection, caller: Caller, task_id: str) -> tuple[Task, list[Run]]:
    """Return a task with its runs. Access is the caller's to check."""
    return with_runs(connection, caller, _TASK.row(connection, {"task_id": task_id}))


def with_runs(connection: Connection, caller: Caller, row: AnyRow) -> tuple[Task, list[Run]]:
    """Return a task, whose row was just read, with its runs."""
    found = run_messages(connection, caller, _RUNS_OF_TASK.rows(connection, {"task_id": row.task_id}))
    return task_message(row, states.task_state([run.state for run in found])), found


def runs_page(connection: Connection, caller: Caller, *conditions: ColumnElement[bool], most: int) -> list[AnyRow]:
    """Return rows of runs that the caller may see, newest first."""
    return _page(connection, caller, RUN, _RUNS.where(*conditions), runs, most)


def find_run(connection: Connection, caller: Caller, run_id: str) -> AnyRow:
    """Return a run's row; raise RUN_NOT_FOUND."""
    row: AnyRow | None = _run_of(caller).row(connection, {"run_id": run_id})
    if row is None:
        raise run_not_found(run_id)
    return row


@lru_cache(maxsize=1024)
def _run_of(caller: Caller) -> Prepared:
    return Prepared(_RUNS.where(runs.c.run_id == bindparam("run_id"), visible(caller, RUN)))


def run_messages(connection: Connection, caller: Caller, rows: Iterable[AnyRow]) -> list[Run]:
    """Return runs, with what they wait for, and progress only for those who receive the results."""
    known = list(rows)
    stations = _Stations(connection, known)
    return [_run_message(row, caller, stations.of(row)) for row in known]


class _Stations:
    """Where runs can be executed: the node that each is placed at, or else all nodes of the organization."""

    def __init__(self, connection: Connection, rows: Iterable[AnyRow]) -> None:
        homeless: defaultdict[bytes, set[str]] = defaultdict(set)
        for row in rows:
            if row.link_id is None and row.state == states.PENDING:
                homeless[row.genesis].add(row.organization_id)
        self._links = {
            genesis: links.admitted(connection, genesis, organization_ids)
            for genesis, organization_ids in homeless.items()
        }

    def of(self, row: AnyRow) -> Station:
        if row.link_id is not None:
            never = row.created_at if row.attached_at is None else None
            admitted = row.admitted_node_id is not None
            return Station(admitted=admitted, away_since=row.away_since or never, node_id=row.node_id)
        own = [link for link in self._links.get(row.genesis, ()) if link.organization_id == row.organization_id]
        return links.station(own, created_at=row.created_at)


def _run_message(row: AnyRow, caller: Caller, station: Station) -> Run:
    reported = Waiting.FromString(row.waiting) if row.waiting is not None else None
    return Run(
        run_id=row.run_id,
        task_id=row.task_id,
        organization_id=row.organization_id,
        node_id=row.node_id if row.assigned_at is not None else "",
        attempt=row.attempt,
        state=row.state,
        exit_class=ExitClass.ValueType(row.exit_class),
        reason=ErrorReason.ValueType(row.reason),
        rule=row.rule,
        fraction=row.fraction,
        waiting=states.waiting(
            row.state, blocked=row.blocked, created_at=row.created_at, station=station, reported=reported
        ),
        receipt=Signed.FromString(row.receipt) if row.receipt is not None else None,
        approvals=Run.FromString(row.approvals).approvals if row.approvals is not None else (),
        result_digest=row.result_digest,
        result_size_bytes=row.result_size_bytes,
        progress_envelope=row.progress_envelope if receives(caller, row) else b"",
        created_at=timestamp(row.created_at),
        assigned_at=_when(row.assigned_at),
        started_at=_when(row.started_at),
        ended_at=_when(row.ended_at),
        revision=row.revision,
    )


def _when(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else timestamp(moment)


def receives(caller: Caller, row: AnyRow) -> bool:
    """Whether the results of the row's task are sealed to the caller's organization."""
    return bool(caller.organization_id) and caller.organization_id in row.result_receivers.split(" ")


def result_envelopes(connection: Connection, caller: Caller, rows: Iterable[AnyRow]) -> dict[str, bytes]:
    """Return the small envelopes of results that the caller's organization receives, by run id."""
    wanted = {row.run_id: row.result_digest for row in rows if row.result_digest and receives(caller, row)}
    found = ((run_id, _ENVELOPE.row(connection, {"digest": digest})) for run_id, digest in wanted.items())
    return {run_id: row.envelope for run_id, row in found if row}


_ENVELOPE = Prepared(
    select(payloads.c.envelope).where(
        payloads.c.envelope_digest == bindparam("digest"), payloads.c.envelope.is_not(None)
    )
)


# ---- watched -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """What has changed of a task since a revision, and whether anything more can change."""

    runs: list[tuple[Run, bytes]]
    """Each with its result's envelope, as far as it is small and the caller receives it."""
    more: bool
    """Whether there may be more behind them already."""
    ended: bool


RUNS_AT_ONCE = 16

_OPEN_RUN = Prepared(select(runs.c.run_id).where(runs.c.task_id == bindparam("task_id"), IS_OPEN).limit(1))
_CHANGED = Prepared(
    _RUNS.where(runs.c.task_id == bindparam("task_id"), runs.c.revision > bindparam("revision"))
    .order_by(runs.c.revision)
    .limit(RUNS_AT_ONCE)
)


def changes(connection: Connection, caller: Caller, task_id: str, revision: int) -> Changes:
    """Return the next of a task's runs that have changed since the revision, in the order of their revisions."""
    rows = _CHANGED.rows(connection, {"task_id": task_id, "revision": revision})
    envelopes = result_envelopes(connection, caller, rows)
    found = [(run, envelopes.get(run.run_id, b"")) for run in run_messages(connection, caller, rows)]
    more = len(rows) == RUNS_AT_ONCE
    return Changes(found, more, ended=not more and _OPEN_RUN.row(connection, {"task_id": task_id}) is None)


def log_lines(
    connection: Connection, run_id: str, position: int, *, most: int
) -> tuple[list[WatchRunLogResponse], bool]:
    """Return a run's log behind a position, and whether the run has ended."""
    ended = connection.scalar(select(runs.c.state).where(runs.c.run_id == run_id)) in states.TERMINAL
    behind = select(run_logs).where(run_logs.c.run_id == run_id, run_logs.c.position > position)
    lines = [
        WatchRunLogResponse(
            position=row.position, envelope=row.envelope, attempt=row.attempt, received_at=timestamp(row.received_at)
        )
        for row in connection.execute(behind.order_by(run_logs.c.position).limit(most))
    ]
    return lines, ended
