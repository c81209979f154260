"""What stands between a run's prepared image and its start, each looked at again whenever a person or the policy has changed something.

    the policy, with all that is known now -> a person's approval -> nobody has paused the node -> opening hours -> a slot
    -> all of it once more

Promises: a run starts only while all of it holds. A person's decision is in the journal before it counts, so that a node that is killed
finds it when it starts again; the first one stands. Waiting ends when the task expires.
"""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime

from folkmoot.node.execution.outcomes import Outcome, refused
from folkmoot.node.journal import decision_records
from folkmoot.node.journal.decision_records import HELD_BY_POLICY, LEAVES_BY_ITSELF
from folkmoot.node.policy.judgement import granted
from folkmoot.node.policy.opening_hours import opens_at
from folkmoot.node.policy.quotas import used_today
from folkmoot.node.policy.verdict import Accepted, Refused, Usage
from folkmoot.node.proxy.ports import PreparedImage
from folkmoot.node.proxy.runs import Run
from folkmoot.node.station import Station
from folkmoot.node.waiting import first_of
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import ApprovalMode, Availability, ReleaseMode
from folkmoot.v1.task_pb2 import ApprovalSubject, RunState, WaitReason


@dataclass(frozen=True)
class Hindrance:
    """What a run waits for before it starts."""

    reason: WaitReason.ValueType
    state: RunState.ValueType = RunState.RUN_STATE_PREPARING
    until: datetime | None = None


async def may_start(run: Run, prepared: PreparedImage) -> Outcome | None:
    """Return when a run may start, with its slot taken and what it is given noted in its record; or how it ends instead."""
    station, expires_at = run.station, run.task.spec.expires_at.ToDatetime(UTC)
    while True:
        changed = station.people.changed()
        hindrance = await _hindrance(run, prepared)
        if isinstance(hindrance, Outcome):
            return hindrance
        if hindrance is not None:
            run.slot.give_back()
            async with run.reports.being(hindrance.state), run.reports.waiting(hindrance.reason) as tell:
                if hindrance.until is not None:
                    tell(opens_text(hindrance.until))
                until = min(expires_at, hindrance.until or expires_at)
                remaining = (until - station.now()).total_seconds()
                await first_of(changed.wait(), timeout_seconds=max(0.0, remaining))
        elif run.slot.taken:
            return None
        else:
            preparing = run.reports.being(RunState.RUN_STATE_PREPARING)
            async with preparing, run.reports.waiting(WaitReason.WAIT_REASON_SLOT):
                await run.slot.take()


async def _hindrance(run: Run, prepared: PreparedImage) -> Outcome | Hindrance | None:
    """The first thing that stands in the way now."""
    station = run.station
    if station.now() >= run.task.spec.expires_at.ToDatetime(UTC):
        return refused(ErrorReason.ERROR_REASON_TASK_EXPIRED, "")
    decision = _noted_decision(run, prepared, await used_today(station, run.record.initiator_id, run.record))
    if isinstance(decision, Outcome):
        return decision
    if await _needs_approval(run, decision):
        record = run.record
        match await station.journal.transact(
            lambda db: decision_records.decision_about(db, record, ApprovalSubject.APPROVAL_SUBJECT_RUN)
        ):
            case Decision.DECISION_APPROVE:
                pass
            case Decision.DECISION_DECLINE:
                return refused(ErrorReason.ERROR_REASON_APPROVAL_DECLINED, "approval")
            case _:
                standing = await station.journal.transact(lambda db: decision_records.await_approval(db, record))
                run.record = dataclasses.replace(record, state=standing.state)
                return Hindrance(WaitReason.WAIT_REASON_APPROVAL, RunState.RUN_STATE_AWAITING_APPROVAL)
    if station.availability != Availability.AVAILABILITY_OPEN:
        return Hindrance(WaitReason.WAIT_REASON_PAUSED)
    if (until := closed_until(station)) is not None:
        return Hindrance(WaitReason.WAIT_REASON_OPENING_HOURS, until=until)
    return None


def closed_until(station: Station) -> datetime | None:
    """When the station opens; None if it is open now."""
    policy = station.policy_file.policy
    return opens_at(policy.hours, policy.zone, station.now())


def opens_text(opens: datetime) -> str:
    """When a station opens, in a few words."""
    return f"opens {opens:%a %Y-%m-%d %H:%M} {opens.tzinfo}"


def _noted_decision(run: Run, prepared: PreparedImage, used_today: Usage | None) -> Accepted | Outcome:
    """What the policy in force says, which the data owner may have changed; what it gives, and to which image, goes into the run's record."""
    signers = run.station.signatures.signers(run.task.spec.image)
    decision = run.station.decide(
        run.task, function=run.function, image_signers=signers, used_today=used_today, reads=run.dataframes.read
    )
    judged = dataclasses.replace(run.record, policy_digest=run.station.policy_file.digest)
    if isinstance(decision, Refused):
        run.record = judged
        return refused(decision.reason, decision.rule)
    hold = HELD_BY_POLICY if decision.release == ReleaseMode.RELEASE_MODE_HELD else LEAVES_BY_ITSELF
    run.record = dataclasses.replace(
        granted(judged, decision),
        image_id=prepared.image_id,
        image_signers="\n".join(sorted(signers)),
        hold=max(hold, run.record.hold),
    )
    return decision


async def _needs_approval(run: Run, decision: Accepted) -> bool:
    """Whether a person must have approved this run."""
    match decision.approval:
        case ApprovalMode.APPROVAL_MODE_EVERY_RUN:
            return True
        case ApprovalMode.APPROVAL_MODE_FIRST_USE:
            image_id = run.record.image_id
            used = await run.station.journal.transact(lambda db: decision_records.image_approved(db, image_id))
            return not used
        case _:
            return False
