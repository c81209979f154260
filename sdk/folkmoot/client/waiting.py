"""Why a run is not completed, in words."""

from dataclasses import dataclass
from datetime import UTC, datetime

from folkmoot.client.names import exit_class_name, moment
from folkmoot.client.results import Proof, RunState, run_state
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.task_pb2 import Run, Waiting, WaitReason

_WAITS = {
    WaitReason.WAIT_REASON_NODE_OFFLINE: "no node of it is connected",
    WaitReason.WAIT_REASON_DEPENDENCY: "waits for tasks before it",
    WaitReason.WAIT_REASON_SLOT: "waits for a slot at its node",
    WaitReason.WAIT_REASON_APPROVAL: "waits for a person at the station, who approves it or declines",
    WaitReason.WAIT_REASON_ACCEPTANCE: "its node has not accepted it yet",
    WaitReason.WAIT_REASON_NO_NODE: "it has no node in this collaboration",
    WaitReason.WAIT_REASON_OTHERS: "waits for its subtasks, or for messages of its siblings",
    WaitReason.WAIT_REASON_KEY: "waits for a key",
    WaitReason.WAIT_REASON_LEDGER: "waits until its node can be sure of the ledger",
    WaitReason.WAIT_REASON_IMAGE: "its node fetches the image",
    WaitReason.WAIT_REASON_OPENING_HOURS: "waits for the station's opening hours",
    WaitReason.WAIT_REASON_PAUSED: "waits until the station, which is paused, goes on",
}
_HELD = "its result waits for a person at the station, who looks at it before it leaves"
_STATES = {
    RunState.AWAITING_APPROVAL: _WAITS[WaitReason.WAIT_REASON_APPROVAL],
    RunState.HELD: _HELD,
}
"""What states mean that say for whom a run waits."""


@dataclass(frozen=True)
class Why:
    """Why one organization's run is not completed."""

    organization: str
    state: RunState
    reason: str
    """What it waits for (NODE_OFFLINE, SLOT, …), or why it ended (an ErrorReason); empty if it is simply under way."""
    since: datetime | None
    text: str
    proven: Proof = Proof.SERVER_SAYS
    """Whether a node signed that it ended so; what a run waits for is always the server's word."""

    def __str__(self) -> str:
        return f"{self.organization}: {self.text}"


def why(organization: str, run: Run, *, now: datetime, proven: Proof) -> Why | None:
    """Say why a run is not completed; None for one that is, and is proven to be."""
    state = run_state(run.state)
    if state is RunState.COMPLETED:
        text = "completed, says the server, and shows no node's receipt"
        return None if proven else Why(organization, state, "", None, text)
    if state.ended:
        reason = reason_name(run.reason) if run.reason else exit_class_name(run.exit_class)
        detail = ", ".join(filter(None, (reason, f"rule: {run.rule}" if run.rule else "")))
        return Why(
            organization,
            state,
            reason,
            moment(run.ended_at) if run.HasField("ended_at") else None,
            f"{state.lower()} ({detail})" if detail else state.lower(),
            proven,
        )
    if run.HasField("waiting"):
        since = moment(run.waiting.since)
        reason = WaitReason.Name(run.waiting.reason).removeprefix("WAIT_REASON_")
        text = _HELD if state is RunState.HELD else waiting_text(run.waiting)
        return Why(organization, state, reason, since, f"{text}, since {moment_text(since, now)}")
    since = moment(run.started_at if run.HasField("started_at") else run.created_at)
    percent = f", {run.fraction:.0%} done" if run.fraction else ""
    text = _STATES.get(state, state.lower().replace("_", " "))
    return Why(organization, state, "", since, f"{text}{percent}, since {moment_text(since, now)}")


def waiting_text(waiting: Waiting) -> str:
    """What a run waits for."""
    text = _WAITS.get(waiting.reason, "waits")
    return f"{text} ({waiting.detail})" if waiting.detail else text


def moment_text(since: datetime, now: datetime) -> str:
    """A time as people like to read it: with the day only if it is not today's."""
    local, today = since.astimezone(), now.astimezone(UTC).astimezone().date()
    return f"{local:%H:%M:%S}" if local.date() == today else f"{local:%Y-%m-%d %H:%M}"
