"""A run's last word, sealed to those who may read it: its result, or what is said of a failure."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC
from typing import TYPE_CHECKING

import structlog

from folkmoot.node.journal.records import StoredEnvelope
from folkmoot.node.waiting import first_of
from folkmoot.transport.failures import FAILURE_CONTENT_TYPE
from folkmoot.trust import KeyUnpublished, OrganizationNotFound, Sealing
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.proxy_service_pb2 import Failure
from folkmoot.v1.task_pb2 import WaitReason

if TYPE_CHECKING:
    from folkmoot.node.proxy.runs import Run

log = structlog.get_logger()


async def seal_result(
    run: "Run", content: AsyncIterator[bytes], content_type: str
) -> tuple[StoredEnvelope, StoredEnvelope | None]:
    """The result, sealed to those who receive it, and of a held run for those who look at it too."""
    envelopes, sealing = run.station.envelopes, await _sealing(run, content_type, run.result_receivers)
    if run.held:
        looking = await _sealing(run, content_type, (run.station.organization_id,))
        return await envelopes.seal_twice(content, sealing, looking)
    return await envelopes.seal(content, sealing), None


async def _sealing(
    run: "Run", content_type: str, organization_ids: tuple[str, ...]
) -> Callable[[Iterator[bytes]], Sealing]:
    """What seals the result to those who read it, as soon as the ledger shows a key for each of them."""
    ends_at = run.task.spec.expires_at.ToDatetime(UTC)
    while True:
        moved = run.station.moved.changed()
        kind = EnvelopeKind.ENVELOPE_KIND_RESULT
        try:
            context = run.station.context(kind, run.record, content_type=content_type)
            return run.station.sealing(context, organization_ids)
        except KeyUnpublished as unpublished:
            if run.station.now() >= ends_at:
                raise
            log.warning("run.key_awaited", run_id=run.record.run_id, detail=str(unpublished))
        async with run.reports.waiting(WaitReason.WAIT_REASON_KEY):
            await first_of(moved.wait(), timeout_seconds=(ends_at - run.station.now()).total_seconds())


def seal_failure(run: "Run", failure: Failure, organization_ids: tuple[str, ...]) -> StoredEnvelope | None:
    """What is said of a failure, sealed; nothing, where one of its readers has left, or has no key now."""
    context = run.station.context(EnvelopeKind.ENVELOPE_KIND_FAILURE, run.record, content_type=FAILURE_CONTENT_TYPE)
    try:
        sealed = run.station.seal_small(failure.SerializeToString(), context, organization_ids)
    except (OrganizationNotFound, KeyUnpublished) as error:
        log.warning("run.failure_not_told", run_id=run.record.run_id, detail=str(error))
        return None
    return StoredEnvelope(sealed.digest, len(sealed.envelope), sealed.envelope)
