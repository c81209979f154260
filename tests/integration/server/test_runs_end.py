"""How runs end: by one receipt, by cancellation, by time; once, and for ever."""

from datetime import timedelta
from typing import Any

import pytest

from folkmoot.trust import SigningKey, timestamp
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import LedgerEntry, OrganizationVote
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import RunState, TaskState, WaitReason
from tests import builders
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, task

pytestmark = pytest.mark.both_databases


async def assign(hub: Hub, sealed: SealedTask, *organizations: str) -> None:
    """Create a task and have nodes accept its runs."""
    await hub.create(sealed)
    for organization in organizations:
        async with attached(hub.server, hub.lung, organization) as station:
            await station.accept()
            await hub.until(sealed, organization, "ASSIGNED")


async def result_of(hub: Hub, sealed: SealedTask, organization: str, by: str = "Alpha") -> bytes:
    request = pb.GetRunRequest(run_id=sealed.run_id(organization))
    return (await hub.tasks.GetRun(request, metadata=hub.researchers[by].metadata)).result_envelope


# ---- receipts ------------------------------------------------------------------------------------------------------


async def test_receipt_and_result_end_a_run(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    request = sealed.commit("Beta")
    answer = await hub.tasks.CommitRun(request, metadata=await hub.node("Beta"))
    assert answer.run.state == RunState.RUN_STATE_COMPLETED
    assert answer.run.receipt == request.receipt
    assert answer.run.result_size_bytes == len(request.envelope)
    assert await result_of(hub, sealed, "Beta") == request.envelope
    [event] = await hub.server.events("run.commit")
    assert sealed.run_id("Beta") in event.data
    assert "COMPLETED" in event.data


async def test_only_organizations_that_receive_the_result_are_shown_it(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    await hub.commit(sealed, "Beta")
    assert await result_of(hub, sealed, "Beta", by="Gamma") == b""
    watching = hub.tasks.WatchTask(
        pb.WatchTaskRequest(task_id=sealed.task_id), metadata=hub.researchers["Gamma"].metadata
    )
    assert [change.result_envelope async for change in watching] == [b""]


async def test_a_repeated_commit_gets_the_first_answer(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    request, beta = sealed.commit("Beta"), await hub.node("Beta")
    first = await hub.tasks.CommitRun(request, metadata=beta)
    assert await hub.tasks.CommitRun(request, metadata=beta) == first
    assert len(await hub.server.events("run.commit")) == 1


async def test_a_result_is_never_replaced(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    await hub.commit(sealed, "Beta", content=b"the first")
    first = await result_of(hub, sealed, "Beta")
    for outcome in ("COMPLETED", "FAILED", "CANCELLED"):
        request = sealed.commit("Beta", outcome, content=b"another")
        error = await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))
        assert reason(error) == "RUN_CONFLICT"
    assert await result_of(hub, sealed, "Beta") == first
    assert await hub.state(sealed, "Beta") == "COMPLETED"


async def test_a_commit_that_overtakes_its_acknowledgement_stands(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.next("assign")
        run = await hub.commit(sealed, "Beta")
        assert run.HasField("assigned_at")
        await beta.acknowledge()
        other = task(hub.lung, ("Beta",))
        await hub.create(other)
        await beta.accept()
        await hub.until(other, "Beta", "ASSIGNED")
    assert await hub.state(sealed, "Beta") == "COMPLETED"


async def test_another_node_of_the_organization_commits_nothing(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    other = hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.admins["Beta"])
    request = sealed.commit("Beta", node_key=other)
    error = await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta", "beta-2")))
    assert reason(error) == "RUN_CONFLICT"
    assert await hub.state(sealed, "Beta") == "ASSIGNED"


async def test_a_receipt_brought_by_another_node_than_its_own_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    error = await refused(hub.tasks.CommitRun(sealed.commit("Beta"), metadata=await hub.node("Gamma")))
    assert reason(error) == "RUN_CONFLICT"


async def test_a_node_commits_no_receipt_of_a_sister_node(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    sister = hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.admins["Beta"])
    request = sealed.commit("Beta", node_key=sister)
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))) == "RUN_CONFLICT"


async def test_a_receipt_of_another_attempt_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",), max_attempts=2)
    await assign(hub, sealed, "Beta")
    request = sealed.commit("Beta", attempt=2)
    error = await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))
    assert reason(error) == "RUN_CONFLICT"


async def test_a_forged_receipt_is_refused(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    request = sealed.commit("Beta")
    request.receipt.signature = bytes(64)
    error = await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))
    assert reason(error) == "SIGNATURE_INVALID"
    stranger = SigningKey.generate(hub.lung.random)
    foreign = sealed.commit("Beta", node_key=stranger)
    error = await refused(hub.tasks.CommitRun(foreign, metadata=await hub.node("Beta")))
    assert reason(error) == "NODE_NOT_APPROVED"


async def test_the_result_must_be_the_one_that_the_receipt_names(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    beta = await hub.node("Beta")
    request = sealed.commit("Beta")
    request.envelope = sealed.seal("Beta")[0]
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=beta))) == "MALFORMED"
    request.envelope = b""
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=beta))) == "PAYLOAD_NOT_FOUND"
    assert await hub.state(sealed, "Beta") == "ASSIGNED"


async def test_a_result_of_another_run_is_refused(hub: Hub) -> None:
    ours, other = task(hub.lung, ("Beta",)), task(hub.lung, ("Beta",))
    await assign(hub, ours, "Beta")
    envelope, named = other.seal("Beta")
    request = ours.commit("Beta", result_digest=named)
    request.envelope = envelope
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))) == "MALFORMED"


async def test_that_a_run_has_expired_is_not_for_nodes_to_say(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    request = sealed.commit("Beta", "EXPIRED")
    assert reason(await refused(hub.tasks.CommitRun(request, metadata=await hub.node("Beta")))) == "MALFORMED"


async def test_a_refusal_is_shown_with_its_rule(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    why: dict[str, Any] = {"reason": ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, "rule": "images"}
    run = await hub.commit(sealed, "Beta", "REFUSED", **why)
    assert (run.reason, run.rule) == (ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, "images")
    shown = await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert shown.task.state == TaskState.TASK_STATE_FAILED


# ---- cancelling ----------------------------------------------------------------------------------------------------


async def cancel(hub: Hub, sealed: SealedTask) -> pb.CancelTaskResponse:
    return await hub.tasks.CancelTask(pb.CancelTaskRequest(task_id=sealed.task_id), metadata=hub.ada)


async def test_what_no_node_has_is_cancelled_at_once_and_never_starts(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    answer = await cancel(hub, sealed)
    assert answer.task.state == TaskState.TASK_STATE_CANCELLED
    assert answer.runs[0].reason == ErrorReason.ERROR_REASON_CANCELLED
    async with attached(hub.server, hub.lung, "Beta") as beta:
        assert (await beta.next("cancel")).run_id == sealed.run_id("Beta")  # in the place of the assignment
        assert (await beta.accept("cancel")).run_id == sealed.run_id("Beta")
    assert await hub.state(sealed, "Beta") == "CANCELLED"
    [event] = await hub.server.events("task.cancel")
    assert sealed.task_id in event.data


async def test_an_assignment_under_way_is_followed_by_its_cancellation(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.next("assign")
        await cancel(hub, sealed)
        await beta.accept("cancel")
        late = sealed.commit("Beta")
        error = await refused(hub.tasks.CommitRun(late, metadata=await hub.node("Beta")))
    assert reason(error) == "RUN_CONFLICT"


async def test_a_node_ends_what_it_holds_when_it_is_asked_to(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.until(sealed, "Beta", "ASSIGNED")
        answer = await cancel(hub, sealed)
        assert answer.runs[0].state == RunState.RUN_STATE_ASSIGNED
        assert (await beta.accept("cancel")).run_id == sealed.run_id("Beta")
        run = await hub.commit(sealed, "Beta", "CANCELLED")
    assert run.state == RunState.RUN_STATE_CANCELLED
    assert (await cancel(hub, sealed)).task.state == TaskState.TASK_STATE_CANCELLED


async def test_a_result_that_arrives_before_the_cancellation_wins(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await assign(hub, sealed, "Beta")
    await cancel(hub, sealed)
    await hub.commit(sealed, "Beta")
    assert await hub.state(sealed, "Beta") == "COMPLETED"
    late = sealed.commit("Beta", "CANCELLED")
    assert reason(await refused(hub.tasks.CommitRun(late, metadata=await hub.node("Beta")))) == "RUN_CONFLICT"


async def test_cancelling_reaches_the_whole_tree_and_nothing_new_grows_on_it(hub: Hub) -> None:
    may: dict[str, Any] = {"grant": {"subtask_depth": 2, "subtask_number": 2}}
    root = task(hub.lung, ("Beta",), **may)
    await assign(hub, root, "Beta")
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"), grant={"subtask_depth": 1, "subtask_number": 1})
    await assign_subtask(hub, below, "Beta", "Gamma")
    lowest = task(hub.lung, ("Beta",), parent=(below, "Gamma"))
    await hub.create(lowest, await hub.node("Gamma"))
    await cancel(hub, root)
    assert await hub.state(lowest, "Beta") == "CANCELLED"
    async with attached(hub.server, hub.lung, "Gamma", acknowledged=1) as gamma:
        await gamma.next("cancel")
    late = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    assert reason(await refused(hub.create(late, await hub.node("Beta")))) == "TASK_ENDED"


async def assign_subtask(hub: Hub, below: SealedTask, creator: str, receiver: str) -> None:
    await hub.create(below, await hub.node(creator))
    async with attached(hub.server, hub.lung, receiver) as station:
        await station.accept()
        await hub.until(below, receiver, "ASSIGNED")


async def test_a_node_cancels_subtasks_of_runs_that_it_holds_and_no_others(hub: Hub) -> None:
    root = task(hub.lung, ("Beta",), grant={"subtask_depth": 1, "subtask_number": 2})
    await assign(hub, root, "Beta")
    below = task(hub.lung, ("Gamma",), parent=(root, "Beta"))
    await hub.create(below, await hub.node("Beta"))
    request = pb.CancelTaskRequest(task_id=below.task_id)
    assert reason(await refused(hub.tasks.CancelTask(request, metadata=await hub.node("Gamma")))) == "TASK_NOT_FOUND"
    answer = await hub.tasks.CancelTask(request, metadata=await hub.node("Beta"))
    assert answer.task.state == TaskState.TASK_STATE_CANCELLED
    whole = pb.CancelTaskRequest(task_id=root.task_id)
    assert reason(await refused(hub.tasks.CancelTask(whole, metadata=await hub.node("Beta")))) == "TASK_NOT_FOUND"


# ---- dependencies --------------------------------------------------------------------------------------------------


async def test_a_dependant_is_delivered_with_the_last_result_it_waited_for(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",))
    second = task(hub.lung, ("Gamma",), job_id=first.task_id)
    third = task(hub.lung, ("Alpha", "Beta"), after=[first, second])
    await assign(hub, first, "Beta")
    await assign(hub, second, "Gamma")
    await hub.create(third)
    assert (await hub.run(third, "Alpha")).waiting.reason == WaitReason.WAIT_REASON_DEPENDENCY
    async with attached(hub.server, hub.lung, "Alpha") as alpha:
        await hub.commit(first, "Beta")
        assert (await hub.run(third, "Alpha")).waiting.reason == WaitReason.WAIT_REASON_DEPENDENCY
        await hub.commit(second, "Gamma")
        assert (await alpha.accept()).run_id == third.run_id("Alpha")


async def test_a_dependant_of_what_is_completed_starts_at_once(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",))
    await assign(hub, first, "Beta")
    await hub.commit(first, "Beta")
    second = task(hub.lung, ("Beta",), after=[first])
    await hub.create(second)
    async with attached(hub.server, hub.lung, "Beta", acknowledged=1) as beta:
        assert (await beta.accept()).run_id == second.run_id("Beta")


@pytest.mark.parametrize("outcome", ["FAILED", "CANCELLED"])
async def test_what_depends_on_a_failure_is_cancelled_and_what_depends_on_that(hub: Hub, outcome: str) -> None:
    first = task(hub.lung, ("Beta",))
    second = task(hub.lung, ("Gamma",), after=[first])
    third = task(hub.lung, ("Alpha",), job_id=first.task_id, after=[second])
    await assign(hub, first, "Beta")
    await hub.create(second)
    await hub.create(third)
    await hub.commit(first, "Beta", outcome)
    for sealed, organization in ((second, "Gamma"), (third, "Alpha")):
        run = await hub.run(sealed, organization)
        assert run.state == RunState.RUN_STATE_CANCELLED
        assert run.reason == ErrorReason.ERROR_REASON_DEPENDENCY_FAILED
    late = task(hub.lung, ("Gamma",), after=[first])
    answer = await hub.create(late)
    assert answer.runs[0].reason == ErrorReason.ERROR_REASON_DEPENDENCY_FAILED


async def test_cancelling_a_task_cancels_what_depends_on_it(hub: Hub) -> None:
    first = task(hub.lung, ("Beta",))
    second = task(hub.lung, ("Gamma",), after=[first])
    await hub.create(first)
    await hub.create(second)
    await cancel(hub, first)
    assert (await hub.run(second, "Gamma")).reason == ErrorReason.ERROR_REASON_DEPENDENCY_FAILED


# ---- time ----------------------------------------------------------------------------------------------------------


async def test_a_run_that_nobody_accepts_in_time_expires(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta", "Gamma"))
    await assign(hub, sealed, "Gamma")
    hub.clock.ahead += timedelta(days=2)
    await hub.server.running.dispatch.sweep()
    hub.researchers["Alpha"] = await hub.server.log_in("ada@alpha")
    run = await hub.run(sealed, "Beta")
    assert run.state == RunState.RUN_STATE_EXPIRED
    assert run.reason == ErrorReason.ERROR_REASON_TASK_EXPIRED
    assert await hub.state(sealed, "Gamma") == "ASSIGNED"  # it is the node's
    await hub.commit(sealed, "Gamma")


async def test_a_late_acknowledgement_does_not_revive_an_expired_run(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.next("assign")
        hub.clock.ahead += timedelta(days=2)
        await hub.server.running.dispatch.sweep()
        await beta.accept("cancel")
        hub.researchers["Alpha"] = await hub.server.log_in("ada@alpha")
        late = sealed.commit("Beta")
        error = await refused(hub.tasks.CommitRun(late, metadata=await hub.node("Beta")))
    assert reason(error) == "RUN_CONFLICT"
    assert await hub.state(sealed, "Beta") == "EXPIRED"


# ---- why -----------------------------------------------------------------------------------------------------------


async def test_waiting_says_since_when_the_node_is_away(hub: Hub) -> None:
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.leave()
    await hub.settled()
    hub.clock.ahead += timedelta(minutes=5)
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    waiting = (await hub.run(sealed, "Beta")).waiting
    assert waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
    assert waiting.since.ToDatetime() < timestamp(hub.clock() - timedelta(minutes=4)).ToDatetime()


async def test_a_run_that_its_node_holds_says_when_that_is_away(hub: Hub) -> None:
    sealed = task(hub.lung, ("Beta",))
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.until(sealed, "Beta", "ASSIGNED")
        await beta.leave()
    await hub.settled()
    run = await hub.run(sealed, "Beta")
    assert run.state == RunState.RUN_STATE_ASSIGNED
    assert run.waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE


async def test_an_organization_without_a_node_says_so_until_one_attaches(hub: Hub) -> None:
    delta = builders.organization("Delta")
    lung, count = hub.lung, len(hub.lung.entries)
    lung.join(delta)
    hub.admins["Delta"] = await hub.server.organization_admin("Delta")
    await hub.server.submit_join_request(_request_of(lung.entries[count]), hub.admins["Delta"])
    voters = [name for name in lung.organizations if name != "Delta"]
    for voter, entry in zip(voters, lung.entries[count:], strict=False):
        await hub.server.append(entry, hub.admins[voter])
    sealed = task(lung, ("Delta",))
    await hub.create(sealed)
    assert (await hub.run(sealed, "Delta")).waiting.reason == WaitReason.WAIT_REASON_NO_NODE
    lung.add_node("Delta", "delta-1")
    await hub.server.append(lung.entries[-1], hub.admins["Delta"])
    assert (await hub.run(sealed, "Delta")).waiting.reason == WaitReason.WAIT_REASON_NODE_OFFLINE
    async with attached(hub.server, lung, "Delta") as station:
        assert (await station.accept()).run_id == sealed.run_id("Delta")


def _request_of(entry: Signed) -> Signed:
    return OrganizationVote.FromString(LedgerEntry.FromString(entry.body).data).join_request
