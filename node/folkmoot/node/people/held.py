"""How runs end for good, and what of them a person at the station looks at before.

    RUNNING -> HELD -> released: the receipt is signed, the result leaves as it was sealed
                    -> declined: REFUSED with RELEASE_DECLINED, the result is gone
                    -> cancelled: CANCELLED, the result is gone

Promises: before the release nothing leaves, not the result, nor how the run ended. The decision is in the journal before anything acts on
it; a node that is killed in between acts on it when it starts again. Files are removed before the end that drops them is journaled, so
that none is left behind.
"""

import asyncio
import dataclasses
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from functools import partial

from folkmoot.node.execution.outcomes import Outcome, cancelled_by, make_receipt, refused
from folkmoot.node.journal import dataframe_records, decision_records, records
from folkmoot.node.journal.records import HELD, RunRecord, StoredEnvelope, microseconds, moment
from folkmoot.node.proxy.results import pieces
from folkmoot.node.station import Station
from folkmoot.node.storage import egress
from folkmoot.node.storage.dataframes import told_of
from folkmoot.node.storage.egress import Departure
from folkmoot.node.trust.senders import node_sender
from folkmoot.node.waiting import first_of
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import Expected, FolkmootError, VerifiedTask, sign_receipt, timestamp
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import NodeFrame, RunUpdate
from folkmoot.v1.proxy_service_pb2 import ResultHead
from folkmoot.v1.task_pb2 import DataframeLeft, ExitClass, Isolation, RunState, Waiting, WaitReason

_SAID = (RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CRASHED)
_NOT_THE_ALGORITHMS = (ExitClass.EXIT_CLASS_NOT_STARTED, ExitClass.EXIT_CLASS_LOST)


def must_be_looked_at(record: RunRecord, outcome: Outcome, isolation: Isolation.ValueType) -> bool:
    """Whether an end waits for a person: it is one that the algorithm may have chosen, of a run that is held.

    A plain process can make any end look like any other.
    """
    told = isolation != Isolation.ISOLATION_PROCESS and outcome.exit_class in _NOT_THE_ALGORITHMS
    return bool(record.hold) and record.started and outcome.state in _SAID and not told


async def require_room(station: Station, record: RunRecord, stored: StoredEnvelope) -> None:
    """Raise QUOTA_EXCEEDED for a result that does not fit into the day, while its run can still say so, or write a smaller one."""
    departure = station.departure(EnvelopeKind.ENVELOPE_KIND_RESULT, stored.digest, stored.size_bytes, ())
    if departure.allowance is None:  # Nothing is counted, and the journal has nothing to say.
        return
    try:
        await station.journal.transact(lambda db: egress.require_room(db, record.initiator_id, departure))
    except FolkmootError:
        station.envelopes.forget(stored.digest)
        raise


async def end_run(
    station: Station,
    record: RunRecord,
    task: VerifiedTask,
    outcome: Outcome,
    *,
    isolation: Isolation.ValueType,
    new: StoredEnvelope | None = None,
) -> RunRecord:
    """Sign the receipt of a run that ends, and let it stand together with the envelope that it names, which leaves.

    `new` is that envelope if the journal does not have it yet.
    """
    result = StoredEnvelope(record.result_digest, record.result_size_bytes, None) if record.result_digest else None
    now = max(station.now(), moment(record.started_at_us))  # clocks may be set back meanwhile
    leaving = dataclasses.replace(record, bytes_out=record.bytes_out + record.result_size_bytes)
    dataframe = await _dataframe_left(station, record, task, outcome)
    receipt = make_receipt(
        station,
        leaving,
        task.spec,
        outcome,
        isolation=isolation,
        result=result,
        ended_at=now,
        dataframe=dataframe,
    )
    ending = dataclasses.replace(
        leaving,
        state=outcome.state,
        receipt=sign_receipt(receipt, station.node_key).SerializeToString(),
        ended_at_us=microseconds(now),
    )
    completed = outcome.state == RunState.RUN_STATE_COMPLETED
    kind = EnvelopeKind.ENVELOPE_KIND_RESULT if completed else EnvelopeKind.ENVELOPE_KIND_FAILURE
    in_any_case = not completed or record.state == HELD
    departures = (
        [station.departure(kind, result.digest, result.size_bytes, receipt.result_receivers, in_any_case=in_any_case)]
        if result
        else []
    )
    standing = await station.journal.transact(partial(_let_stand, ending=ending, new=new, departures=departures))
    if task.spec.HasField("session"):
        await station.dataframes.settled(task.spec.session.session_id)
    if new is not None and new.inline is not None:
        station.envelopes.remember(new.digest, new.inline)
    return standing


def _let_stand(
    connection: sqlite3.Connection, ending: RunRecord, new: StoredEnvelope | None, departures: Sequence[Departure]
) -> RunRecord:
    """Let an end stand, and with it the dataframe that a run has left."""
    standing = records.end_run(connection, ending, new, departures)
    dataframe_records.settle(connection, standing)
    return standing


async def _dataframe_left(
    station: Station, record: RunRecord, task: VerifiedTask, outcome: Outcome
) -> DataframeLeft | None:
    """What the receipt tells of the dataframe that a run leaves."""
    completed = outcome.state == RunState.RUN_STATE_COMPLETED
    left = await station.dataframes.pending(record) if completed and task.spec.session.leaves else None
    if left is None:
        return None
    return told_of(left, station.policy_file.policy.dataframes.report, minimum_rows=record.minimum_rows)


async def decided_about(
    station: Station, record: RunRecord, unwanted: asyncio.Event, *, tell: Callable[[NodeFrame], None]
) -> tuple[RunRecord, Decision.ValueType | None]:
    """Wait until a person has decided whether a held run's last word leaves, or it is not wanted any more: then there is no decision.

    Gives the run as it stands then. The server is told what it waits for.
    """
    waiting = Waiting(reason=WaitReason.WAIT_REASON_APPROVAL, since=timestamp(station.now()))
    tell(
        NodeFrame(
            run_update=RunUpdate(
                run_id=record.run_id, attempt=record.attempt, state=RunState.RUN_STATE_HELD, waiting=waiting
            )
        )
    )
    while True:
        changed = station.people.changed()
        standing, decision = await station.journal.transact(partial(decision_records.release_of, record=record))
        if decision is not None or unwanted.is_set():
            return standing, decision
        await first_of(changed.wait(), unwanted.wait())


async def settle_held(
    station: Station,
    record: RunRecord,
    task: VerifiedTask,
    decision: Decision.ValueType | None,
    *,
    isolation: Isolation.ValueType,
) -> RunRecord:
    """End a held run as a person has decided; without a decision it was cancelled."""
    if decision == Decision.DECISION_APPROVE:
        station.envelopes.forget(record.look_digest)
        outcome = Outcome(
            state=RunState.ValueType(record.held_state), exit_class=ExitClass.ValueType(record.held_exit_class)
        )
    else:
        for digest in (record.result_digest, record.look_digest):
            station.envelopes.forget(digest)
        failpoint("node.result.dropped")
        record = dataclasses.replace(record, result_digest=b"", result_size_bytes=0)
        declined = refused(ErrorReason.ERROR_REASON_RELEASE_DECLINED, "release")
        outcome = declined if decision == Decision.DECISION_DECLINE else cancelled_by(record)
    return await end_run(station, record, task, outcome, isolation=isolation)


async def read_held(station: Station, record: RunRecord) -> AsyncGenerator[ResultHead | bytes, None]:
    """What a held run's algorithm said, as those read it who receive it: its media type, then its content.

    Raises NOT_WAITING, and what `Station.open` does.
    """
    with ExitStack() as closing:
        source = await station.envelopes.open(record.look_digest, closing) if record.look_digest else None
        if record.state != HELD or source is None:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_NOT_WAITING, f"no result of the run {record.run_id} is held here to look at"
            )
        completed = record.held_state == RunState.RUN_STATE_COMPLETED
        expected = Expected(
            kind=EnvelopeKind.ENVELOPE_KIND_RESULT if completed else EnvelopeKind.ENVELOPE_KIND_FAILURE,
            task_id=record.task_id,
            sender_organization_id=station.organization_id,
            digest=record.look_digest,
            task_digest=record.task_digest,
            run_id=record.run_id,
            attempt=record.attempt,
        )
        opened = await station.open(source, expected, node_sender(station, station.organization_id))
        yield ResultHead(content_type=opened.context.content_type)
        async for piece in pieces(opened):
            yield piece
