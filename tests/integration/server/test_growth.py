"""Nothing gets slower because much is stored: no statement reads through a table that grows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import Connection, Engine, event

from folkmoot.server.store.prepared import Prepared
from folkmoot.trust import timestamp
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import task
from tests.integration.server.test_payloads import put

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # whose plans do not depend on sizes

GROWING = (
    "tasks",
    "task_dependencies",
    "runs",
    "run_logs",
    "deliveries",
    "peer_messages",
    "payloads",
    "events",
    "usage",
)
IN_THEIR_ORDER = re.compile(r"ORDER BY (tasks|runs)\.position DESC\s+LIMIT")  # a page of a list stops when it is full


@contextmanager
def statements() -> Iterator[dict[str, Any]]:
    """Collect what is executed, with its first parameters; what is prepared goes to the driver past the library."""
    seen: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        seen.setdefault(statement, parameters[0] if many else parameters)

    execute = Prepared._execute

    def note_prepared(connection: Any, compiled: Any, way: str, parameters: Any, **how: Any) -> Any:
        seen.setdefault(compiled.text, parameters[0] if way == "executemany" else parameters)
        return execute(connection, compiled, way, parameters, **how)

    event.listen(Engine, "before_cursor_execute", note)
    with patch.object(Prepared, "_execute", staticmethod(note_prepared)):
        try:
            yield seen
        finally:
            event.remove(Engine, "before_cursor_execute", note)


async def go_through_everything(hub: Hub) -> None:
    first = task(hub.lung, ("Beta", "Gamma"), grant={"subtask_depth": 1, "subtask_number": 1})
    second = task(hub.lung, ("Beta",), after=[first])
    large = task(hub.lung, ("Beta",), content=bytes(300_000))
    for sealed in (first, second):
        await hub.create(sealed)
    await put(hub, large)
    await hub.tasks.CreateTask(large.request(envelope=False), metadata=hub.ada)
    async with (
        attached(hub.server, hub.lung, "Beta") as beta,
        attached(hub.server, hub.lung, "Gamma", held=[(first.run_id("Gamma"), "RUNNING")]) as gamma,
    ):
        await beta.accept()
        await gamma.accept()
        update = link.RunUpdate(run_id=first.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_RUNNING)
        update.log_envelopes.append(b"line")
        await beta.send(run_update=update)
        await hub.until(first, "Beta", "RUNNING")
        below = task(hub.lung, ("Gamma",), parent=(first, "Beta"))
        await hub.create(below, await hub.node("Beta"))
        await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=below.task_id), metadata=await hub.node("Beta"))
        message = link.PeerMessage(task_id=first.task_id, sequence=1, envelope=b"sealed")
        message.from_run_id, message.to_run_id = first.run_id("Beta"), first.run_id("Gamma")
        await beta.send(peer_message=message)
        for organization in ("Beta", "Gamma"):
            await hub.commit(first, organization)
    for tasks in (pb.ListTasksRequest(), pb.ListTasksRequest(job_id=first.task_id)):
        await hub.tasks.ListTasks(tasks, metadata=hub.ada)
    for runs in (
        pb.ListRunsRequest(task_id=first.task_id),
        pb.ListRunsRequest(organization_id=hub.lung["Beta"].address),
        pb.ListRunsRequest(),
    ):
        await hub.tasks.ListRuns(runs, metadata=hub.ada)
    await hub.tasks.GetTask(pb.GetTaskRequest(task_id=first.task_id), metadata=hub.ada)
    log = hub.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=first.run_id("Beta")), metadata=hub.ada)
    assert [line.envelope async for line in log] == [b"line"]
    await hub.server.running.dispatch.sweep()
    root = (await hub.server.root()).metadata
    for events in (
        admin.ListEventsRequest(intent="task.*"),
        admin.ListEventsRequest(outcome="NOT_ALLOWED"),
        admin.ListEventsRequest(created_by=hub.admins["Alpha"].user_id, created_after=timestamp(hub.clock())),
    ):
        await hub.server.admin.ListEvents(events, metadata=root)
    await hub.server.admin.GetUsage(admin.GetUsageRequest(), metadata=root)


async def test_no_statement_reads_through_a_table_that_grows(hub: Hub) -> None:
    with statements() as seen:
        await go_through_everything(hub)
    assert len(seen) > 60

    def scans(connection: Connection) -> list[str]:
        found = []
        for statement, parameters in seen.items():
            if not statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")) or IN_THEIR_ORDER.search(statement):
                continue
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps = [row.detail for row in plan]
            if any(re.match(rf"SCAN ({'|'.join(GROWING)})\b", step) for step in steps):
                found.append(f"{statement}\n  {steps}")
        return found

    assert await hub.server.running.core.store.read(scans) == []


async def test_pages_of_lists_come_in_stored_order_without_sorting(hub: Hub) -> None:
    with statements() as seen:
        await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=hub.ada)
        await hub.tasks.ListTasks(pb.ListTasksRequest(job_id=hub.server.new_id()), metadata=hub.ada)
        await hub.tasks.ListRuns(pb.ListRunsRequest(), metadata=hub.ada)
        await hub.tasks.ListRuns(pb.ListRunsRequest(organization_id=hub.lung["Beta"].address), metadata=hub.ada)
    lists = {statement: parameters for statement, parameters in seen.items() if IN_THEIR_ORDER.search(statement)}
    assert len(lists) == 4

    def sorts(connection: Connection) -> list[str]:
        return [
            statement
            for statement, parameters in lists.items()
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            if "TEMP B-TREE" in row.detail
        ]

    assert await hub.server.running.core.store.read(sorts) == []
