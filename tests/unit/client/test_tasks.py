"""What a task is made of, besides its input."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from folkmoot.algorithm.describe import read_functions
from folkmoot.client import FolkmootError, Resources, Subtasks
from folkmoot.client.drafting import check_calls, grant_message, job_of, resources_message
from folkmoot.client.inputs import Group
from folkmoot.client.published import Published
from folkmoot.client.task import TaskState
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import task_pb2


@dataclass
class Earlier:
    id: str
    job_id: str
    digest: bytes = bytes(32)


def test_task_belongs_to_the_job_of_those_before_it():
    assert job_of([]) == ""
    assert job_of([Earlier("1", "j"), Earlier("2", "j")]) == "j"


def test_tasks_of_two_jobs_cannot_both_come_before():
    with pytest.raises(FolkmootError, match="different jobs") as refused:
        job_of([Earlier("1", "j"), Earlier("2", "k")])
    assert refused.value.reason == reasons.ERROR_REASON_INVALID_FIELD


def test_nothing_is_granted_unless_asked_for():
    assert grant_message(messages=False, subtasks=None, images=[]) == task_pb2.Grant()
    assert resources_message(None) == task_pb2.Resources()


def test_grants_and_resources():
    grant = grant_message(messages=True, subtasks=Subtasks(depth=2, number=30), images=[])
    assert (grant.subtask_depth, grant.subtask_number) == (2, 30)
    assert grant.messages == task_pb2.MESSAGE_GRANT_SIBLINGS
    resources = resources_message(
        Resources(memory_bytes=1, cpu_millis=2, run_time=timedelta(seconds=3), resource_class="gpu")
    )
    assert (resources.memory_bytes, resources.cpu_millis, resources.resource_class) == (1, 2, "gpu")
    assert resources.run_time.ToTimedelta() == timedelta(seconds=3)


def test_every_groups_call_is_checked_where_the_image_is_known():
    label = '[{"name": "f", "kind": "partial", "parameters": [{"name": "x", "type": "int", "required": true}]}]'
    image = Published(read_functions(label) or {}, "engine")
    check_calls(image, "f", [Group((), ("a",), {"x": 1})])
    with pytest.raises(FolkmootError, match=r"f\(x: int\)") as refused:
        check_calls(image, "f", [Group(("a",), ("a",), {"x": 1}), Group(("b",), ("b",), {"y": 1})])
    assert refused.value.reason == reasons.ERROR_REASON_ARGUMENTS_INVALID


def test_unknown_image_is_left_to_the_nodes():
    check_calls(None, "f", [Group((), ("a",), {"x": 1})])


def test_task_states_are_those_of_the_contract():
    named = [value.name.removeprefix("TASK_STATE_") for value in task_pb2.TaskState.DESCRIPTOR.values if value.number]
    assert [state.value for state in TaskState] == named
