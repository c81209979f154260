"""Tasks from end to end: a client, a server, and nodes that answer; results verified as they arrive."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from folkmoot.client import (
    AsyncClient,
    AsyncTask,
    Client,
    FolkmootError,
    Proof,
    RunFailed,
    RunState,
    Subtasks,
    TaskState,
    connection,
)
from folkmoot.transport import INLINE_BYTES
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import task_service_pb2
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.task_pb2 import ExitClass, MessageGrant
from folkmoot.v1.task_pb2 import RunState as Told
from tests.integration.client.conftest import Hub
from tests.integration.harness import server, utc_now
from tests.integration.stub_node import StubNode, gather_work

IMAGE = "process:examples.average"


@pytest.fixture
async def nodes(hub: Hub) -> AsyncIterator[dict[str, StubNode]]:
    """A node of each organization, attached."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(StubNode(hub.server, hub.lung, name))
            for name in hub.lung.organizations
        }


async def ask(client: AsyncClient, *organizations: str, **changes: Any) -> AsyncTask:
    usual: dict[str, Any] = {
        "image": IMAGE,
        "function": "average",
        "arguments": {"column": "age"},
        "organizations": organizations or ("Alpha", "Beta", "Gamma"),
    }
    return await client.tasks.create(**(usual | changes))


async def test_each_result_is_told_when_it_arrives(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"))
    results = task.results()
    for name in ("Gamma", "Alpha", "Beta"):
        work = await nodes[name].next()
        assert (work.function, work.arguments) == ("average", {"column": "age"})
        await work.complete({"mean": name})
        result = await anext(results)
        assert (result.organization, result.state, result.proven) == (name, RunState.COMPLETED, Proof.PROVEN)
        assert result.value == {"mean": name}
    with pytest.raises(StopAsyncIteration):
        await anext(results)
    assert await task.state == TaskState.COMPLETED
    assert await task.why() == []


async def test_wait_gives_results_in_the_order_that_was_asked(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Gamma", "Beta")
    for name in ("Beta", "Gamma"):
        await (await nodes[name].next()).complete(name)
    assert [(one.organization, one.value) for one in await task.wait()] == [("Gamma", "Gamma"), ("Beta", "Beta")]
    assert [one.organization async for one in task.results()] == ["Beta", "Gamma"]


async def test_own_arguments_for_an_organization_stay_its_own(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Alpha", "Beta", arguments_by_organization={"Beta": {"column": "weight"}})
    alpha, beta = await gather_work([nodes["Alpha"], nodes["Beta"]])
    assert (alpha.arguments, beta.arguments) == ({"column": "age"}, {"column": "weight"})
    assert len(task.spec.inputs) == 2


async def test_large_input_is_uploaded_and_large_result_saved(hub: Hub, nodes: dict[str, StubNode], tmp_path: Path):
    data, model = os.urandom(3 * INLINE_BYTES), os.urandom(5 * INLINE_BYTES)
    task = await ask(hub.client("Alpha"), "Beta", arguments={"data": data})
    work = await nodes["Beta"].next()
    assert work.arguments == {"data": data}
    await work.complete(model)
    (result,) = await task.wait()
    result.save(tmp_path / "model.bin")
    assert (tmp_path / "model.bin").read_bytes() == model


async def test_everything_that_was_asked_for_is_in_the_signed_task(hub: Hub, nodes: dict[str, StubNode]):
    client = hub.client("Alpha")
    first = await ask(client, "Beta")
    task = await ask(
        client,
        "Beta",
        after=[first],
        labels=["patients"],
        name="ages",
        purpose="research",
        result_receivers=["Gamma", "Alpha"],
        scratch=True,
        messages=True,
        subtasks=Subtasks(depth=1, number=5),
        max_attempts=2,
        expires_in=timedelta(hours=1),
    )
    await (await nodes["Beta"].next()).complete(1)
    spec = (await nodes["Beta"].next()).task.spec
    assert spec == task.spec
    assert (spec.job_id, [one.task_id for one in spec.depends_on]) == (first.id, [first.id])
    assert (list(spec.labels), spec.name, spec.purpose) == (["patients"], "ages", "research")
    assert list(spec.result_receivers) == [hub.lung["Gamma"].address, hub.lung["Alpha"].address]
    assert (spec.grant.subtask_depth, spec.grant.messages) == (1, MessageGrant.MESSAGE_GRANT_SIBLINGS)
    assert (spec.max_attempts, spec.expires_at.seconds - spec.created_at.seconds) == (2, 3600)


async def test_ways_to_end_without_a_value(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"))
    alpha, beta, gamma = await gather_work([nodes[name] for name in ("Alpha", "Beta", "Gamma")])
    await alpha.fail("there is no column 'age'", reasons.ERROR_REASON_COLUMN_NOT_FOUND)
    await beta.crash(ExitClass.EXIT_CLASS_OUT_OF_MEMORY)
    await gamma.refuse(reasons.ERROR_REASON_IMAGE_NOT_ALLOWED, "images")
    failed, crashed, refused = await task.wait()
    assert all(one.proven for one in (failed, crashed, refused))
    with pytest.raises(RunFailed, match="there is no column 'age'"):
        failed.raise_for_state()
    with pytest.raises(RunFailed, match="memory"):
        crashed.raise_for_state()
    with pytest.raises(RunFailed, match=r"IMAGE_NOT_ALLOWED .*images") as error:
        refused.raise_for_state()
    assert error.value.reason == reasons.ERROR_REASON_IMAGE_NOT_ALLOWED
    assert await task.state == TaskState.FAILED


async def test_result_for_others_shows_its_state_only(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Beta", result_receivers=["Gamma"])
    await (await nodes["Beta"].next()).complete("for Gamma")
    (result,) = await task.wait()
    assert (result.state, result.proven, result.has_value) == (RunState.COMPLETED, Proof.PROVEN, False)
    (there,) = await (await hub.client("Gamma").tasks.get(task.id)).wait()
    assert there.value == "for Gamma"


async def test_earlier_task_is_found_verified_and_listed(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Beta", name="ages")
    await (await nodes["Beta"].next()).complete(61.5)
    again = await hub.client("Alpha").tasks.get(task.id)
    assert (again.spec, again.digest) == (task.spec, task.digest)
    assert [one.value for one in await again.wait()] == [61.5]
    (listed,) = await hub.client("Alpha").tasks.list()
    assert (listed.id, listed.name, listed.state, listed.initiator) == (task.id, "ages", TaskState.COMPLETED, "Alpha")


async def test_task_that_does_not_exist(hub: Hub):
    with pytest.raises(FolkmootError) as refused:
        await hub.client("Alpha").tasks.get("01929b1e-0000-7000-8000-000000000001")
    assert refused.value.reason == reasons.ERROR_REASON_TASK_NOT_FOUND


async def test_offline_node_is_named_as_the_reason(hub: Hub):
    task = await ask(hub.client("Alpha"), "Beta")
    (reason,) = await task.why()
    assert (reason.organization, reason.state, reason.reason) == ("Beta", RunState.PENDING, "NODE_OFFLINE")
    assert "no node of it is connected" in str(reason)


async def test_cancelled_before_any_node_had_it_is_the_servers_word(hub: Hub):
    task = await ask(hub.client("Alpha"), "Beta")
    await task.cancel()
    (result,) = await task.wait()
    assert (result.state, result.proven) == (RunState.CANCELLED, Proof.SERVER_SAYS)
    with pytest.raises(RunFailed, match="cancelled"):
        result.value  # noqa: B018


async def test_how_far_runs_are(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Beta")
    work = await nodes["Beta"].next()
    kind = EnvelopeKind.ENVELOPE_KIND_PROGRESS
    told = work.seal(kind, "text/plain; charset=utf-8", b"half of the half", sequence=1)
    await work.running(0.25, progress_envelope=told.envelope)
    async for run, _ in task._changes():
        if run.fraction:
            break
    (status,) = await task.runs
    assert (status.organization, status.state, status.fraction) == ("Beta", RunState.RUNNING, 0.25)
    assert status.progress == "half of the half"
    (reason,) = await task.why()
    assert "25%" in reason.text


async def test_logs_so_far_and_logs_to_the_end(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Beta")
    work = await nodes["Beta"].next()
    await work.log("reading", "computing")
    followed = task.logs("Beta", follow=True)
    assert [(await anext(followed)).text for _ in range(2)] == ["reading", "computing"]
    assert [line.text async for line in task.logs("Beta")] == ["reading", "computing"]
    await work.log("done", level="warning")
    last = await anext(followed)
    assert (last.organization, last.level, last.text) == ("Beta", "warning", "done")
    await work.complete(1)
    assert [line async for line in followed] == []


async def test_logs_of_an_organization_that_the_task_is_not_for(hub: Hub):
    task = await ask(hub.client("Alpha"), "Beta")
    with pytest.raises(FolkmootError) as refused:
        [line async for line in task.logs("Gamma")]
    assert refused.value.reason == reasons.ERROR_REASON_ORGANIZATION_NOT_FOUND


async def test_results_stream_over_a_restart_of_the_server(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Alpha", "Beta")
    alpha, beta = await gather_work([nodes["Alpha"], nodes["Beta"]])
    results = task.results()
    await alpha.complete("before")
    assert (await anext(results)).value == "before"
    later = asyncio.ensure_future(anext(results))
    address = hub.server.running.address
    await hub.server.running.stop()
    async with server(hub.folder / "server", listen=address):
        await beta.complete("after")
        assert (await later).value == "after"


def altered_by_the_server(monkeypatch: pytest.MonkeyPatch, client: AsyncClient, alter: Callable[[Any], None]) -> None:
    """Let the server tell something else than what it was told."""
    session = client.connection.session
    follow = session.follow

    async def following(method: Any, request: Any) -> AsyncIterator[Any]:
        async for answer in follow(method, request):
            alter(answer)
            yield answer

    monkeypatch.setattr(session, "follow", following)


async def test_tampered_result_is_rejected_and_others_still_arrive(
    hub: Hub, nodes: dict[str, StubNode], monkeypatch: pytest.MonkeyPatch
):
    def alter(change: Any) -> None:
        if change.run.organization_id == hub.lung["Beta"].address:
            change.result_envelope = change.result_envelope[:-300] + b"x" + change.result_envelope[-299:]

    client = hub.client("Alpha")
    task = await ask(client, "Beta", "Gamma")
    for work in await gather_work([nodes["Beta"], nodes["Gamma"]]):
        await work.complete(61.5)
    altered_by_the_server(monkeypatch, client, alter)
    beta, gamma = await task.wait()
    assert gamma.value == 61.5
    with pytest.raises(FolkmootError) as rejected:
        beta.value  # noqa: B018
    assert rejected.value.reason == reasons.ERROR_REASON_ENVELOPE_REJECTED


async def test_forged_failure_is_shown_as_the_servers_word(
    hub: Hub, nodes: dict[str, StubNode], monkeypatch: pytest.MonkeyPatch
):
    def alter(change: Any) -> None:
        change.run.state = Told.RUN_STATE_FAILED
        change.run.ClearField("receipt")

    client = hub.client("Alpha")
    task = await ask(client, "Beta")
    await (await nodes["Beta"].next()).complete(61.5)
    altered_by_the_server(monkeypatch, client, alter)
    (result,) = await task.wait()
    assert (result.state, result.proven) == (RunState.FAILED, Proof.SERVER_SAYS)
    with pytest.raises(RunFailed, match="no node signed it"):
        result.raise_for_state()


@pytest.mark.parametrize("when", ["before the end", "in place of the end"])
async def test_run_that_the_server_made_up_is_ignored(
    hub: Hub, nodes: dict[str, StubNode], monkeypatch: pytest.MonkeyPatch, when: str
):
    made_up, told = iter(["01929b1e-0000-7000-8000-000000000001"]), asyncio.Event()

    def alter(change: Any) -> None:
        change.run.run_id = next(made_up, change.run.run_id)
        told.set()

    client = hub.client("Alpha")
    task = await ask(client, "Beta")
    work = await nodes["Beta"].next()
    altered_by_the_server(monkeypatch, client, alter)
    if when == "in place of the end":
        await work.complete(61.5)
    waiting = asyncio.create_task(task.wait())
    await told.wait()
    if when == "before the end":
        await work.complete(61.5)
    assert [one.value for one in await waiting] == [61.5]


async def test_another_task_in_place_of_the_one_asked_for(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    wanted, other = await ask(client, "Beta"), await ask(client, "Beta")
    session = client.connection.session
    call = session.call

    async def redirected(method: Any, request: Any) -> Any:
        if isinstance(request, task_service_pb2.GetTaskRequest):
            request.task_id = other.id
        return await call(method, request)

    monkeypatch.setattr(session, "call", redirected)
    with pytest.raises(FolkmootError, match="in place of") as refused:
        await client.tasks.get(wanted.id)
    assert refused.value.reason == reasons.ERROR_REASON_TASK_NOT_PROVEN


async def test_results_stream_from_a_server_that_was_restored_from_a_backup(hub: Hub, nodes: dict[str, StubNode]):
    task = await ask(hub.client("Alpha"), "Beta")
    work = await nodes["Beta"].next()
    results, data = task.results(), hub.folder / "server"
    address = hub.server.running.address
    await hub.server.running.stop()
    shutil.copytree(data, hub.folder / "backup")
    async with server(data, listen=address):
        pending = asyncio.ensure_future(anext(results))
        async for run, _ in task._changes():
            await work.running(min(1.0, run.fraction + 0.25))
            if run.fraction == 1.0:
                break
    shutil.rmtree(data)
    shutil.copytree(hub.folder / "backup", data)
    async with server(data, listen=address):
        await work.complete("after")
        assert (await pending).value == "after"


async def test_node_that_is_newer_than_the_clients_copy_of_the_ledger(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connection, "FRESH_SECONDS", float("inf"))
    client = hub.client("Alpha")
    copied = (await client.connection.state()).position
    hub.lung.now = utc_now()
    hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.server.users["admin@beta"])
    async with StubNode(hub.server, hub.lung, "Beta", name="beta-2") as beta:
        await beta.attached.wait()
        task = await ask(client, "Beta")
        assert (await client.connection.state()).position == copied
        await (await beta.next()).complete(61.5)
        (result,) = await task.wait()
    assert (result.proven, result.value) == (Proof.PROVEN, 61.5)


async def test_watching_goes_on_with_a_new_token(hub: Hub, nodes: dict[str, StubNode]):
    client = hub.client("Alpha")
    task = await ask(client, "Beta")
    tokens = client.connection.session._tokens
    assert tokens is not None
    tokens.access_token = "too old"
    results = asyncio.create_task(task.wait())
    await (await nodes["Beta"].next()).complete(61.5)
    assert [one.value for one in await results] == [61.5]


async def test_task_sent_twice_is_one_task(hub: Hub, nodes: dict[str, StubNode], monkeypatch: pytest.MonkeyPatch):
    client = hub.client("Alpha")
    session, sent = client.connection.session, []
    call = session.call

    async def call_twice(method: Any, request: Any) -> Any:
        if isinstance(request, task_service_pb2.CreateTaskRequest):
            sent.append(await call(method, request))
        return await call(method, request)

    monkeypatch.setattr(session, "call", call_twice)
    task = await ask(client, "Beta")
    assert [one.task.task_id for one in sent] == [task.id]
    await (await nodes["Beta"].next()).complete(1)
    assert [one.value for one in await task.wait()] == [1]
    assert len(await client.tasks.list()) == 1


async def test_synchronous_client_does_the_same(hub: Hub, nodes: dict[str, StubNode]):
    def research() -> list[tuple[str, Any]]:
        with Client(**hub.arguments("Alpha")) as client:
            first = client.tasks.create(image=IMAGE, function="average", organizations=["Beta"])
            second = client.tasks.create(image=IMAGE, function="average", organizations=["Beta"], after=[first])
            streamed = [(one.organization, one.value) for one in first.results()]
            (last,) = second.wait(progress=False)
            return [*streamed, (str(second.state), last.value)]

    answers = asyncio.create_task(asyncio.to_thread(research))
    for value in (1, 2):
        await (await nodes["Beta"].next()).complete(value)
    assert await answers == [("Beta", 1), ("COMPLETED", 2)]
