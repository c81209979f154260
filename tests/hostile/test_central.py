"""A server that lies about subtasks to the central function that made them: it hands over what nodes have signed, or nothing.

Who notices: the node on which the central function runs. What it sees: an end that is not proven (ENVELOPE_REJECTED). What is stored:
the function's run ends with that, signed; nothing was computed from what the server made up. That no node ever held a run is the
server's word, and the function is told that it is no more.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from folkmoot.client import Subtasks
from folkmoot.client.results import Result
from folkmoot.trust import SigningKey, serialize, sign
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.signed_pb2 import SignedKind
from folkmoot.v1.task_pb2 import Receipt, RunState
from folkmoot.v1.task_service_pb2 import WatchTaskResponse
from tests.hostile.liar import Lie
from tests.hostile.protections import MARKED_ENDS, PROVEN_ENDS, RUNS_PLACE, SIGNED_RECEIPTS
from tests.hostile.stage import Stage
from tests.hostile.unprotected import Protection, without

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBERS = {"Beta": 21, "Gamma": 4}
TRUE = {"Beta": 42, "Gamma": 8}


async def gathered(stage: Stage, function: str = "gather") -> Result:
    """What a central function at Beta makes of its subtask's results."""
    return await stage.result(
        await stage.ask(
            "Beta", function=function, arguments={"numbers": NUMBERS}, labels=(), subtasks=Subtasks(depth=1, number=1)
        ),
        "Beta",
    )


def ended(run: Any) -> bool:
    return bool(run.state >= RunState.RUN_STATE_COMPLETED)


def withheld(stage: Stage, state: RunState.ValueType = RunState.RUN_STATE_FAILED) -> Lie:
    """Gamma's run has failed, the server says."""

    def lie(answer: WatchTaskResponse) -> None:
        if answer.run.organization_id == stage.world["Gamma"].address and ended(answer.run):
            answer.run.state = state
            answer.run.ClearField("receipt")
            answer.ClearField("result_envelope")

    return lie


def forged(stage: Stage) -> Lie:
    """Gamma's node has signed that its run failed, the server says, and signs it."""
    own_key = SigningKey.generate(os.urandom)

    def lie(answer: WatchTaskResponse) -> None:
        if answer.run.organization_id == stage.world["Gamma"].address and ended(answer.run):
            receipt = Receipt.FromString(answer.run.receipt.body)
            receipt.outcome = RunState.RUN_STATE_FAILED
            receipt.ClearField("result_digest")
            receipt.ClearField("result_receivers")
            kind, genesis = SignedKind.SIGNED_KIND_RECEIPT, receipt.genesis
            answer.run.receipt.CopyFrom(sign(kind, serialize(receipt), key=own_key, genesis=genesis))

    return lie


def swapped(stage: Stage) -> Lie:
    """Each organization's result in the place of the other's, receipts and all."""
    held: list[WatchTaskResponse] = []

    def lie(answer: WatchTaskResponse) -> list[WatchTaskResponse]:
        if not ended(answer.run):
            return [answer]
        held.append(answer)
        if len(held) < 2:
            return []
        (one, other), held[:] = held, []
        first = WatchTaskResponse.FromString(one.SerializeToString())
        take(one, other)
        take(other, first)
        return [one, other]

    return lie


def take(told: WatchTaskResponse, other: WatchTaskResponse) -> None:
    """Tell of another run what it gave."""
    told.run.receipt.CopyFrom(other.run.receipt)
    told.run.result_digest, told.run.result_size_bytes = other.run.result_digest, other.run.result_size_bytes
    told.result_envelope = other.result_envelope


LIES: dict[str, tuple[Callable[[Stage], Lie], Protection, dict[str, Any]]] = {
    "withheld": (withheld, PROVEN_ENDS, TRUE | {"Gamma": "FAILED"}),
    "forged": (forged, SIGNED_RECEIPTS, TRUE | {"Gamma": "FAILED"}),
    "swapped": (swapped, RUNS_PLACE, {"Beta": 8, "Gamma": 42}),
}


@pytest.mark.parametrize("how", LIES)
async def test_a_central_function_computes_nothing_from_ends_that_are(stage: Stage, how: str):
    make, protection, believed = LIES[how]
    with stage.before("Beta").answers("WatchTask", make(stage)):
        result = await gathered(stage)
    assert (result.state, reason_name(result.reason), bool(result.proven)) == ("FAILED", "ENVELOPE_REJECTED", True)
    assert (await gathered(stage)).value == TRUE

    with without(protection), stage.before("Beta").answers("WatchTask", make(stage)):
        assert (await gathered(stage)).value == believed


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
async def test_a_central_function_is_told_that_nobody_signed_a_run_that_is(stage: Stage, state: str):
    """No node held the run, the server says: it may be so, and whose answer depends on everybody's part can tell."""
    lie = withheld(stage, RunState.Value(f"RUN_STATE_{state}"))
    with stage.before("Beta").answers("WatchTask", lie):
        assert (await gathered(stage, "doubt")).value == {"Beta": True, "Gamma": False}
    assert (await gathered(stage, "doubt")).value == {"Beta": True, "Gamma": True}

    with without(MARKED_ENDS), stage.before("Beta").answers("WatchTask", lie):
        assert (await gathered(stage, "doubt")).value == {"Beta": True, "Gamma": True}
