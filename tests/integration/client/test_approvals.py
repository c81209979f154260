"""What people at a station decided about a run, as the client shows it: verified again, with the proof, and in words while it waits."""

import json
import logging

import pytest

from folkmoot.client import RunState
from folkmoot.client.proofs import export_proof
from folkmoot.trust import SigningKey, verify_proof
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import ApprovalSubject, Waiting, WaitReason
from folkmoot.v1.task_pb2 import RunState as Told
from tests.integration.client.conftest import Command, Hub
from tests.integration.harness import utc_now
from tests.integration.stub_node import StubNode
from tests.polling import until

IMAGE = "process:examples.average"
RUN, RELEASE = ApprovalSubject.APPROVAL_SUBJECT_RUN, ApprovalSubject.APPROVAL_SUBJECT_RELEASE


async def test_who_approved_a_run_is_shown_and_proven(hub: Hub, alpha: Command):
    client = hub.client("Alpha")
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        task = await client.tasks.create(image=IMAGE, function="average", organizations=["Beta"], labels=["patients"])
        work = await beta.next()
        work.decide(RUN, approve=True)
        work.decide(RELEASE, approve=True, approved_by="heidi")
        await work.complete(1)
        await task.wait(progress=False)
    [run] = await task.runs
    assert [(one.subject, one.approved, one.approved_by, one.node, one.attempt) for one in run.approvals] == [
        ("run", True, "grace", "beta-1", 1),
        ("release", True, "heidi", "beta-1", 1),
    ]
    assert str(run.approvals[1]).startswith("result released by heidi (beta-1, ")
    proof = verify_proof((await export_proof(client.connection, task.id)).data, expected=hub.lung.state.reference)
    [proven] = proof.tasks[0].runs
    assert [approval.approved_by for approval in proven.approvals] == ["grace", "heidi"]
    ended = await alpha("task", "show", task.id)
    assert "approved by grace (beta-1" in ended.output, ended
    [row] = json.loads((await alpha("task", "show", task.id, "--json")).output)
    assert [one["approved_by"] for one in row["approvals"]] == ["grace", "heidi"]


async def test_approval_that_the_server_made_up_is_not_shown(
    hub: Hub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("folkmoot.server.tasks.commits._check_approvals", lambda *_: None)
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        task = await hub.client("Alpha").tasks.create(
            image=IMAGE, function="average", organizations=["Beta"], labels=["p"]
        )
        work = await beta.next()
        work.decide(RUN, approve=True, node_key=hub.lung["Gamma"].nodes["gamma-1"])
        work.decide(RUN, approve=True, node_key=SigningKey.generate(bytes))
        work.decide(RUN, approve=True, task_digest=bytes(32))
        await work.complete(1)
        await task.wait(progress=False)
    with caplog.at_level(logging.WARNING):
        [run] = await task.runs
    assert run.approvals == ()
    assert run.state is RunState.COMPLETED
    assert sum("an approval of run" in record.getMessage() for record in caplog.records) == 3


async def test_what_was_declined_says_who_declined_it(hub: Hub, alpha: Command):
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        task = await hub.client("Alpha").tasks.create(
            image=IMAGE, function="average", organizations=["Beta"], labels=["p"]
        )
        work = await beta.next()
        work.decide(RUN, approve=False)
        await work.refuse(ErrorReason.ERROR_REASON_APPROVAL_DECLINED)
        await task.wait(progress=False)
    [run] = await task.runs
    assert [str(one).partition(" (")[0] for one in run.approvals] == ["declined by grace"]
    [why] = await task.why()
    assert (why.reason, bool(why.proven)) == ("APPROVAL_DECLINED", True)
    assert "APPROVAL_DECLINED" in (await alpha("task", "why", task.id)).output


@pytest.mark.parametrize(
    ("state", "waiting", "words"),
    [
        (
            "AWAITING_APPROVAL",
            Waiting(reason=WaitReason.WAIT_REASON_APPROVAL),
            "waits for a person at the station, who approves",
        ),
        ("AWAITING_APPROVAL", None, "waits for a person at the station, who approves"),
        ("HELD", Waiting(reason=WaitReason.WAIT_REASON_APPROVAL), "who looks at it before it leaves"),
        ("HELD", None, "who looks at it before it leaves"),
        (
            "ASSIGNED",
            Waiting(reason=WaitReason.WAIT_REASON_OPENING_HOURS, detail="Mon-Fri 08:00-18:00"),
            "opening hours (Mon-Fri",
        ),
        ("ASSIGNED", Waiting(reason=WaitReason.WAIT_REASON_PAUSED), "which is paused"),
        ("PREPARING", Waiting(reason=WaitReason.WAIT_REASON_IMAGE), "fetches the image"),
    ],
)
async def test_why_says_for_whom_a_run_waits(hub: Hub, alpha: Command, state: str, waiting: Waiting | None, words: str):
    if waiting is not None:
        waiting.since.FromDatetime(utc_now())
    async with StubNode(hub.server, hub.lung, "Beta") as beta:
        task = await hub.client("Alpha").tasks.create(
            image=IMAGE, function="average", organizations=["Beta"], labels=["p"]
        )
        work = await beta.next()
        await work.update(state=Told.Value(f"RUN_STATE_{state}"), waiting=waiting)

        async def told() -> bool:
            [why] = await task.why()
            return why.state == RunState(state) and words in why.text

        await until(told)
        assert words in (await alpha("task", "why", task.id)).output
        await work.complete(1)
