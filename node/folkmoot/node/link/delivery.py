"""Ends of runs, brought to the server until it has them: result first, then receipt and result become durable there together.

Nothing here is given up: while the server can't be reached, or refuses for a cause that may pass, the same bytes are offered again.
"""

import asyncio
from contextlib import ExitStack

import structlog

from folkmoot.node.execution.outcomes import state_name
from folkmoot.node.journal import decision_records, records
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.station import Station
from folkmoot.node.traces import record_run
from folkmoot.transport import INLINE_BYTES, timeouts
from folkmoot.transport.calls import pause_seconds
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_service_pb2 import CommitRunRequest

log = structlog.get_logger()

REFUSED_PAUSES = 12
"""A refusal that nobody foresees is not asked for again at once: this many of the longest pauses."""

_SETTLED = (ErrorReason.ERROR_REASON_RUN_CONFLICT, ErrorReason.ERROR_REASON_RUN_NOT_FOUND)


async def deliver(station: Station, record: RunRecord) -> None:
    """Bring a run's end to the server; return when it is there, or when the server does not know the run as this node's.

    A server that was restored from a backup learns of the run again from its creator, assigns it again, and gets what stands.
    """
    await _commit_at_last(station, record)
    failpoint("node.result.committed")
    now = station.now()
    await station.journal.transact(lambda connection: records.commit_run(connection, record, now))
    failpoint("node.result.commit_journaled")
    if station.tracer is not None:
        record_run(station.tracer, record, committed_at=now.timestamp())
    if station.metrics is not None:
        station.metrics.delivered(station, record)


async def _commit_at_last(station: Station, record: RunRecord) -> None:
    attempt = 0
    while True:
        try:
            await _commit(station, record)
        except FolkmootError as error:
            if error.reason in _SETTLED:
                log.warning("run.dropped", run_id=record.run_id, detail=str(error))
                return
            attempt += 1
            log.warning("run.not_delivered", run_id=record.run_id, attempt=attempt, detail=str(error))
            await asyncio.sleep(REFUSED_PAUSES * pause_seconds(attempt))
        else:
            log.info("run.delivered", run_id=record.run_id, state=state_name(record.state), bytes_out=record.bytes_out)
            return


async def _commit(station: Station, record: RunRecord) -> None:
    approvals = await station.journal.transact(lambda db: decision_records.approvals_of(db, record))
    request = CommitRunRequest(receipt=Signed.FromString(record.receipt), approvals=approvals)
    connection = station.connection
    with ExitStack() as closing:
        source = await station.envelopes.open(record.result_digest, closing) if record.result_digest else None
        if source is not None and source.size_bytes <= INLINE_BYTES:
            request.envelope = source.read_at(0, source.size_bytes)
        elif source is not None:
            await connection.upload(source, record.result_digest)
            failpoint("node.result.uploaded")
        await connection.call(
            lambda: connection.tasks.CommitRun(request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS)
        )
