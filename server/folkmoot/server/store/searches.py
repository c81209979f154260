"""What tasks and runs are found by: filters of lists, each by an index where much is stored.

A list gives the newest first, so that a filter that most rows meet stops when the page is full; one that few rows meet has an index
in that order. Texts within names, and times of rows of which no filter says more, are looked for among the rows from the newest on.
"""

from datetime import datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import ColumnElement, Connection, String, and_, bindparam, func, literal_column, select

from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import EPOCH
from folkmoot.server.store.task_tables import HAS_STUDY, IS_OPEN, IS_UNSUCCESSFUL, node_links, runs, task_labels, tasks
from folkmoot.server.tasks.states import CANCELLED, COMPLETED, PENDING
from folkmoot.v1.task_pb2 import Image, RunState, TaskSpec, TaskState
from folkmoot.v1.task_service_pb2 import ListRunsRequest, ListTasksRequest

CLOCKS_AGREE_WITHIN = timedelta(minutes=5)
"""Those of instances of one server: rows are stored in the order of their times but for that."""

LATEST_SECONDS = 250_000_000_000
"""Some time before calendars end."""

Conditions = list[ColumnElement[bool]]


# ---- tasks ---------------------------------------------------------------------------------------------------------


def image_name(image: Image) -> str:
    """Return what an image is found by: its repository, local id or module."""
    return image.registry.repository or image.local.id or image.process.module


def note_labels(connection: Connection, spec: TaskSpec) -> None:
    """Have a task that was just stored found by the data that it reads."""
    labels = dict.fromkeys(spec.labels)
    _NOTE_LABEL.each(connection, [{"label": each, "of_task": spec.task_id} for each in labels])


_NOTE_LABEL = Prepared(
    task_labels.insert().from_select(
        ["label", "position"],
        select(bindparam("label", type_=String), tasks.c.position).where(tasks.c.task_id == bindparam("of_task")),
    )
)


def of_tasks(connection: Connection, request: ListTasksRequest) -> Conditions:
    """Return what tasks must meet."""
    wanted = [
        column == value
        for column, value in (
            (tasks.c.genesis, request.genesis),
            (tasks.c.job_id, request.job_id),
            (tasks.c.initiator_organization_id, request.initiator_organization_id),
            (tasks.c.created_by, request.user_id),
            (tasks.c.parent_task_id, request.parent_task_id),
            (tasks.c.image, request.image),
            (tasks.c.session_id, request.session_id),
        )
        if value
    ]
    if request.study:
        wanted += [HAS_STUDY, tasks.c.study == request.study]
    if request.name_contains:
        wanted.append(func.lower(tasks.c.name).contains(request.name_contains.lower(), autoescape=True))
    if request.label:
        reads = select(task_labels.c.position).where(task_labels.c.label == request.label)
        wanted.append(tasks.c.position.in_(reads))
    if request.state:
        wanted.append(_in_state(request.state))
    return wanted + _made(connection, request)


def _in_state(state: TaskState.ValueType) -> ColumnElement[bool]:
    """Meet tasks whose runs make up a state, as `tasks.task_state` derives it."""
    goes_on, began = _has_run(IS_OPEN), _has_run(runs.c.state != PENDING)
    cancelled, unsuccessful = _has_run(runs.c.state == CANCELLED), _has_run(runs.c.state != COMPLETED)
    # Of those that go on there are few, whatever else is stored: they are found by the index of open runs.
    is_open = tasks.c.task_id.in_(select(runs.c.task_id).where(IS_OPEN))
    match state:
        case TaskState.TASK_STATE_PENDING:
            return and_(is_open, ~began)
        case TaskState.TASK_STATE_RUNNING:
            return and_(is_open, began)
        case TaskState.TASK_STATE_CANCELLED:
            return and_(~goes_on, cancelled)
        case TaskState.TASK_STATE_COMPLETED:
            return ~unsuccessful
        case _:
            return and_(~goes_on, ~cancelled, unsuccessful)


def _has_run(condition: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(literal_column("1")).where(runs.c.task_id == tasks.c.task_id, condition).exists()


def _made(connection: Connection, request: ListTasksRequest) -> Conditions:
    wanted: Conditions = []
    if request.HasField("created_after"):
        after = _moment(request.created_after)
        wanted += [tasks.c.created_at >= after, *_from_position(connection, after - CLOCKS_AGREE_WITHIN)]
    if request.HasField("created_before"):
        before = _moment(request.created_before)
        wanted += [tasks.c.created_at < before, *_to_position(connection, before + CLOCKS_AGREE_WITHIN)]
    return wanted


def _from_position(connection: Connection, moment: datetime) -> Conditions:
    """Say where the rows begin that may be that new, so that no older ones are looked at."""
    first = select(tasks.c.position).where(tasks.c.created_at >= moment).order_by(tasks.c.created_at).limit(1)
    position = connection.scalar(first)
    return [] if position is None else [tasks.c.position >= position]


def _to_position(connection: Connection, moment: datetime) -> Conditions:
    """Say where the rows end that may be that old, so that no newer ones are looked at."""
    last = select(tasks.c.position).where(tasks.c.created_at >= moment).order_by(tasks.c.created_at).limit(1)
    position = connection.scalar(last)
    return [] if position is None else [tasks.c.position <= position]


def _moment(time: Timestamp) -> datetime:
    return EPOCH + timedelta(seconds=min(max(time.seconds, 0), LATEST_SECONDS), microseconds=time.nanos // 1000)


# ---- runs ----------------------------------------------------------------------------------------------------------


def of_runs(connection: Connection, request: ListRunsRequest) -> Conditions:
    """Return what runs must meet."""
    wanted = [
        column == value
        for column, value in (
            (runs.c.task_id, request.task_id),
            (runs.c.organization_id, request.organization_id),
            (runs.c.genesis, request.genesis),
        )
        if value
    ]
    if request.state:
        wanted += [runs.c.state == request.state, *_index_of(request.state)]
    if request.node_id:
        links = connection.scalars(select(node_links.c.link_id).where(node_links.c.node_id == request.node_id))
        wanted += [runs.c.link_id.in_(list(links)), runs.c.assigned_at.is_not(None)]
    return wanted


def _index_of(state: RunState.ValueType) -> Conditions:
    """Say again what the state implies, so that the database sees that a partial index serves."""
    if state < COMPLETED:
        return [IS_OPEN]
    return [IS_UNSUCCESSFUL] if state > COMPLETED else []
