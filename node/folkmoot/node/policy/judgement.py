"""What the station says to an assignment, on verified facts alone: accepted, refused for a reason, or not to be decided yet.

Nothing is decided by a ledger that can't be relied on. Entries of a later release, or what does not follow from the ledger, make new
work wait; a fork, entries that the server withholds, or other members' silence refuse it. Work that was accepted goes on in any case.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from folkmoot.node.execution.outcomes import CANCELLED, Outcome, make_receipt, refused
from folkmoot.node.journal import message_records, records
from folkmoot.node.journal.records import ASSIGNED, RunRecord, microseconds
from folkmoot.node.policy.quotas import has_quotas, usage
from folkmoot.node.policy.verdict import Accepted, Refused, quota_refusal
from folkmoot.node.proxy.message_envelopes import check_message
from folkmoot.node.station import Station
from folkmoot.node.trust.sightings import in_task, look_at_heads, require_no_contradiction, weigh_heads, withheld
from folkmoot.node.waiting import first_of
from folkmoot.transport import RemoteError
from folkmoot.transport.calls import pause_seconds
from folkmoot.trust import (
    EnvelopeRejected,
    FolkmootError,
    LedgerEntryInvalid,
    LedgerFork,
    LedgerStale,
    LedgerUpgradeNeeded,
    Malformed,
    State,
    TaskAheadOfLedger,
    TaskExpired,
    TaskNotProven,
    TrustError,
    VerifiedTask,
    digest,
    sign_receipt,
    timestamp,
    verify_task,
)
from folkmoot.trust.spec import attempts_allowed
from folkmoot.trust.times import nanoseconds, nanoseconds_at
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import Assign, NodeFrame, RunUpdate
from folkmoot.v1.task_pb2 import Isolation, RunState, TaskChain, TaskSpec, Waiting, WaitReason


class Verify(Protocol):
    """Proves a chain: `verify_task`, or `verify_check`."""

    def __call__(self, chain: TaskChain, state: State, *, now: datetime) -> VerifiedTask:
        """See `verify_task`."""


ASK_AGAIN_SECONDS = 60.0
"""How often a run that waits is judged again, if nothing is heard of the ledger meanwhile: its time may be over."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Judgement:
    """A task, or the outcome that its run is refused with; neither: it waits."""

    record: RunRecord
    task: VerifiedTask | None = None
    refusal: Outcome | None = None

    @property
    def decided(self) -> bool:
        """Whether it is one or the other."""
        return self.task is not None or self.refusal is not None


def record_of(assign: Assign, now: datetime) -> RunRecord:
    """What there is to say of an assignment before anything is proven or decided."""
    body = assign.chain.specs[-1].body if assign.chain.specs else b""
    claimed = claimed_spec(body)
    return RunRecord(
        run_id=assign.run_id,
        attempt=assign.attempt,
        task_id=claimed.task_id,
        job_id=claimed.job_id,
        task_digest=digest(body),
        chain=assign.chain.SerializeToString(),
        policy_digest=b"",
        input_digest=b"",
        memory_bytes=0,
        cpu_millis=0,
        run_time_seconds=0,
        result_limit_bytes=0,
        accepted_at_us=microseconds(now),
        state=ASSIGNED,
    )


async def judge(station: Station, assigned: RunRecord) -> Judgement:
    """Verify, then ask the policy. While the server can't be reached, what needs it raises, and is asked again."""
    record = replace(assigned, policy_digest=station.policy_file.digest, input_digest=b"")
    try:
        await require_reliable(station)
        task = await _verify(station, record)
    except (LedgerUpgradeNeeded, LedgerEntryInvalid) as error:
        if _expired(record, station.now()):
            return Judgement(record, None, refused(ErrorReason.ERROR_REASON_TASK_EXPIRED, ""))
        log.warning("run.waits", run_id=record.run_id, task_id=record.task_id, detail=str(error))
        return Judgement(assigned)
    except (TaskNotProven, TaskExpired, LedgerFork, LedgerStale) as error:
        log.warning("task.refused", run_id=record.run_id, task_id=record.task_id, detail=str(error))
        return Judgement(record, None, refused(error.reason, error.metadata.get("rule", "")))
    record = replace(
        record,
        input_digest=task.input(station.organization_id).envelope_digest,
        initiator_id=task.root.initiator.organization_id,
    )
    decision = station.decide(task)
    if isinstance(decision, Refused):
        log.warning(
            "run.refused",
            run_id=record.run_id,
            task_id=record.task_id,
            rule=decision.rule,
            initiators=[f"{station.state.organization_name(each)} ({each})" for each in task.initiators],
        )
        return Judgement(record, task, refused(decision.reason, decision.rule))
    return Judgement(granted(record, decision), task, None)


def granted(record: RunRecord, decision: Accepted) -> RunRecord:
    """A run's record with what the policy gives to it."""
    return replace(
        record,
        **asdict(decision.limits),
        result_limit_bytes=decision.result_bytes,
        minimum_rows=decision.minimum_rows,
    )


async def judge_at_last(
    station: Station, assigned: RunRecord, unwanted: asyncio.Event, *, tell: Callable[[NodeFrame], None]
) -> Judgement:
    """`judge`, as soon as it can be decided, telling the server what the run waits for; at the latest when its time is over."""
    waiting = Waiting(reason=WaitReason.WAIT_REASON_LEDGER, since=timestamp(station.now()))
    update = RunUpdate(
        run_id=assigned.run_id, attempt=assigned.attempt, state=RunState.RUN_STATE_PREPARING, waiting=waiting
    )
    attempt = 0
    while not unwanted.is_set():
        moved = station.moved.changed()
        try:
            judged = await judge(station, assigned)
        except FolkmootError as error:
            attempt += 1
            log.warning("run.not_judged", run_id=assigned.run_id, detail=str(error))
            await first_of(unwanted.wait(), timeout_seconds=pause_seconds(attempt))
            continue
        if judged.decided:
            return judged
        tell(NodeFrame(run_update=update))
        await first_of(moved.wait(), unwanted.wait(), timeout_seconds=ASK_AGAIN_SECONDS)
    return Judgement(replace(assigned, policy_digest=station.policy_file.digest), None, CANCELLED)


async def settle(station: Station, judged: Judgement) -> RunRecord:
    """Journal a judgement that was waited for; messages that came meanwhile are checked now."""
    judged, record = await station.journal.transact(partial(_decide, station, judged))
    if judged.task is None or judged.refusal is not None:
        refusal = refuse(station, judged)
        return await station.journal.transact(lambda connection: records.end_run(connection, refusal, None))
    messages = await station.journal.transact(lambda connection: message_records.incoming_of(connection, record.run_id))
    for message in messages:
        try:
            await check_message(station, judged.task, message)
        except TrustError as error:
            cause = error.cause_text if isinstance(error, EnvelopeRejected) else error.message
            log.warning("message.rejected", run_id=record.run_id, sequence=message.sequence, cause=cause)
            await station.journal.transact(
                lambda connection, message=message: message_records.drop_incoming(connection, message)  # type: ignore[misc]
            )
    return record


def _decide(station: Station, judged: Judgement, connection: sqlite3.Connection) -> tuple[Judgement, RunRecord]:
    accepted = replace(judged, record=replace(judged.record, accepted_at_us=microseconds(station.now())))
    within = within_quotas(station, accepted, connection)
    return within, records.decide_run(connection, within.record)


def within_quotas(station: Station, judged: Judgement, connection: sqlite3.Connection) -> Judgement:
    """A judgement, unless it accepts a run whose organization has used up its day: asked in the transaction that journals it."""
    policy, record = station.policy_file.policy, judged.record
    if judged.task is None or judged.refusal is not None or not has_quotas(policy):
        return judged
    refusal = quota_refusal(usage(connection, policy, station.now(), record.initiator_id), policy.quotas)
    return replace(judged, refusal=refused(refusal.reason, refusal.rule)) if refusal else judged


def refuse(station: Station, judged: Judgement) -> RunRecord:
    """The record of a run that the station would not execute, with the receipt that says so."""
    assert judged.refusal is not None  # noqa: S101 - for the type checker
    now = station.now()
    receipt = make_receipt(
        station,
        judged.record,
        judged.task.spec if judged.task else None,
        judged.refusal,
        isolation=Isolation.ISOLATION_UNSPECIFIED,
        result=None,
        ended_at=now,
    )
    return replace(
        judged.record,
        state=judged.refusal.state,
        receipt=sign_receipt(receipt, station.node_key).SerializeToString(),
        ended_at_us=microseconds(now),
    )


def claimed_spec(body: bytes) -> TaskSpec:
    """What an unproven spec says; empty if it says nothing."""
    try:
        return TaskSpec.FromString(body)
    except DecodeError:
        return TaskSpec()


async def require_reliable(station: Station) -> None:
    """Raise what speaks against the ledger that is here."""
    if (fork := station.fork) is not None:
        raise fork
    for waits in (LedgerUpgradeNeeded, LedgerEntryInvalid):
        if doubt := station.doubts.find(waits.REASON):
            raise waits(doubt.text)
    if station.doubted() is None:
        return
    try:
        await look_at_heads(station)
    except RemoteError as error:
        log.warning("node.heads_not_read", detail=str(error))
    if (found := weigh_heads(station)) is not None:
        raise found


async def _verify(station: Station, record: RunRecord) -> VerifiedTask:
    """The task of an assignment, proven, and proven to be for this organization."""
    task = await prove(station, record.task_chain(), verify_task)
    require_receiver(station, task, record.run_id)
    if not 1 <= record.attempt <= (allowed := attempts_allowed(task.spec)):
        raise TaskNotProven(
            f"the task allows {allowed} attempts, this is number {record.attempt}",
            metadata={"rule": "MAX_ATTEMPTS"},
        )
    return task


async def prove(station: Station, chain: TaskChain, verify: Verify) -> VerifiedTask:
    """A task, proven by the ledger that is here, or, if its creator has seen a newer one, by that. Raises what `verify` does."""
    try:
        return verify(chain, station.state, now=station.now())
    except TaskAheadOfLedger:
        await station.refresh()
        try:
            return verify(chain, station.state, now=station.now())
        except TaskAheadOfLedger as ahead:
            if (stale := withheld(chain, station.state)) is None:
                raise
            log.critical("node.entries_withheld", detail=str(stale))
            raise stale from ahead
    except TaskNotProven:
        require_no_contradiction(station, in_task(chain, station.state))
        raise


def require_receiver(station: Station, task: VerifiedTask, run_id: str) -> None:
    """Raise TaskNotProven unless the run is this organization's."""
    if task.receiver(run_id).organization_id != station.organization_id:
        raise TaskNotProven(f"the run {run_id} is another organization's", metadata={"rule": "RECEIVERS"})


def _expired(record: RunRecord, now: datetime) -> bool:
    """Whether a task's time is over, as it says itself; what says nothing has none."""
    specs = record.task_chain().specs
    try:
        return nanoseconds(claimed_spec(specs[-1].body if specs else b"").expires_at) <= nanoseconds_at(now)
    except Malformed:
        return True
