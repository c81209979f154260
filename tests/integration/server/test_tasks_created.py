"""Creating tasks: once, wholly or not at all, by whom it is for."""

import asyncio
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc.aio
import pytest
from sqlalchemy import Connection

from folkmoot.server.store import new_tasks
from folkmoot.server.store.new_tasks import Wanted
from folkmoot.server.tasks import creation
from folkmoot.server.tasks.creation import NewTask
from folkmoot.transport.status import error_from_rpc
from folkmoot.trust import sign_task, timestamp
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.task_pb2 import RunState, TaskChain, TaskState
from tests.builders import organization
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, bytes_of, resigned, task
from tests.polling import until

pytestmark = pytest.mark.both_databases


async def test_a_task_is_stored_with_its_runs_and_delivered(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta", "Gamma"))
    answer = await hub.create(sealed)
    assert answer.task.state == TaskState.TASK_STATE_PENDING
    assert {run.run_id for run in answer.runs} == {sealed.run_id("Beta"), sealed.run_id("Gamma")}
    async with attached(hub.server, hub.lung, "Beta") as beta:
        assigned = await beta.accept()
    assert assigned.run_id == sealed.run_id("Beta")
    assert assigned.attempt == 1
    assert assigned.chain == sealed.chain
    assert assigned.input_envelope == sealed.envelope
    [event] = await hub.server.events("task.create")
    assert sealed.task_id in event.data
    assert event.outcome == "ok"


async def test_the_same_task_twice_is_stored_and_delivered_once(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    first, second = await hub.create(sealed), await hub.create(sealed)
    assert first == second
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.commit(sealed, "Beta")
        other = task(hub.lung, ("Beta",))
        await hub.create(other)
        assert (await beta.accept()).run_id == other.run_id("Beta")
    assert len(await hub.server.events("task.create")) == 2
    again = await hub.create(sealed)
    assert again.runs[0].state == RunState.RUN_STATE_COMPLETED


async def test_another_task_under_the_same_id_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    error = await refused(hub.create(resigned(sealed, purpose="another one")))
    assert reason(error) == "ID_TAKEN"
    shown = await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert shown.chain.SerializeToString(deterministic=True) == bytes_of(sealed)


async def stored_in_one_group(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tasks: Sequence[SealedTask]
) -> tuple[list[Any], int]:
    """Create tasks that wait for the same transaction; return what each is answered, and how often they were tried."""
    groups: list[Sequence[Wanted]] = []
    checked: list[object] = []
    inside, go_on = threading.Event(), threading.Event()
    store, check = new_tasks.store, creation.check

    def store_slowly(connection: Connection, wanted: Sequence[Wanted], *others: Any) -> list[new_tasks.Begun]:
        groups.append(wanted)
        inside.set()
        go_on.wait()
        return store(connection, wanted, *others)

    def check_and_count(*arguments: Any, **named: Any) -> NewTask:
        checked.append(named)
        return check(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(new_tasks, "store", store_slowly)
        first = asyncio.ensure_future(hub.create(task(hub.lung, ("Gamma",))))
        await asyncio.to_thread(inside.wait)
        patched.setattr(creation, "check", check_and_count)
        calls = [asyncio.ensure_future(hub.create(each)) for each in tasks]
        await until(lambda: len(checked) == len(tasks))
        go_on.set()
        answers = await asyncio.gather(first, *calls, return_exceptions=True)
    assert len(groups[1]) == len(tasks), "they came together"
    return answers[1:], len(groups) - 1


async def test_the_same_task_twice_in_one_group_is_stored_and_delivered_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed, other = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
    answers, tries = await stored_in_one_group(hub, monkeypatch, [sealed, sealed, other, sealed])
    assert tries == 1
    first, second, between, third = answers
    assert first == second == third
    assert between.task.task_id == other.task_id
    async with attached(hub.server, hub.lung, "Beta") as beta:
        delivered = {(await beta.accept()).run_id for _ in range(2)}
        assert delivered == {sealed.run_id("Beta"), other.run_id("Beta")}
        last = task(hub.lung, ("Beta",))
        await hub.create(last)
        assert (await beta.accept()).run_id == last.run_id("Beta")
    assert len(await hub.server.events("task.create")) == 1 + 2 + 1


async def test_of_two_tasks_under_one_id_in_one_group_one_is_stored(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed, other = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
    altered = resigned(sealed, purpose="another one")
    answers, _ = await stored_in_one_group(hub, monkeypatch, [sealed, altered, other])
    assert answers[2].task.task_id == other.task_id
    [error] = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert reason(error_from_rpc(error)) == "ID_TAKEN"
    shown = await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    kept = altered if answers.index(error) == 0 else sealed
    assert shown.chain.SerializeToString(deterministic=True) == bytes_of(kept)


async def test_a_task_whose_run_has_the_id_of_another_tasks_run_is_refused_as_a_whole(hub: Hub) -> None:
    sealed, other = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
    await hub.create(sealed)
    spec = other.spec
    spec.receivers[0].run_id = sealed.run_id("Beta")
    chain = TaskChain(specs=[sign_task(spec, hub.lung["Alpha"].organization_key.task_signing)])
    error = await refused(hub.create(SealedTask(hub.lung, chain, other.envelope)))
    assert reason(error) == "ID_TAKEN"
    assert error.metadata["task_id"] == other.task_id
    await hub.create(other)  # nothing of it was left


async def test_nobody_creates_tasks_of_another_organization(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",), initiator="Alpha")
    error = await refused(hub.create(sealed, hub.researchers["Beta"].metadata))
    assert reason(error) == "NOT_ALLOWED"
    assert [event.outcome for event in await hub.server.events("call.denied")] == ["NOT_ALLOWED"]
    assert await hub.server.events("task.create") == []


async def test_nodes_create_no_root_tasks_and_users_no_subtasks(hub: Hub) -> None:
    root = task(hub.lung, ("Beta",), initiator="Beta", grant={"subtask_depth": 1, "subtask_number": 1})
    assert reason(await refused(hub.create(root, await hub.node("Beta")))) == "NOT_ALLOWED"
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    assert reason(await refused(hub.create(below, hub.researchers["Beta"].metadata))) == "NOT_ALLOWED"


async def test_a_task_signed_by_another_key_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    sealed.chain.specs[0].signature = bytes(64)
    assert reason(await refused(hub.create(sealed))) == "SIGNATURE_INVALID"


async def test_garbage_is_refused_and_nothing_is_half_created(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    sealed.chain.specs[0].body += b"\x00"
    assert reason(await refused(hub.create(sealed))) == "MALFORMED"
    empty = pb.CreateTaskRequest(chain=TaskChain())
    assert reason(await refused(hub.tasks.CreateTask(empty, metadata=hub.ada))) == "INVALID_FIELD"
    assert (await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=hub.ada)).tasks == []


async def test_an_expired_task_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    hub.clock.ahead += 2 * (sealed.spec.expires_at.ToDatetime() - sealed.spec.created_at.ToDatetime())
    ada = await hub.server.log_in("ada@alpha")
    assert reason(await refused(hub.create(sealed, ada.metadata))) == "TASK_EXPIRED"


async def test_an_unknown_collaboration_is_not_found(hub: Hub) -> None:
    sealed = resigned(task(hub.lung, ("Beta",)), genesis=bytes(32))
    assert reason(await refused(hub.create(sealed))) == "COLLABORATION_NOT_FOUND"


# ---- inputs --------------------------------------------------------------------------------------------------------


async def test_a_task_without_its_input_is_not_created(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    call = hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
    assert reason(await refused(call)) == "PAYLOAD_NOT_FOUND"
    assert reason(await refused(hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada))) == (
        "TASK_NOT_FOUND"
    )


async def test_an_input_that_the_task_does_not_name_is_refused(hub: Hub) -> None:
    sealed, other = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
    request = sealed.request()
    request.envelopes.append(other.envelope)
    assert reason(await refused(hub.tasks.CreateTask(request, metadata=hub.ada))) == "MALFORMED"


async def test_an_input_of_another_task_is_refused(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",))
    spec = task(hub.lung, ("Beta",)).spec
    borrowed = resigned(first, task_id=spec.task_id, job_id=spec.job_id)
    assert reason(await refused(hub.create(borrowed))) == "MALFORMED"


async def test_a_large_input_does_not_ride_along(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",), content=bytes(256 * 1024))
    assert reason(await refused(hub.create(sealed))) == "TOO_LARGE"


# ---- subtasks ------------------------------------------------------------------------------------------------------

MAY: dict[str, Any] = {"grant": {"subtask_depth": 1, "subtask_number": 3}}


async def test_a_node_creates_a_subtask_of_a_run_that_it_holds(hub: Hub) -> None:
    root = task(hub.lung, ("Beta",), **MAY)
    await hub.create(root)
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.until(root, "Beta", "ASSIGNED")
        made = await hub.create(below, await hub.node("Beta"))
    assert made.task.parent_task_id == root.task_id
    assert made.task.job_id == root.task_id
    assert made.task.created_by == ""


async def test_a_subtask_that_overtakes_the_acknowledgement_of_its_run_is_created(hub: Hub) -> None:
    root = task(hub.lung, ("Beta",), **MAY)
    await hub.create(root)
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.next("assign")
        assert (await hub.run(root, "Beta")).state == RunState.RUN_STATE_PENDING
        assert (await hub.create(below, await hub.node("Beta"))).task.parent_task_id == root.task_id


async def test_a_subtask_of_another_nodes_run_is_refused(hub: Hub) -> None:
    root = task(hub.lung, ("Beta", "Gamma"), **MAY)
    await hub.create(root)
    async with attached(hub.server, hub.lung, "Gamma") as gamma:
        await gamma.accept()
        await hub.until(root, "Gamma", "ASSIGNED")
        below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
        assert reason(await refused(hub.create(below, await hub.node("Gamma")))) == "NOT_ALLOWED"


async def test_a_run_that_has_ended_makes_no_subtasks(hub: Hub) -> None:
    root = task(hub.lung, ("Beta",), **MAY)
    await hub.create(root)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.until(root, "Beta", "ASSIGNED")
        await hub.commit(root, "Beta")
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    assert reason(await refused(hub.create(below, await hub.node("Beta")))) == "TASK_ENDED"


# ---- jobs and dependencies -----------------------------------------------------------------------------------------


async def test_a_job_is_of_one_organization(hub: Hub) -> None:
    first = task(hub.lung, ("Gamma",))
    await hub.create(first)
    theirs = task(hub.lung, ("Gamma",), initiator="Beta", job_id=first.task_id)
    assert reason(await refused(hub.create(theirs, hub.researchers["Beta"].metadata))) == "TASK_NOT_FOUND"
    ours = task(hub.lung, ("Gamma",), job_id=first.task_id)
    assert (await hub.create(ours)).task.job_id == first.task_id
    listed = await hub.tasks.ListTasks(pb.ListTasksRequest(job_id=first.task_id), metadata=hub.ada)
    assert [each.task_id for each in listed.tasks] == [ours.task_id, first.task_id]


async def test_an_unknown_or_altered_dependency_is_refused(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",))
    second = task(hub.lung, ("Gamma",), after=[first])
    assert reason(await refused(hub.create(second))) == "TASK_NOT_FOUND"
    await hub.create(first)
    altered = task(hub.lung, ("Gamma",), after=[resigned(first, purpose="something else")])
    assert reason(await refused(hub.create(altered))) == "TASK_NOT_FOUND"
    await hub.create(second)


# ---- who sees what -------------------------------------------------------------------------------------------------


async def test_who_may_not_see_a_task_learns_nothing_of_it(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    stranger = await hub.server.user("eve", await hub.server.account("Elsewhere"), ["Researcher"])
    get = pb.GetTaskRequest(task_id=sealed.task_id)
    run = pb.GetRunRequest(run_id=sealed.run_id("Beta"))
    assert reason(await refused(hub.tasks.GetTask(get, metadata=stranger.metadata))) == "TASK_NOT_FOUND"
    assert reason(await refused(hub.tasks.GetRun(run, metadata=stranger.metadata))) == "RUN_NOT_FOUND"
    watch = pb.WatchTaskRequest(task_id=sealed.task_id)
    assert reason(await refused(hub.tasks.WatchTask(watch, metadata=stranger.metadata))) == "TASK_NOT_FOUND"
    assert (await hub.tasks.ListTasks(pb.ListTasksRequest(), metadata=stranger.metadata)).tasks == []
    assert (await hub.tasks.ListRuns(pb.ListRunsRequest(), metadata=stranger.metadata)).runs == []


async def test_members_see_the_collaborations_tasks_and_cancel_only_their_own(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    beta = hub.researchers["Beta"].metadata
    assert (await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=beta)).task.name == ""
    cancel = pb.CancelTaskRequest(task_id=sealed.task_id)
    assert reason(await refused(hub.tasks.CancelTask(cancel, metadata=beta))) == "TASK_NOT_FOUND"
    assert reason(await refused(hub.tasks.CancelTask(cancel, metadata=hub.admins["Beta"].metadata))) == "TASK_NOT_FOUND"
    await hub.tasks.CancelTask(cancel, metadata=hub.admins["Alpha"].metadata)  # an admin of the organization


async def test_lists_come_in_pages_newest_first(hub: Hub) -> None:
    made = [task(hub.lung, ("Beta",)) for _ in range(5)]
    for each in made:
        await hub.create(each)
    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListTasksRequest(page_size=2, page_token=token, genesis=hub.lung.genesis)
        page = await hub.tasks.ListTasks(request, metadata=hub.ada)
        seen += [each.task_id for each in page.tasks]
        if not (token := page.next_page_token):
            break
    assert seen == [each.task_id for each in reversed(made)]
    wrong = hub.tasks.ListRuns(pb.ListRunsRequest(page_token="never given"), metadata=hub.ada)
    assert reason(await refused(wrong)) == "PAGE_TOKEN_INVALID"
    beta = hub.lung["Beta"].address
    pending = pb.ListRunsRequest(organization_id=beta, state=RunState.RUN_STATE_PENDING, page_size=3)
    runs = await hub.tasks.ListRuns(pending, metadata=hub.ada)
    assert len(runs.runs) == 3
    assert runs.next_page_token


async def test_results_go_to_members_only(hub: Hub) -> None:
    foreign = resigned(task(hub.lung, ("Beta",)), result_receivers=["a" * 56])
    assert reason(await refused(hub.create(foreign))) == "NOT_A_MEMBER"


async def test_a_task_from_the_future_is_refused(hub: Hub) -> None:
    early = resigned(task(hub.lung, ("Beta",)), created_at=timestamp(hub.lung.now + timedelta(hours=1)))
    assert reason(await refused(hub.create(early))) == "MALFORMED"


async def test_task_that_rests_on_entries_which_the_server_has_lost_is_told_to_come_again(hub: Hub) -> None:
    hub.lung.vote("Alpha", hub.lung.join_request(organization("Delta")))
    sealed = task(hub.lung, ("Beta",))
    error = await refused(hub.create(sealed))
    assert (reason(error), error.metadata["sequence"]) == ("LEDGER_STALE", str(hub.lung.state.position.sequence))
    await hub.server.append(hub.lung.entries[-1], hub.admins["Gamma"])
    await hub.create(sealed)
