"""A server that passes on what another run says of itself: progress and logs are the run's own, or nothing.

There is no receipt for what a run says while it runs: its place and its signature alone say whose it is. Who notices: the researcher's
client. What it sees: no progress, or ENVELOPE_REJECTED for a log, and the cause in the local log. What is stored: nothing of it.
That a run says nothing new is what every server can make believe; a fraction is its word in any case.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from folkmoot.client.task import AsyncTask
from folkmoot.trust import EnvelopeRejected, digest, seal_bytes, serialize, timestamp
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines
from folkmoot.v1.task_pb2 import RunState
from folkmoot.v1.task_service_pb2 import GetTaskResponse, WatchRunLogResponse
from tests.builders import world
from tests.hostile.protections import SAYINGS_PLACE
from tests.hostile.stage import Stage
from tests.hostile.unprotected import without
from tests.integration.harness import utc_now

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRESS, LOG = EnvelopeKind.ENVELOPE_KIND_PROGRESS, EnvelopeKind.ENVELOPE_KIND_LOG
Changes: TypeAlias = dict[str, Any]

ELSEWHERE: dict[str, Callable[[Stage, EnvelopeKind.ValueType], Changes]] = {
    "task": lambda stage, kind: {
        "task_id": "01a1f8ae-9c74-77a1-bbf3-915f66477273",
        "task_digest": digest(b"another task"),
    },
    "run": lambda stage, kind: {"run_id": "01a1f8ae-9c74-77a1-bbf3-915f66477274"},
    "attempt": lambda stage, kind: {"attempt": 2},
    "organization": lambda stage, kind: {"sender_organization_id": stage.world["Gamma"].address},
    "direction": lambda stage, kind: {"kind": LOG if kind == PROGRESS else PROGRESS},
    "collaboration": lambda stage, kind: {"genesis": world(nodes=False, name="heart").genesis},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(stage: Stage) -> AsyncTask:
    task = await stage.ask("Beta")
    assert (await stage.result(task, "Beta")).value == 42
    return task


def said(stage: Stage, task: AsyncTask, content: bytes, changes: Changes) -> bytes:
    """What a node has sealed to Alpha: in Beta's run, unless `changes` say where else."""
    state = stage.world.state
    place: Changes = {
        "genesis": state.genesis,
        "task_digest": task.digest,
        "task_id": task.id,
        "run_id": stage.run_id(task, "Beta"),
        "attempt": 1,
        "sequence": 1,
        "sender_organization_id": stage.world["Beta"].address,
        "content_type": "text/plain",
        "created_at": timestamp(utc_now()),
        "ledger_sequence": state.position.sequence,
        "ledger_hash": state.position.hash,
    }
    signer = "Gamma" if "sender_organization_id" in changes else "Beta"
    return seal_bytes(
        content,
        context=EnvelopeContext(**(place | changes)),
        receivers=state.receivers(["Alpha"]),
        key=next(iter(stage.world[signer].nodes.values())),
        random=os.urandom,
    ).envelope


async def progress(stage: Stage, task: AsyncTask, **changes: Any) -> str:
    """What the client shows of the run's progress."""
    envelope = said(stage, task, b"all is lost", {"kind": PROGRESS} | changes)

    def lie(answer: GetTaskResponse) -> None:
        for run in answer.runs:
            run.state, run.progress_envelope = RunState.RUN_STATE_RUNNING, envelope
            run.ClearField("receipt")

    with stage.before("client").answers("GetTask", lie):
        (run,) = await task.runs
    return run.progress


async def log(stage: Stage, task: AsyncTask, **changes: Any) -> str:
    """What the client shows of the run's log."""
    lines = LogLines(first_sequence=1, lines=[LogLine(time=timestamp(utc_now()), level="info", text="all is lost")])
    envelope = said(stage, task, serialize(lines), {"kind": LOG} | changes)

    def answer(_: Any) -> WatchRunLogResponse:
        return WatchRunLogResponse(attempt=1, position=1, envelope=envelope)

    with stage.before("client").instead("WatchRunLog", answer):
        try:
            return " ".join([line.text async for line in task.logs("Beta")])
        except EnvelopeRejected:
            return ""


@dataclass(frozen=True)
class Saying:
    kind: EnvelopeKind.ValueType
    shown: Callable[..., Awaitable[str]]


SAYINGS = {"progress": Saying(PROGRESS, progress), "a log": Saying(LOG, log)}


@pytest.mark.parametrize("field", ELSEWHERE)
@pytest.mark.parametrize("what", SAYINGS)
async def test_what_a_run_says_elsewhere_is_not_shown_here_as(
    stage: Stage, done: AsyncTask, what: str, field: str, caplog: pytest.LogCaptureFixture
):
    saying = SAYINGS[what]
    elsewhere = ELSEWHERE[field](stage, saying.kind)
    assert await saying.shown(stage, done) == "all is lost"  # in its place
    with caplog.at_level(logging.WARNING, "folkmoot.client"):
        assert await saying.shown(stage, done, **elsewhere) == ""
    if saying.kind == PROGRESS:
        (told,) = caplog.messages
        assert told.startswith("the progress of run")

    with without(SAYINGS_PLACE):
        assert await saying.shown(stage, done, **elsewhere) == "all is lost"
