"""A server that alters, swaps, replays, withholds and invents results: a client believes what the executing node signed, or nothing.

Who notices: the researcher's client. What it sees: a result whose `problem` says what is wrong (the cause of a rejected envelope stands
in the local log), or one on the server's word alone, marked so. What is stored: the honest server still has what the node committed,
and hands it out as soon as nobody lies.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from folkmoot.algorithm import values
from folkmoot.client import FolkmootError
from folkmoot.client.results import Result
from folkmoot.client.task import AsyncTask
from folkmoot.trust import EnvelopeRejected, SigningKey, digest, seal_bytes, sign, timestamp
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import SignedKind
from folkmoot.v1.task_pb2 import Receipt, Run, RunState
from folkmoot.v1.task_service_pb2 import WatchTaskResponse
from tests.builders import world
from tests.hostile.liar import Lie
from tests.hostile.protections import RESULT_PLACE, RUNS_PLACE, SIGNED_RECEIPTS, UNPROVEN_IS_NOT_TRUE
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(stage: Stage) -> AsyncTask:
    """A task that Beta (2 x 21) and Gamma (2 x 4) have completed."""
    task = await stage.ask("Beta", "Gamma", arguments_by_organization={"Gamma": {"number": 4}})
    assert [each.value for each in await task.wait(progress=False)] == [42, 8]
    return task


async def seen(stage: Stage, task: AsyncTask, organization: str = "Beta") -> Result:
    """What a client makes of a run that it has not seen before."""
    return await stage.result(await stage.client.tasks.get(task.id), organization)


def telling(
    stage: Stage, task: AsyncTask, change: Callable[[WatchTaskResponse], None], organization: str = "Beta"
) -> Lie:
    """Change what is told of an organization's run."""
    run_id = stage.run_id(task, organization)

    def lie(answer: WatchTaskResponse) -> None:
        if answer.run.run_id == run_id:
            change(answer)

    return lie


async def undisturbed(stage: Stage, task: AsyncTask) -> None:
    """Nothing was lost: who asks again, and is not lied to, gets everything."""
    assert (await seen(stage, task)).value == 42
    assert (await seen(stage, task, "Gamma")).value == 8


# ---- genuine, but of another place -----------------------------------------------------------------------------------

ELSEWHERE: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "task": lambda stage: {"task_id": "01a1f8ae-9c74-77a1-bbf3-915f66477273", "task_digest": digest(b"another task")},
    "run": lambda stage: {"run_id": "01a1f8ae-9c74-77a1-bbf3-915f66477274"},
    "attempt": lambda stage: {"attempt": 2},
    "organization": lambda stage: {"sender_organization_id": stage.world["Gamma"].address},
    "direction": lambda stage: {"kind": EnvelopeKind.ENVELOPE_KIND_FAILURE},
    "collaboration": lambda stage: {"genesis": world(nodes=False, name="heart").genesis},
}


@pytest.mark.parametrize("field", ELSEWHERE)
async def test_a_result_from_elsewhere_is_rejected(
    stage: Stage, done: AsyncTask, field: str, caplog: pytest.LogCaptureFixture
):
    """Sealed to Alpha and signed by a node, all of it genuine; but not what this run gave."""
    changes = ELSEWHERE[field](stage)
    signer = "Gamma" if field == "organization" else "Beta"
    genuine = sealed_elsewhere(stage, done, signer, 666, **changes)
    lie = telling(stage, done, lambda told: setattr(told, "result_envelope", genuine))

    with stage.before("client").answers("WatchTask", lie), caplog.at_level(logging.WARNING, "folkmoot.client"):
        result = await seen(stage, done)
    assert isinstance(result.problem, EnvelopeRejected)
    with pytest.raises(EnvelopeRejected):
        _ = result.value
    assert "than expected" in caplog.text or "another collaboration" in caplog.text
    await undisturbed(stage, done)

    with without(RESULT_PLACE), stage.before("client").answers("WatchTask", lie):
        assert (await seen(stage, done)).value == 666


def sealed_elsewhere(stage: Stage, task: AsyncTask, signer: str, value: Any, **changes: Any) -> bytes:
    """What a node has sealed to Alpha somewhere else."""
    content, state = values.encode(value), stage.world.state
    place: dict[str, Any] = {
        "genesis": state.genesis,
        "kind": EnvelopeKind.ENVELOPE_KIND_RESULT,
        "task_digest": task.digest,
        "task_id": task.id,
        "run_id": stage.run_id(task, "Beta"),
        "attempt": 1,
        "sender_organization_id": stage.world["Beta"].address,
        "content_type": content.content_type,
        "created_at": timestamp(utc_now()),
        "ledger_sequence": state.position.sequence,
        "ledger_hash": state.position.hash,
    }
    return seal_bytes(
        content.content,
        context=EnvelopeContext(**(place | changes)),
        receivers=state.receivers(["Alpha"]),
        key=next(iter(stage.world[signer].nodes.values())),
        random=os.urandom,
    ).envelope


async def test_two_organizations_results_can_not_be_swapped(stage: Stage, done: AsyncTask):
    """Receipt and envelope, both: Beta's in the place of Gamma's, and the reverse."""
    told: dict[str, WatchTaskResponse] = {}

    def note(answer: WatchTaskResponse) -> None:
        told[answer.run.run_id] = WatchTaskResponse.FromString(answer.SerializeToString())

    with stage.before("client").answers("WatchTask", note):
        await undisturbed(stage, done)
    beta, gamma = (told[stage.run_id(done, each)] for each in ("Beta", "Gamma"))
    other = {beta.run.run_id: gamma, gamma.run.run_id: beta}

    def swap(answer: WatchTaskResponse) -> None:
        answer.result_envelope = other[answer.run.run_id].result_envelope
        answer.run.receipt.CopyFrom(other[answer.run.run_id].run.receipt)

    with stage.before("client").answers("WatchTask", swap):
        for organization in ("Beta", "Gamma"):
            result = await seen(stage, done, organization)
            assert (reason_of(result), rule_of(result)) == ("TASK_NOT_PROVEN", "RUN")
            assert not result.proven
            assert not result.has_value
    await undisturbed(stage, done)

    with without(RUNS_PLACE, RESULT_PLACE), stage.before("client").answers("WatchTask", swap):
        assert [(await seen(stage, done, each)).value for each in ("Beta", "Gamma")] == [8, 42]


# ---- withheld and invented -------------------------------------------------------------------------------------------


async def test_a_withheld_result_is_not_taken_for_a_completed_one(stage: Stage, done: AsyncTask):
    """The server says COMPLETED, and shows nothing for it."""

    def withhold(answer: WatchTaskResponse) -> None:
        answer.run.ClearField("receipt")
        answer.ClearField("result_envelope")

    lie = telling(stage, done, withhold)
    with stage.before("client").answers("WatchTask", lie):
        result = await seen(stage, done)
    assert (result.state, str(result.proven)) == ("COMPLETED", "server says")
    with pytest.raises(FolkmootError, match="shows no node's receipt") as caught:
        result.raise_for_state()
    assert caught.value.reason_name == "SIGNATURE_INVALID"
    await undisturbed(stage, done)

    with without(UNPROVEN_IS_NOT_TRUE), stage.before("client").answers("WatchTask", lie):
        (await seen(stage, done)).raise_for_state()  # a study goes on, and believes that Beta has taken part


@dataclass(frozen=True)
class End:
    """An end that no node reported."""

    outcome: RunState.ValueType
    said: dict[str, Any]


ENDS = {
    "FAILED": End(RunState.RUN_STATE_FAILED, {}),
    "REFUSED": End(
        RunState.RUN_STATE_REFUSED, {"reason": ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, "rule": "initiators"}
    ),
    "CANCELLED": End(RunState.RUN_STATE_CANCELLED, {}),
}


@pytest.mark.parametrize("name", ENDS)
async def test_a_forged_end_is_marked_or_refused(stage: Stage, done: AsyncTask, name: str):
    """First without a receipt, then with one that the server signs with a key of its own."""
    end = ENDS[name]

    def claim(answer: WatchTaskResponse) -> None:
        answer.run.state = end.outcome
        answer.run.ClearField("receipt")
        answer.ClearField("result_envelope")

    with stage.before("client").answers("WatchTask", telling(stage, done, claim)):
        result = await seen(stage, done)
    assert (result.state, str(result.proven)) == (name, "server says")
    with pytest.raises(FolkmootError, match="no node signed it"):
        _ = result.value

    def forge(answer: WatchTaskResponse) -> None:
        answer.run.receipt.CopyFrom(forged_receipt(answer.run, end))
        claimed = answer.run.receipt
        claim(answer)
        answer.run.receipt.CopyFrom(claimed)

    forging = telling(stage, done, forge)
    with stage.before("client").answers("WatchTask", forging):
        result = await seen(stage, done)
    assert (reason_of(result), rule_of(result), bool(result.proven)) == ("TASK_NOT_PROVEN", "SIGNATURE", False)
    await undisturbed(stage, done)

    with without(SIGNED_RECEIPTS), stage.before("client").answers("WatchTask", forging):
        result = await seen(stage, done)
        assert (result.state, bool(result.proven), result.problem) == (name, True, None)


def forged_receipt(run: Run, end: End) -> Any:
    """The receipt of an honest run, with another end, signed by the server."""
    receipt = Receipt.FromString(run.receipt.body)
    receipt.outcome = end.outcome
    for field in ("result_digest", "result_receivers", "reason", "rule"):
        receipt.ClearField(field)
    receipt.MergeFrom(Receipt(**end.said))
    own_key = SigningKey.generate(os.urandom)
    return sign(
        SignedKind.SIGNED_KIND_RECEIPT,
        receipt.SerializeToString(deterministic=True),
        key=own_key,
        genesis=receipt.genesis,
    )


def reason_of(result: Result) -> str:
    return reason_name(result.problem.reason) if result.problem else ""


def rule_of(result: Result) -> str:
    return result.problem.metadata.get("rule", "") if result.problem else ""
