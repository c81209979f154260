"""Traces of a job, from the client through server and nodes to the algorithm, at a collector on a real socket.

Nothing is handed on from one to the next: that all of it fits together shows that everybody derives the same.
"""

import asyncio
import os
from dataclasses import fields
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd

from folkmoot.client import Subtasks
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.traces import CALLS_RECORDED, CallTraces
from folkmoot.transport.tracing import Tracer, is_sampled, run_span, task_span
from folkmoot.trust import uuid7
from tests.integration.collector import Collected, Collector, collector
from tests.integration.harness import PASSWORD, utc_now
from tests.integration.network import LABEL, network

TABLE = pd.DataFrame({"age": [31, 47, 52]})


async def job(folder: Path, at: Collector) -> str:
    """Run a central function with a subtask at two hospitals; return the job's id."""
    data = {"Alpha": TABLE, "Beta": TABLE}
    async with network(folder, data=data, start=False, traces=at.endpoint) as net:
        for name in data:
            settings = net.node_folder(name) / "node.toml"
            settings.write_text(f'traces = "{at.endpoint}"\n{settings.read_text()}')
            await net.start_node(name)
        async with net.client("Alpha", traces=at.endpoint) as client:
            task = await client.tasks.create(
                image="process:examples.average",
                function="average",
                organizations=["Alpha"],
                arguments={"column": "age"},
                labels=[LABEL],
                subtasks=Subtasks(depth=1, number=2),
            )
            await task.wait()
            return task.id


def named(spans: list[Collected], name: str, service: str = "") -> list[Collected]:
    return [each for each in spans if each.span.name == name and service in each.service]


async def test_job_is_one_trace_from_client_to_algorithm(tmp_path: Path):
    async with collector() as at:
        job_id = await job(tmp_path, at)
    spans = at.spans()
    trace = [each for each in spans if each.trace_id == UUID(job_id).int]

    [root] = named(trace, "task", "client")
    assert (root.span_id, root.parent) == (task_span(job_id, job_id).span_id, 0)
    [subtask] = named(trace, "task", "node")
    runs = named(trace, "run")
    [central] = [run for run in runs if run.parent == root.span_id]
    assert subtask.parent == central.span_id
    partial = [run for run in runs if run.parent == subtask.span_id]
    assert len(partial) == 2
    assert sorted(each.parent for each in named(trace, "algorithm")) == sorted(run.span_id for run in runs)
    calls = [each for each in trace if each.span.name.startswith("ProxyService/")]
    assert {each.parent for each in calls} == {run.span_id for run in runs}
    assert {each.span.name for each in calls} >= {
        f"ProxyService/{method}" for method in ("GetContext", "CreateSubtask")
    }
    assert {each.parent for each in named(trace, "TaskService/CreateTask", "server")} == {root.span_id, subtask.span_id}
    assert sorted(each.parent for each in named(trace, "TaskService/CommitRun", "server")) == sorted(
        run.span_id for run in runs
    )
    for each in trace:
        assert each.span.start_time_unix_nano <= each.span.end_time_unix_nano

    written = "".join(str(each.span) for each in spans)
    assert "ProxyService/ReadTable" in written, "the search finds what is there"
    assert "ListRoles" not in written, "nobody has called it"
    for secret in ("age", "average", "patients", "examples.average", LABEL, PASSWORD, "Bearer"):
        assert f'"{secret}' not in written
    assert {each.service for each in spans} == {"folkmoot-client", "folkmoot-server", "folkmoot-node"}


_COLUMNS = [each.name for each in fields(RunRecord)]


def test_one_job_in_so_many_is_traced_and_the_same_one_everywhere():
    jobs = [uuid7(utc_now(), os.urandom) for _ in range(4000)]
    sampled = {
        one_in: {job for job in jobs if is_sampled(task_span(job, job).trace_id, one_in)}
        for one_in in (1, 2, 10, 10**9)
    }
    assert len(sampled[1]) == 4000
    assert 1800 < len(sampled[2]) < 2200, "also of ids that were given one after the other"
    assert 300 < len(sampled[10]) < 500
    assert sampled[10**9] <= sampled[10] <= sampled[2]
    assert all(is_sampled(run_span(job, "run", 1).trace_id, 10) for job in sampled[10])


async def test_job_that_is_not_sampled_leaves_no_span():
    async with collector() as at:
        tracer = Tracer(at.endpoint, service="folkmoot-server", one_in=2)
        try:
            jobs = [uuid7(utc_now(), os.urandom) for _ in range(40)]
            for job in jobs:
                tracer.record("task", began_at=1, ended_at=2, span=task_span(job, job))
                tracer.record("call", began_at=1, ended_at=2, parent=run_span(job, "run", 1))
        finally:
            await asyncio.to_thread(tracer.close)
    wanted = {task_span(job, job).trace_id for job in jobs if is_sampled(task_span(job, job).trace_id, 2)}
    assert sorted(each.trace_id for each in at.spans()) == sorted([*wanted, *wanted])
    assert 0 < len(wanted) < 40


async def test_algorithm_that_calls_without_end_does_not_crowd_out_everything_else():
    async with collector() as at:
        tracer = Tracer(at.endpoint, service="folkmoot-node")
        try:
            values: dict[str, Any] = dict.fromkeys(_COLUMNS, 0) | {"job_id": "job", "run_id": "run"}
            run = RunRecord(**values)
            calls = CallTraces(tracer)
            for _ in range(CALLS_RECORDED + 50):
                calls.record(run, "SendMessage", began_at=1, failed="TOO_MANY")
        finally:
            await asyncio.to_thread(tracer.close)
    assert len(at.spans()) == CALLS_RECORDED
    assert {each.span.status.message for each in at.spans()} == {"TOO_MANY"}


def test_ids_follow_from_the_task():
    job_id = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
    assert task_span(job_id, job_id).trace_id == run_span(job_id, "run", 1).trace_id == UUID(job_id).int
    ids = {task_span(job_id, "a").span_id, run_span(job_id, "a", 1).span_id, run_span(job_id, "a", 2).span_id}
    assert len(ids) == 3
    assert 0 < task_span("no uuid", "").trace_id < 1 << 128
