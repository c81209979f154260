"""Questions whether a task would be accepted: judged as a task that came now, and forgotten.

Promises: nothing is journaled, fetched or started for a question, and no quota is used. It is proven like a task, but expires when it is
made, so that nobody can have it executed. A node that is too busy, or can't tell within moments, says that it can't tell: what is asked
costs no more than a little computing, and no more often than `MOST_PER_MINUTE`.
"""

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog
from google.protobuf.duration_pb2 import Duration

from folkmoot.node.execution.starting import closed_until, opens_text
from folkmoot.node.policy.judgement import prove, require_receiver, require_reliable
from folkmoot.node.policy.quotas import used_today
from folkmoot.node.policy.verdict import Accepted, Refused
from folkmoot.node.proxy.inputs import read_input
from folkmoot.node.station import Station
from folkmoot.node.trust.keys import KeyAwaited
from folkmoot.node.waiting import cancelled
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    FolkmootError,
    LedgerFork,
    LedgerStale,
    TaskExpired,
    TaskNotProven,
    VerifiedTask,
    timestamp,
    verify_check,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Availability, Check, Checked, Forecast, NodeFrame, Verdict
from folkmoot.v1.task_pb2 import Resources, Waiting, WaitReason

MOST_AT_ONCE = 8
MOST_PER_MINUTE = 600
ANSWER_SECONDS = 4.0
"""How long one may take: the server waits a little longer."""

log = structlog.get_logger()


class Questions:
    """Answers what is asked on a link."""

    def __init__(self, station: Station, send: Callable[[NodeFrame], None]) -> None:
        self._station = station
        self._send = send
        self._answering: set[asyncio.Task[None]] = set()
        self._minute_ends_at = station.now()
        self._asked = 0

    def ask(self, check: Check) -> None:
        """Answer soon; at once, that it can't be told, if too much is asked."""
        if not self._may_ask():
            self._tell(check, Verdict(forecast=Forecast.FORECAST_UNDECIDED))
            return
        task = asyncio.create_task(self._answer(check))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def close(self) -> None:
        """Answer no more."""
        await cancelled(*self._answering)

    def _may_ask(self) -> bool:
        now = self._station.now()
        if not self._minute_ends_at - timedelta(minutes=1) <= now < self._minute_ends_at:
            self._minute_ends_at, self._asked = now + timedelta(minutes=1), 0
        self._asked += 1
        return self._asked <= MOST_PER_MINUTE and len(self._answering) < MOST_AT_ONCE

    async def _answer(self, check: Check) -> None:
        try:
            verdict = await asyncio.wait_for(forecast(self._station, check), ANSWER_SECONDS)
        except (FolkmootError, TimeoutError) as error:
            log.info("check.undecided", run_id=check.run_id, detail=str(error))
            verdict = Verdict(forecast=Forecast.FORECAST_UNDECIDED)
        except Exception:
            log.exception("check.broken", run_id=check.run_id, help="report this")
            verdict = Verdict(forecast=Forecast.FORECAST_UNDECIDED)
        self._tell(check, verdict)

    def _tell(self, check: Check, verdict: Verdict) -> None:
        station = self._station
        verdict.run_id, verdict.node_id = check.run_id, station.node_id
        verdict.organization_id = station.organization_id
        self._send(NodeFrame(checked=Checked(check_id=check.check_id, verdict=verdict)))


async def forecast(station: Station, check: Check) -> Verdict:
    """What would become of a run. Raises FolkmootError where that can't be told now."""
    try:
        await require_reliable(station)
        task = await prove(station, check.chain, verify_check)
        require_receiver(station, task, check.run_id)
        function = await _function(station, task, check.input_envelope)
    except (TaskNotProven, TaskExpired, LedgerFork, LedgerStale) as error:
        return _refused(Refused(ErrorReason.ValueType(error.reason or 0), error.metadata.get("rule", "")))
    except EnvelopeRejected as error:
        log.info("check.input_rejected", run_id=check.run_id, cause=error.cause_text)
        return _refused(Refused(ErrorReason.ERROR_REASON_INPUT_REJECTED, "input"))
    decision = station.decide(
        task,
        function=function,
        image_signers=station.signatures.signers(task.spec.image) or None,
        used_today=await used_today(station, task.root.initiator.organization_id),
    )
    return _refused(decision) if isinstance(decision, Refused) else _accepted(station, task, decision)


async def _function(station: Station, task: VerifiedTask, envelope: bytes) -> str | None:
    """What would be called; None if the question does not say, or the key that it is sealed to is not here yet."""
    if not envelope:
        return None
    try:
        return (await read_input(station, task, BytesSource(envelope))).head.function
    except KeyAwaited:
        return None


def _refused(refusal: Refused) -> Verdict:
    return Verdict(forecast=Forecast.FORECAST_REFUSED, reason=refusal.reason, rule=refusal.rule)


def _accepted(station: Station, task: VerifiedTask, decision: Accepted) -> Verdict:
    limits = decision.limits
    return Verdict(
        forecast=Forecast.FORECAST_ACCEPTED,
        rule=decision.rule,
        limits=Resources(
            memory_bytes=limits.memory_bytes,
            cpu_millis=limits.cpu_millis,
            run_time=Duration(seconds=limits.run_time_seconds),
            resource_class=task.spec.resources.resource_class,
        ),
        result_bytes=decision.result_bytes,
        minimum_rows=decision.minimum_rows,
        approval=decision.approval,
        release=decision.release,
        waiting=_waiting(station, task),
    )


def _waiting(station: Station, task: VerifiedTask) -> Waiting | None:
    """What stands in the way now, apart from people's approval."""
    waiting = Waiting(since=timestamp(station.now()))
    pool = station.central_slots if task.spec.grant.subtask_depth else station.slots
    if station.availability != Availability.AVAILABILITY_OPEN:
        waiting.reason = WaitReason.WAIT_REASON_PAUSED
    elif (opens := closed_until(station)) is not None:
        waiting.reason, waiting.detail = WaitReason.WAIT_REASON_OPENING_HOURS, opens_text(opens)
    elif not pool.free:
        waiting.reason = WaitReason.WAIT_REASON_SLOT
    else:
        return None
    return waiting
