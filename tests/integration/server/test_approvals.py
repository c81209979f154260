"""Approvals come with the run's end: what people at its station decided, for this run and attempt, and nothing else."""

from typing import Any

import pytest

from folkmoot.trust import SigningKey, make_approval
from folkmoot.v1 import task_service_pb2 as pb
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import ApprovalSubject
from tests.integration.harness import reason, refused
from tests.integration.server.conftest import Hub
from tests.integration.server.links import attached
from tests.integration.server.sealed import SealedTask, task

RUN, RELEASE = ApprovalSubject.APPROVAL_SUBJECT_RUN, ApprovalSubject.APPROVAL_SUBJECT_RELEASE


def approval(hub: Hub, sealed: SealedTask, *, node_key: SigningKey | None = None, **changes: Any) -> Signed:
    wish: dict[str, Any] = {
        "genesis": hub.lung.genesis,
        "task_digest": sealed.digest,
        "run_id": sealed.run_id("Beta"),
        "attempt": 1,
        "subject": RUN,
        "decision": Decision.DECISION_APPROVE,
        "approved_by": "grace",
        "now": hub.lung.now,
        "node_key": node_key or hub.lung["Beta"].nodes["beta-1"],
    }
    return make_approval(**(wish | changes))


async def assigned(hub: Hub, *receivers: str, **changes: Any) -> SealedTask:
    sealed = task(hub.lung, receivers or ("Beta",), **changes)
    await hub.create(sealed)
    async with attached(hub.server, hub.lung, "Beta") as beta:
        await beta.accept()
        await hub.until(sealed, "Beta", "ASSIGNED")
    return sealed


async def commit(hub: Hub, sealed: SealedTask, *approvals: Signed, outcome: str = "COMPLETED", **changes: Any) -> Any:
    request = sealed.commit("Beta", outcome, **changes)
    request.approvals.extend(approvals)
    return await hub.tasks.CommitRun(request, metadata=await hub.node("Beta"))


@pytest.mark.both_databases
async def test_approvals_are_shown_with_the_run(hub: Hub) -> None:
    sealed = await assigned(hub)
    decided = [approval(hub, sealed), approval(hub, sealed, subject=RELEASE)]
    answer = await commit(hub, sealed, *decided)
    assert list(answer.run.approvals) == decided
    assert list((await hub.run(sealed, "Beta")).approvals) == decided
    shown = await hub.tasks.GetTask(pb.GetTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert list(shown.runs[0].approvals) == decided
    watching = hub.tasks.WatchTask(pb.WatchTaskRequest(task_id=sealed.task_id), metadata=hub.ada)
    assert [list(change.run.approvals) async for change in watching] == [decided]


async def test_a_run_without_approvals_has_none(hub: Hub) -> None:
    sealed = await assigned(hub)
    assert not (await commit(hub, sealed)).run.approvals


async def test_what_was_declined_is_shown_with_the_refusal(hub: Hub) -> None:
    sealed = await assigned(hub)
    declined = approval(hub, sealed, decision=Decision.DECISION_DECLINE)
    answer = await commit(hub, sealed, declined, outcome="REFUSED", reason=100, image_id="", started_at=None)
    assert list(answer.run.approvals) == [declined]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"run_id": "01890000-0000-7000-8000-00000000ffff"}, "MALFORMED"),
        ({"task_digest": bytes(32)}, "MALFORMED"),
        ({"attempt": 2}, "MALFORMED"),
    ],
)
async def test_an_approval_of_something_else_is_refused_and_the_run_stays_open(
    hub: Hub, changes: dict[str, Any], expected: str
) -> None:
    sealed = await assigned(hub)
    error = await refused(commit(hub, sealed, approval(hub, sealed, **changes)))
    assert reason(error) == expected
    assert await hub.state(sealed, "Beta") == "ASSIGNED"
    await commit(hub, sealed, approval(hub, sealed))


async def test_an_approval_of_another_attempt_is_refused(hub: Hub) -> None:
    sealed = await assigned(hub, max_attempts=2)
    error = await refused(commit(hub, sealed, approval(hub, sealed, attempt=2)))
    assert reason(error) == "MALFORMED"


async def test_nobody_approves_for_another_organization(hub: Hub) -> None:
    sealed = await assigned(hub, "Beta", "Gamma")
    foreign = approval(hub, sealed, node_key=hub.lung["Gamma"].nodes["gamma-1"])
    assert reason(await refused(commit(hub, sealed, foreign))) == "MALFORMED"


async def test_a_sister_node_does_not_approve_what_this_one_executed(hub: Hub) -> None:
    sealed = await assigned(hub)
    sister = hub.lung.add_node("Beta", "beta-2")
    await hub.server.append(hub.lung.entries[-1], hub.admins["Beta"])
    error = await refused(commit(hub, sealed, approval(hub, sealed, node_key=sister)))
    assert reason(error) == "MALFORMED"


async def test_a_forged_approval_is_refused(hub: Hub) -> None:
    sealed = await assigned(hub)
    forged = approval(hub, sealed)
    forged.signature = bytes(64)
    assert reason(await refused(commit(hub, sealed, forged))) == "SIGNATURE_INVALID"
