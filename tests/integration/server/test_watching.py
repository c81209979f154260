"""Watching: nothing is missed whatever the cursor, nobody is blocked by a slow reader, and it ends when all has ended."""

import asyncio

import grpc.aio
import pytest

from folkmoot.v1 import link_pb2 as link
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import task


async def test_every_run_is_told_as_it_is_then_as_it_changes_then_the_stream_ends(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta", "Gamma"))
    await hub.create(sealed)
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    told = [await watching.read() for _ in range(2)]
    assert {each.run.state for each in told} == {RunState.RUN_STATE_PENDING}
    requests = {name: sealed.commit(name) for name in ("Beta", "Gamma")}
    for name, request in requests.items():
        await hub.tasks.CommitRun(request, metadata=await hub.node(name))
        change = await watching.read()
        assert change.run.run_id == sealed.run_id(name)
        assert change.result_envelope == request.envelope
    assert await watching.read() is grpc.aio.EOF


@pytest.mark.both_databases
async def test_a_cursor_goes_on_exactly_behind_what_was_told(hub: Hub) -> None:
    sealed = task(hub.lung, ("Alpha", "Beta", "Gamma"))
    await hub.create(sealed)
    await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    seen: list[str] = []
    revision = 0
    while True:  # cut off after every single change
        request = pb.WatchTaskRequest(task_id=sealed.task_id, after_revision=revision)
        watching = hub.tasks.WatchTask(request, metadata=hub.ada)
        change = await watching.read()
        if not isinstance(change, pb.WatchTaskResponse):
            break
        watching.cancel()
        assert change.run.revision > revision
        revision = change.run.revision
        seen.append(change.run.run_id)
    assert sorted(seen) == sorted(sealed.run_id(name) for name in ("Alpha", "Beta", "Gamma"))


async def test_a_node_watches_the_tasks_of_its_collaboration(hub: Hub) -> None:
    sealed = task(hub.lung, ("Gamma",), result_receivers=[hub.lung["Beta"].address])
    await hub.create(sealed)
    request = sealed.commit("Gamma")
    await hub.tasks.CommitRun(request, metadata=await hub.node("Gamma"))
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=await hub.node("Beta"))
    assert [change.result_envelope async for change in watching] == [request.envelope]


async def test_a_slow_reader_blocks_nobody(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    slow = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    envelope = bytes(256 * 1024)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        for _ in range(40):  # ten MiB that nobody reads
            update = link.RunUpdate(run_id=sealed.run_id("Beta"), attempt=1, state=RunState.RUN_STATE_RUNNING)
            update.progress_envelope = envelope
            await beta.send(run_update=update)
        await hub.commit(sealed, "Beta")
        other = task(hub.lung, ("Beta",))
        await hub.create(other)
        assert (await beta.accept()).run_id == other.run_id("Beta")
    last = [change.run.state async for change in slow][-1]
    assert last == RunState.RUN_STATE_COMPLETED


async def test_a_node_that_reads_nothing_blocks_nobody(hub: Hub) -> None:
    large = [task(hub.lung, ("Beta", "Gamma"), content=bytes(200 * 1024)) for _ in range(20)]
    async with attached(hub.server, hub.lung, "Beta") as asleep, attached(hub.server, hub.lung, "Gamma") as gamma:
        for each in large:
            await hub.create(each)
        for each in large:
            assert (await gamma.accept()).run_id == each.run_id("Gamma")
        for each in large:
            assert (await asleep.accept()).run_id == each.run_id("Beta")


async def test_watching_ends_when_the_server_stops(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    await watching.read()
    stopping = asyncio.create_task(hub.server.running.stop(5.0))
    assert reason(await refused(watching.read())) == "SHUTTING_DOWN"
    await stopping


# ---- logs ----------------------------------------------------------------------------------------------------------


@pytest.mark.both_databases
async def test_a_log_is_followed_from_any_position_until_the_run_ends(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    run_id = sealed.run_id("Beta")
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        following = hub.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=run_id), metadata=hub.ada)
        for lines in ([b"one", b"two"], [b"three"]):
            update = link.RunUpdate(run_id=run_id, attempt=1, state=RunState.RUN_STATE_RUNNING, log_envelopes=lines)
            await beta.send(run_update=update)
            for line in lines:
                told = await following.read()
                assert (told.envelope, told.attempt) == (line, 1)
        await hub.commit(sealed, "Beta")
    assert await following.read() is grpc.aio.EOF
    later = hub.tasks.WatchRunLog(pb.WatchRunLogRequest(run_id=run_id, after_position=1), metadata=hub.ada)
    assert [(each.position, each.envelope) async for each in later] == [(2, b"two"), (3, b"three")]


async def test_a_log_is_for_those_who_receive_the_result(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    request = pb.WatchRunLogRequest(run_id=sealed.run_id("Beta"))
    call = hub.tasks.WatchRunLog(request, metadata=hub.researchers["Gamma"].metadata)
    assert reason(await refused(call)) == "RUN_NOT_FOUND"
