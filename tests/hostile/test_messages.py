"""A server that drops, alters, replays and redirects messages: a sum is right, or there is none.

Who notices: the receiving node. What it sees: a message that is not what it must be is rejected, with its cause in the log, and one
that is missing is a gap: the run gets MESSAGE_GAP instead of a sum. What is stored: only what a sibling's node sealed for this very
place; the client gets the failure, signed by the node.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from folkmoot.algorithm.values import encode
from folkmoot.client.results import Result
from folkmoot.client.task import AsyncTask
from folkmoot.trust import BytesSource, inspect, seal_bytes, serialize, uuid7
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.link_pb2 import PeerMessage, ServerFrame
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest
from folkmoot.v1.task_service_pb2 import AttachResponse
from tests.builders import world
from tests.hostile.liar import Lie
from tests.hostile.protections import MESSAGE_PLACE, NO_GAPS
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUMBERS = [1, 20, 300]


async def summed(stage: Stage, lie: Lie | None = None) -> Result:
    """Have Beta add up what Gamma sends it; what came of it at Beta."""
    if lie is None:
        return await stage.result(await ask(stage), "Beta")
    with stage.before("Beta").answers("Attach", lie):
        return await stage.result(await ask(stage), "Beta")


async def ask(stage: Stage) -> AsyncTask:
    return await stage.ask(
        "Beta",
        "Gamma",
        function="total",
        image="process:tests.algorithms.chatty",
        arguments={"numbers": NUMBERS},
        messages=True,
    )


def about(sequence: int, change: Callable[[ServerFrame], None]) -> Lie:
    """Change what the receiving node gets as one of the messages."""

    def lie(answer: AttachResponse) -> None:
        if answer.frame.HasField("peer_message") and answer.frame.peer_message.sequence == sequence:
            change(answer.frame)

    return lie


async def test_a_sum_is_right(stage: Stage):
    assert (await summed(stage)).value == sum(NUMBERS)


async def test_a_message_that_is_dropped_ends_the_sum(stage: Stage):
    def drop(frame: ServerFrame) -> None:
        frame.cancel.run_id = uuid7(utc_now(), os.urandom)  # a delivery has to come in its place, or the link notices

    result = await summed(stage, about(2, drop))
    assert (result.state, reason_name(result.reason), bool(result.proven)) == ("FAILED", "MESSAGE_GAP", True)
    assert "message 2 of" in result.failure
    assert (await summed(stage)).value == sum(NUMBERS)

    with without(NO_GAPS):
        assert (await summed(stage, about(2, drop))).value == 301


# ---- genuine, but of another place -----------------------------------------------------------------------------------

ELSEWHERE: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "task": lambda stage: {"task_id": uuid7(utc_now(), os.urandom), "task_digest": bytes(32)},
    "run": lambda stage: {"run_id": uuid7(utc_now(), os.urandom)},
    "attempt": lambda stage: {"attempt": 2},
    "sequence": lambda stage: {"sequence": 1},
    "sender": lambda stage: {"sender_organization_id": stage.world["Alpha"].address},
    "receiver": lambda stage: {},
    "direction": lambda stage: {"kind": EnvelopeKind.ENVELOPE_KIND_LOG},
    "collaboration": lambda stage: {"genesis": world(nodes=False, name="heart").genesis},
}


@pytest.mark.parametrize("field", ELSEWHERE)
async def test_a_message_from_elsewhere_is_rejected(stage: Stage, field: str):
    """Sealed to Beta and signed by a node, all of it genuine; but not Gamma's second message to this run."""

    def replay(frame: ServerFrame) -> None:
        frame.peer_message.envelope = sealed_elsewhere(stage, frame.peer_message, field, ELSEWHERE[field](stage))

    with capture_logs() as said:
        result = await summed(stage, about(2, replay))
    assert (result.state, reason_name(result.reason)) == ("FAILED", "MESSAGE_GAP")
    (rejected,) = [each for each in said if each["event"] == "message.rejected"]
    assert (rejected["sequence"], rejected["log_level"]) == (2, "warning")

    with without(MESSAGE_PLACE):
        assert (await summed(stage, about(2, replay))).value == 1 + 666 + 300


def sealed_elsewhere(stage: Stage, message: PeerMessage, field: str, changes: dict[str, Any]) -> bytes:
    """What a node has sealed to Beta somewhere else."""
    state, number = stage.world.state, encode(666)
    context = inspect(BytesSource(message.envelope)).context
    signer = "Alpha" if field == "sender" else "Gamma"
    for name, value in changes.items():
        setattr(context, name, value)
    content = SendMessageRequest(
        organization_id=stage.world["Alpha" if field == "receiver" else "Beta"].address,
        sequence=context.sequence,
        content_type=number.content_type,
        content=number.content,
    )
    return seal_bytes(
        serialize(content),
        context=context,
        receivers=state.receivers(["Beta"]),
        key=next(iter(stage.world[signer].nodes.values())),
        random=os.urandom,
    ).envelope
