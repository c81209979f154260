"""What tasks are listed by: filters in people's words, as the contract has them; and contents of tasks that can be deleted."""

from datetime import datetime
from typing import Literal, TypedDict

from folkmoot.client.task import TaskState
from folkmoot.trust import State, timestamp
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import task_pb2
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_service_pb2 import ListTasksRequest


class TaskFilters(TypedDict, total=False):
    """Filters of `tasks.list`; a task is listed that meets all that are given."""

    state: TaskState | Literal["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED"]
    name_contains: str
    """In the name, whatever the case."""
    image: str
    """The image's repository, local id or module."""
    initiator: str
    """The organization that made it, by name or address."""
    user: str
    """Who made it, by name or id."""
    job_id: str
    parent_task_id: str
    session: str
    """The session that it uses, by name or id."""
    study: str
    label: str
    """Data that it reads."""
    since: datetime
    """It was made from then on."""
    until: datetime
    """It was made before then."""


_AS_THEY_ARE = ("name_contains", "image", "job_id", "parent_task_id", "study", "label")


def list_request(filters: TaskFilters, state: State) -> ListTasksRequest:
    """Return the question. Raises ORGANIZATION_NOT_FOUND, INVALID_FIELD."""
    request = ListTasksRequest(**{name: filters[name] for name in _AS_THEY_ARE if name in filters})  # type: ignore[literal-required]
    if "state" in filters:
        request.state = _state(str(filters["state"]))
    if "initiator" in filters:
        request.initiator_organization_id = state.member(filters["initiator"]).organization_id
    if "since" in filters:
        request.created_after.CopyFrom(timestamp(filters["since"]))
    if "until" in filters:
        request.created_before.CopyFrom(timestamp(filters["until"]))
    return request


def _state(name: str) -> task_pb2.TaskState.ValueType:
    try:
        return task_pb2.TaskState.Value(f"TASK_STATE_{TaskState(name.upper())}")
    except ValueError as error:
        text = f"'{name}' is no state of a task: {', '.join(TaskState)}"
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, text) from error
