"""A server that claims that somebody has approved: nobody's word but the data owner's policy lets a run start or its result leave.

A node takes a person's decision at its own station alone, from no server; and an approval counts for a reader only if a node of the run's own
organization has signed it. Who notices: the node, which refuses as its policy says, and logs what it does not know; whoever verifies a proof.
What is stored: the refusal.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from structlog.testing import capture_logs

from folkmoot.client.results import RunState as Told
from folkmoot.trust import ProofInvalid, digest, serialize, sign, timestamp, verify_proof
from folkmoot.trust.proof_format import MAGIC
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Assign, ServerFrame
from folkmoot.v1.proof_pb2 import Proof
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject, RunState
from folkmoot.v1.task_service_pb2 import AttachResponse, GetTaskResponse
from tests.hostile.liar import Lie
from tests.hostile.misleading import misled, on_assign, overheard
from tests.hostile.protections import DATA_OWNERS_POLICY, STATIONS_APPROVALS
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now
from tests.integration.network import POLICY
from tests.polling import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def approval(stage: Stage, run_id: str, task_digest: bytes) -> Signed:
    """That the run may start, signed by a node of another organization: no station says so but the run's own."""
    decided = Approval(
        version=1,
        genesis=stage.world.genesis,
        task_digest=task_digest,
        run_id=run_id,
        attempt=1,
        subject=ApprovalSubject.APPROVAL_SUBJECT_RUN,
        decision=Decision.DECISION_APPROVE,
        approved_by="the data owner",
        time=timestamp(utc_now()),
    )
    kind, key = SignedKind.SIGNED_KIND_APPROVAL, stage.world["Alpha"].nodes["alpha-1"]
    return sign(kind, serialize(decided), key=key, genesis=stage.world.genesis)


def of_a_later_release(signed: Signed) -> bytes:
    """A field that this release has in no message, with that in it."""
    body = signed.SerializeToString()
    return bytes([15 << 3 | 2]) + varint(len(body)) + body


def varint(number: int) -> bytes:
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


@contextmanager
def refusing(stage: Stage, organization: str) -> Iterator[None]:
    """While the data owner lets nobody compute."""
    path, node = stage.net.node_folder(organization) / "policy.toml", stage.node(organization)
    path.write_text(POLICY.replace('initiators = ["*"]', 'initiators = ["Nobody"]'))
    node.reload_policies()
    try:
        yield
    finally:
        path.write_text(POLICY)
        node.reload_policies()


def approving(stage: Stage) -> Callable[[Assign], None]:
    """The approval comes with the run."""

    def approve(assign: Assign) -> None:
        signed = approval(stage, assign.run_id, digest(assign.chain.specs[-1].body))
        assign.MergeFromString(of_a_later_release(signed))
        assert of_a_later_release(signed) in assign.SerializeToString()

    return approve


def claiming(stage: Stage, run_id: str, task_digest: bytes) -> Lie:
    """The approval comes by itself, as news and as a delivery of a kind of its own; so goes the server's next task."""
    told = of_a_later_release(approval(stage, run_id, task_digest))

    def lie(answer: AttachResponse) -> list[AttachResponse] | None:
        if not answer.frame.HasField("assign"):
            return None
        delivery = ServerFrame(sequence=answer.frame.sequence)
        delivery.MergeFromString(told)
        return [AttachResponse(frame=ServerFrame.FromString(told)), AttachResponse(frame=delivery)]

    return lie


async def test_nothing_that_the_server_sends_approves_a_run(stage: Stage):
    """It comes with the run, as news, as a delivery, and with the run once more."""
    before = stage.before("Beta")
    with refusing(stage, "Beta"):
        with before.answers("Attach", on_assign("overheard", approving(stage))), capture_logs() as said:
            task, assign = await overheard(stage, "Beta", "Beta")
            result = await stage.result(task, "Beta")
            assert (result.state, reason_name(result.reason), bool(result.proven)) == (
                "REFUSED",
                "INITIATOR_NOT_ALLOWED",
                True,
            )
            with before.answers("Attach", claiming(stage, assign.run_id, task.digest)):
                await stage.ask("Beta")
                await until(lambda: "link.delivery_unknown" in [each["event"] for each in said])
            assert "link.frame_unknown" in [each["event"] for each in said]
            await misled(stage, "Beta", lambda given: given.CopyFrom(assign))
        run = await stage.journaled("Beta", assign.run_id)
        assert (run.receipt.outcome, run.record.started_at_us) == (RunState.RUN_STATE_REFUSED, 0)
        assert not await stage.record("Beta", assign.run_id, attempt=2)

        with without(DATA_OWNERS_POLICY):
            await stage.works("Beta")
    await stage.works("Beta")


async def test_that_a_run_awaits_somebodys_approval_is_the_servers_word(stage: Stage):
    """The server hides that it has the result, and says that Beta's people have not looked yet."""
    task = await stage.ask("Beta")
    assert (await stage.result(task, "Beta")).value == 42

    def claim(answer: GetTaskResponse) -> None:
        for run in answer.runs:
            run.state = RunState.RUN_STATE_AWAITING_APPROVAL
            run.ClearField("receipt")

    with stage.before("client").answers("GetTask", claim):
        (run,) = await task.runs
        assert (run.state, str(run.proven)) == (Told.AWAITING_APPROVAL, "server says")
    (run,) = await task.runs
    assert (run.state, str(run.proven)) == (Told.COMPLETED, "proven")


async def test_a_proof_with_an_approval_of_another_station_is_none(stage: Stage):
    """Of whoever hands the file on, be it another member: only the run's own station speaks of what its people decided."""
    task = await stage.ask("Beta")
    run_id, result = stage.run_id(task, "Beta"), await stage.result(task, "Beta")
    assert result.value == 42
    exported = await stage.client.export_proof(task.id)
    assert verify_proof(exported, expected=None).tasks
    claimed = Proof.FromString(exported.removeprefix(MAGIC))
    claimed.tasks[0].approvals.append(approval(stage, run_id, task.digest))
    file = MAGIC + serialize(claimed)

    with pytest.raises(ProofInvalid) as caught:
        verify_proof(file, expected=None)
    assert caught.value.metadata["part"] == f"approval of Beta for run {run_id}: node"

    with without(STATIONS_APPROVALS):
        assert verify_proof(file, expected=None).tasks
