"""How runs end, and what the node signs about it.

An `Outcome` says how; `make_receipt` turns it, with the run's record and the envelope of what the algorithm said, into the receipt that
proves it. Texts about an end that an algorithm caused are sealed like results: the server sees the state and a class, nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from folkmoot.node.journal.records import CANCELLED_AT_STATION, RunRecord, StoredEnvelope, moment
from folkmoot.node.proxy.ports import Exit
from folkmoot.node.station import Station
from folkmoot.trust import timestamp
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import DataframeLeft, ExitClass, Isolation, Receipt, RunState, TaskSpec

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. `text`, and the catalogue's reason that fits it, are for whoever may read its results."""

    state: RunState.ValueType
    exit_class: ExitClass.ValueType = ExitClass.EXIT_CLASS_UNSPECIFIED
    reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED
    rule: str = ""
    text: str = ""
    text_reason: ErrorReason.ValueType = ErrorReason.ERROR_REASON_UNSPECIFIED


COMPLETED = Outcome(state=RunState.RUN_STATE_COMPLETED)
FAILED = Outcome(state=RunState.RUN_STATE_FAILED)
CANCELLED = Outcome(state=RunState.RUN_STATE_CANCELLED, reason=ErrorReason.ERROR_REASON_CANCELLED)


def refused(reason: int, rule: str) -> Outcome:
    """The node would not."""
    return Outcome(state=RunState.RUN_STATE_REFUSED, reason=ErrorReason.ValueType(reason), rule=rule)


def cancelled_by(record: RunRecord) -> Outcome:
    """Somebody did not want it any more: who made the task, or a person at the station."""
    rule = "station" if record.cancelled == CANCELLED_AT_STATION else ""
    return replace(CANCELLED, rule=rule)


def function_not_found(function: str, functions: Sequence[str]) -> Outcome:
    """The image has no such function."""
    return Outcome(
        state=RunState.RUN_STATE_FAILED,
        text=f"The image has no function {function!r}; it has {', '.join(functions) or 'none'}.",
        text_reason=ErrorReason.ERROR_REASON_FUNCTION_NOT_FOUND,
    )


def crashed(exit_: Exit, record: RunRecord) -> Outcome:
    """The algorithm ended without a result."""
    exit_class = exit_.exit_class or ExitClass.EXIT_CLASS_NO_RESULT
    text = _CAUSES[exit_class].format(
        code=exit_.code,
        memory_mib=record.memory_bytes // MIB,
        scratch_mib=record.scratch_bytes // MIB,
        run_time_seconds=record.run_time_seconds,
    )
    if exit_.detail:
        text = f"{text}\nIts last output:\n{exit_.detail}"
    return Outcome(state=RunState.RUN_STATE_CRASHED, exit_class=exit_class, text=text)


_CAUSES = {
    ExitClass.EXIT_CLASS_NO_RESULT: "The algorithm exited by itself without writing a result.",
    ExitClass.EXIT_CLASS_ERROR: "The algorithm exited with code {code} without writing a result.",
    ExitClass.EXIT_CLASS_OUT_OF_MEMORY: (
        "The algorithm was ended because it took more than the {memory_mib} MiB of memory that it may use. "
        "Ask for more, as far as the node's policy gives it."
    ),
    ExitClass.EXIT_CLASS_OUT_OF_TIME: (
        "The algorithm was ended because it took more than the {run_time_seconds} seconds that it may run. "
        "Ask for more, as far as the node's policy gives it."
    ),
    ExitClass.EXIT_CLASS_OUT_OF_SCRATCH: (
        "The algorithm was ended because its job took more disk than the {scratch_mib} MiB of scratch that the node's policy gives, "
        "or the node's disk was nearly full and the job took most of it."
    ),
    ExitClass.EXIT_CLASS_NOT_STARTED: "The algorithm could not be started.",
    ExitClass.EXIT_CLASS_LOST: (
        "The algorithm was lost: the node's machine restarted, or somebody removed it. "
        "It was not started again, since a run executes at most once. Create the task again."
    ),
}


def state_name(state: int) -> str:
    """A state as people read it."""
    return RunState.Name(RunState.ValueType(state)).removeprefix("RUN_STATE_")


def exit_class_name(exit_class: int) -> str:
    """An exit class as people read it."""
    return ExitClass.Name(ExitClass.ValueType(exit_class)).removeprefix("EXIT_CLASS_")


def make_receipt(
    station: Station,
    record: RunRecord,
    spec: TaskSpec | None,
    outcome: Outcome,
    *,
    isolation: Isolation.ValueType,
    result: StoredEnvelope | None,
    ended_at: datetime,
    dataframe: DataframeLeft | None = None,
) -> Receipt:
    """What the node signs about a run's end. `spec` is None if the task is not proven: then only what arrived is named."""
    return Receipt(
        version=1,
        genesis=station.state.genesis,
        task_id=record.task_id,
        task_digest=record.task_digest,
        run_id=record.run_id,
        attempt=record.attempt,
        organization_id=station.organization_id,
        node_id=station.node_id,
        outcome=outcome.state,
        exit_class=outcome.exit_class,
        reason=outcome.reason,
        rule=outcome.rule,
        image_id=record.image_id,
        isolation=isolation if record.started_at_us else Isolation.ISOLATION_UNSPECIFIED,
        policy_digest=record.policy_digest,
        input_digest=record.input_digest,
        result_digest=result.digest if result else b"",
        bytes_out=record.bytes_out,
        result_receivers=spec.result_receivers if spec and result else (),
        started_at=timestamp(moment(record.started_at_us)) if record.started_at_us else None,
        ended_at=timestamp(ended_at),
        ledger_position=station.state.position.message(),
        dataframe=dataframe,
    )
