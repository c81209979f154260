"""What other runs gave: their ends proven by their nodes' receipts, their results verified and decrypted, or nothing at all.

The server's word alone counts for nothing but runs that no node ever held: cancelled or expired ones. They are marked as not proven.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from datetime import UTC
from functools import partial

import grpc.aio
import structlog

from folkmoot.node.proxy.bridge import iterate_in_thread
from folkmoot.node.station import Station
from folkmoot.node.trust.awaiting import at_last
from folkmoot.node.trust.senders import node_sender
from folkmoot.node.trust.sightings import in_receipt, require_no_contradiction
from folkmoot.transport import INLINE_BYTES, error_from_rpc
from folkmoot.transport.calls import pause_before, pause_seconds
from folkmoot.transport.failures import read_failure
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    FolkmootError,
    NodeNotApproved,
    Opened,
    Position,
    TaskNotProven,
    VerifiedTask,
    verify_receipt,
    verify_refusal,
)
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import Peer, RunResult
from folkmoot.v1.task_pb2 import Receipt, Run, RunState
from folkmoot.v1.task_service_pb2 import WatchTaskRequest, WatchTaskResponse

log = structlog.get_logger()

_UNPROVEN = (RunState.RUN_STATE_CANCELLED, RunState.RUN_STATE_EXPIRED)
_FIRST_TERMINAL = RunState.RUN_STATE_COMPLETED


async def watch_ends(
    station: Station, task: VerifiedTask, after_revision: int
) -> AsyncGenerator[WatchTaskResponse, None]:
    """Stream the ends of a task's runs, each once, until the last one has ended, across cuts of the connection. Raises RemoteError.

    Those up to a revision are passed over. Which runs there are is the signed task's word: a server that ends its stream too early,
    or tells of an end again, makes no result missing and none count twice.
    """
    missing = {receiver.run_id for receiver in task.spec.receivers}
    attempt = 0
    while True:
        await station.connection.authenticated()
        request = WatchTaskRequest(task_id=task.spec.task_id)
        call = station.connection.tasks.WatchTask(request, metadata=station.connection.metadata())
        pause = None
        try:
            async for response in call:
                run = response.run
                if run.state >= _FIRST_TERMINAL and task.receiver(run.run_id).run_id in missing:
                    attempt = 0
                    missing.remove(run.run_id)
                    if run.revision > after_revision:
                        yield response
        except grpc.aio.AioRpcError as rpc_error:
            error = error_from_rpc(rpc_error)
            if error.reason == ErrorReason.ERROR_REASON_TOKEN_INVALID:
                station.connection.refuse_token()
            elif (pause := pause_before(attempt + 1, error)) is None:
                raise error from None
        finally:
            call.cancel()
        if not missing:
            return
        attempt += 1
        await asyncio.sleep(pause_seconds(attempt) if pause is None else pause)


async def read_result(
    station: Station, task: VerifiedTask, run: Run, inline_envelope: bytes
) -> AsyncGenerator[RunResult | bytes, None]:
    """Give how a run ended, then the bytes of its result, if this organization receives it. Raises EnvelopeRejected."""
    organization_id = task.receiver(run.run_id).organization_id
    result = RunResult(
        run_id=run.run_id,
        organization=Peer(organization_id=organization_id, name=station.state.organization_name(organization_id)),
        revision=run.revision,
    )
    if not run.HasField("receipt"):
        if run.state not in _UNPROVEN:
            raise EnvelopeRejected(f"the server claims an end of run {run.run_id} that no node has signed")
        result.state, result.reason = run.state, run.reason
        yield result
        return
    receipt = await _prove(station, task, run)
    result.proven = True
    result.state, result.exit_class = receipt.outcome, receipt.exit_class
    result.reason, result.rule = receipt.reason, receipt.rule
    if not receipt.result_digest or station.organization_id not in task.spec.result_receivers:
        yield result
        return
    with ExitStack() as closing:
        opened = await _open(station, task, run, receipt, inline_envelope, closing)
        if receipt.outcome == RunState.RUN_STATE_COMPLETED:
            result.content_type, result.size_bytes = opened.context.content_type, opened.total_length
            yield result
            async for piece in pieces(opened):
                yield piece
        else:
            failure = read_failure(opened)
            result.failure, result.reason = failure.message, failure.reason or receipt.reason
            yield result


async def pieces(opened: Opened, offset: int = 0) -> AsyncGenerator[bytes, None]:
    """Stream the content of an envelope; large ones are decrypted beside the loop."""
    if opened.total_length <= INLINE_BYTES:
        for piece in opened.read(offset):
            yield piece
    else:
        async for piece in iterate_in_thread(opened.read(offset)):
            yield piece


async def _prove(station: Station, task: VerifiedTask, run: Run) -> Receipt:
    """Verify a receipt; of what this replica does not know yet, the newest ledger is asked once more. Raises LedgerStale, LedgerFork."""
    try:
        try:
            receipt = _verify(station, task, run)
        except NodeNotApproved:
            await station.catch_up()
            receipt = _verify(station, task, run)
    except FolkmootError as error:
        require_no_contradiction(station, in_receipt(run.receipt, station.state))
        raise EnvelopeRejected(f"the end of run {run.run_id} is not proven: {error.message}") from error
    seen = Position(receipt.ledger_position.sequence, receipt.ledger_position.hash)
    if seen.sequence > station.state.position.sequence:
        await station.catch_up()
    station.check_position(seen, receipt.organization_id)
    return receipt


def _verify(station: Station, task: VerifiedTask, run: Run) -> Receipt:
    try:
        return verify_receipt(run.receipt, task=task, run_id=run.run_id, state=station.state)
    except TaskNotProven:
        # The other node may have been handed something else than the task, and say so.
        organization_id = task.receiver(run.run_id).organization_id
        return verify_refusal(run.receipt, run_id=run.run_id, organization_id=organization_id, state=station.state)


async def _open(
    station: Station, task: VerifiedTask, run: Run, receipt: Receipt, inline_envelope: bytes, closing: ExitStack
) -> Opened:
    completed = receipt.outcome == RunState.RUN_STATE_COMPLETED
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_RESULT if completed else EnvelopeKind.ENVELOPE_KIND_FAILURE,
        task_id=task.spec.task_id,
        sender_organization_id=receipt.organization_id,
        digest=receipt.result_digest,
        task_digest=task.digest,
        run_id=receipt.run_id,
        attempt=receipt.attempt,
    )
    inline = BytesSource(inline_envelope) if inline_envelope else None
    source = inline or await station.fetch(receipt.result_digest, closing, most_bytes=run.result_size_bytes)
    try:
        sender = node_sender(station, receipt.organization_id)
        opening, ends_at = partial(station.open, source, expected, sender), task.spec.expires_at.ToDatetime(UTC)
        return await at_last(station, opening, until=ends_at)
    except EnvelopeRejected as error:
        log.warning("result.rejected", run_id=receipt.run_id, cause=error.cause_text)
        raise
