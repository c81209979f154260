"""Lists of tasks and runs: each filter finds what it says and nothing else, page by page, by an index."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from folkmoot.trust import timestamp
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import Image, ProcessImage, RegistryImage, RunState, TaskState
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_growth import statements

AVERAGE = "registry.example.org/average"


async def made(hub: Hub, *changes: Any, receivers: Sequence[str] = ("Beta",)) -> list[SealedTask]:
    """Make tasks that differ from the usual one."""
    tasks = []
    for change in changes:
        sealed = task(hub.lung, receivers, **change)
        await hub.create(sealed)
        tasks.append(sealed)
    return tasks


async def found(hub: Hub, **filters: Any) -> list[str]:
    """Return ids of tasks, newest first, read in pages of two."""
    names: list[str] = []
    token = ""
    while True:
        request = pb.ListTasksRequest(page_size=2, page_token=token, **filters)
        answer = await hub.tasks.ListTasks(request, metadata=hub.ada)
        names += [each.task_id for each in answer.tasks]
        token = answer.next_page_token
        if not token:
            return names


async def found_runs(hub: Hub, **filters: Any) -> list[str]:
    answer = await hub.tasks.ListRuns(pb.ListRunsRequest(**filters), metadata=hub.ada)
    return [each.run_id for each in answer.runs]


def image(repository: str) -> Image:
    return Image(registry=RegistryImage(repository=repository, digest="sha256:" + "0" * 64))


@pytest.mark.both_databases
async def test_filters_of_tasks_find_what_they_say(hub: Hub) -> None:
    average, mean, process, both = await made(
        hub,
        {"image": image(AVERAGE), "name": "Age at 50%_diagnosis", "labels": ["persons"]},
        {"image": image("registry.example.org/mean"), "study": "Lung 2026", "labels": ["visits"]},
        {"image": Image(process=ProcessImage(module="examples.average", tree_hash=bytes(32)))},
        {"image": image(AVERAGE), "study": "Lung 2026", "labels": ["persons", "visits"], "name": "again"},
    )
    ids = [each.task_id for each in (average, mean, process, both)]
    first, second, third, fourth = ids
    cases: list[tuple[dict[str, Any], list[str]]] = [
        ({}, [fourth, third, second, first]),
        ({"image": AVERAGE}, [fourth, first]),
        ({"image": "examples.average"}, [third]),
        ({"image": "average"}, []),
        ({"study": "Lung 2026"}, [fourth, second]),
        ({"label": "persons"}, [fourth, first]),
        ({"label": "visits", "study": "Lung 2026", "image": AVERAGE}, [fourth]),
        ({"name_contains": "50%_DIAG"}, [first]),
        ({"name_contains": "50_"}, []),
        ({"user_id": hub.researchers["Alpha"].user_id}, [fourth, third, second, first]),
        ({"user_id": "nobody"}, []),
        ({"initiator_organization_id": hub.lung["Alpha"].address}, [fourth, third, second, first]),
        ({"initiator_organization_id": hub.lung["Beta"].address}, []),
        ({"job_id": second}, [second]),
        ({"genesis": hub.lung.genesis}, [fourth, third, second, first]),
        ({"genesis": bytes(32)}, []),
        ({"session_id": second}, []),
    ]
    for filters, expected in cases:
        assert await found(hub, **filters) == expected, filters


async def test_subtasks_are_found_by_what_is_above_them(hub: Hub) -> None:
    above = task(hub.lung, ("Beta",), grant={"subtask_depth": 1, "subtask_number": 1})
    await hub.create(above)
    below = task(hub.lung, ("Gamma",), parent=(above, "Beta"))
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.create(below, await hub.node("Beta"))
    assert await found(hub, parent_task_id=above.task_id) == [below.task_id]
    assert await found(hub, job_id=above.task_id) == [below.task_id, above.task_id]


@pytest.mark.both_databases
async def test_tasks_are_found_by_state(hub: Hub) -> None:
    pending, done, failed, mixed, cancelled, running = await made(
        hub, *[{} for _ in range(6)], receivers=("Beta", "Gamma")
    )
    for sealed, outcomes in ((done, ("COMPLETED", "COMPLETED")), (failed, ("COMPLETED", "FAILED"))):
        for name, outcome in zip(("Beta", "Gamma"), outcomes, strict=True):
            await hub.commit(sealed, name, outcome)
    await hub.commit(mixed, "Beta", "FAILED")
    await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=mixed.task_id), metadata=hub.researchers["Alpha"].metadata)
    await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=cancelled.task_id), metadata=hub.ada)
    await hub.commit(running, "Beta")
    by_state = {
        "PENDING": [pending],
        "RUNNING": [running],
        "COMPLETED": [done],
        "FAILED": [failed],
        "CANCELLED": [cancelled, mixed],
    }
    for name, expected in by_state.items():
        state = TaskState.Value(f"TASK_STATE_{name}")
        assert await found(hub, state=state) == [each.task_id for each in expected], name
        listed = await hub.tasks.ListTasks(pb.ListTasksRequest(state=state), metadata=hub.ada)
        assert {each.state for each in listed.tasks} == {state}


@pytest.mark.both_databases
async def test_tasks_are_found_by_when_they_were_made(hub: Hub) -> None:
    [old] = await made(hub, {})
    hub.clock.ahead = timedelta(minutes=7)
    [new] = await made(hub, {})
    shown = {
        each.task_id: each.created_at
        for each in (await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=hub.ada)).tasks
    }
    moment = shown[new.task_id]
    assert await found(hub, created_after=moment) == [new.task_id]
    assert await found(hub, created_before=moment) == [old.task_id]
    assert await found(hub, created_after=shown[old.task_id], created_before=moment) == [old.task_id]
    assert await found(hub, created_after=timestamp(hub.clock() + timedelta(hours=1))) == []


@pytest.mark.both_databases
async def test_runs_are_found_by_state_node_and_collaboration(hub: Hub) -> None:
    first, second = await made(hub, {}, {}, receivers=("Beta", "Gamma"))
    await hub.commit(first, "Beta", "FAILED")
    await hub.commit(second, "Beta")
    beta = hub.lung["Beta"].nodes["beta-1"].fingerprint
    assert await found_runs(hub, node_id=beta) == [second.run_id("Beta"), first.run_id("Beta")]
    assert await found_runs(hub, node_id=beta, state=RunState.RUN_STATE_FAILED) == [first.run_id("Beta")]
    assert await found_runs(hub, state=RunState.RUN_STATE_COMPLETED) == [second.run_id("Beta")]
    assert await found_runs(hub, state=RunState.RUN_STATE_PENDING) == [second.run_id("Gamma"), first.run_id("Gamma")]
    assert len(await found_runs(hub, genesis=hub.lung.genesis)) == 4
    assert await found_runs(hub, genesis=bytes(32)) == []


SERVED_BY: tuple[tuple[dict[str, Any], str], ...] = (
    ({"image": "x"}, "ix_tasks_image_position"),
    ({"study": "x"}, "ix_tasks_study_position"),
    ({"label": "x"}, "task_labels"),
    ({"user_id": "x"}, "ix_tasks_created_by_position"),
    ({"session_id": "01a1fafe-0000-7000-8000-000000000000"}, "ix_tasks_session_id_position"),
    ({"state": TaskState.TASK_STATE_RUNNING}, "ix_runs_open"),
)


@pytest.mark.parametrize(
    "database", ["sqlite"], indirect=True
)  # PostgreSQL looks at sizes: it reads small tables whole
async def test_a_filter_that_few_tasks_meet_is_served_by_its_index(hub: Hub) -> None:
    root = (await hub.server.root()).metadata
    for filters, index in SERVED_BY:
        with statements() as seen:
            await hub.tasks.ListTasks(pb.ListTasksRequest(**filters), metadata=root)

        def plan(connection: Connection, seen: dict[str, Any] = seen) -> list[str]:
            return [
                row.detail
                for statement, parameters in seen.items()
                if "LIMIT" in statement and "FROM tasks" in statement
                for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            ]

        steps = await hub.server.running.core.store.read(plan)
        assert any(index in step for step in steps), steps
        sorts = any("TEMP B-TREE" in step for step in steps)
        assert not sorts or "state" in filters, steps  # of those that go on there are few, whatever is stored
        assert not any(step.startswith("SCAN") for step in steps), steps
