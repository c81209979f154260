"""What messages between sibling runs are on their way: envelopes, each bound to its sender's run, its number and its receiver.

The content of a MESSAGE envelope is the SendMessageRequest itself: so the signature covers whom it is for, where payloads are plain too.
"""

from datetime import UTC
from functools import partial

import structlog

from folkmoot.node.journal.message_records import Outgoing
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.station import Station
from folkmoot.node.trust.awaiting import at_last
from folkmoot.node.trust.keys import KeyAwaited
from folkmoot.node.trust.senders import live_sender, node_sender
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    Inspected,
    Opened,
    VerifiedTask,
    digest,
    fingerprint,
    inspect,
    parse,
    serialize,
)
from folkmoot.trust.spec import attempts_allowed
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.link_pb2 import PeerMessage
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest

MESSAGE_CONTENT_TYPE = "application/vnd.folkmoot.message"

log = structlog.get_logger()


def seal_message(station: Station, record: RunRecord, to_run_id: str, request: SendMessageRequest) -> Outgoing:
    """Seal a message of a run to its receiver."""
    kind, receivers = EnvelopeKind.ENVELOPE_KIND_MESSAGE, (request.organization_id,)
    context = station.context(kind, record, content_type=MESSAGE_CONTENT_TYPE, sequence=request.sequence)
    content = serialize(request)
    sealed = station.seal_small(content, context, receivers)
    message = PeerMessage(
        task_id=record.task_id,
        from_run_id=record.run_id,
        to_run_id=to_run_id,
        sequence=request.sequence,
        envelope=sealed.envelope,
    )
    departure = station.departure(kind, sealed.digest, len(sealed.envelope), receivers)
    return Outgoing(message, digest(content), departure)


async def open_journaled(station: Station, task: VerifiedTask, message: PeerMessage) -> SendMessageRequest:
    """Open a journaled message, as soon as the key is here that it is sealed to; its sender may have gone since it came."""
    source, expected, inspected = _envelope(task, message)
    sender = node_sender(station, expected.sender_organization_id)
    opening = partial(station.open, source, expected, sender, inspected)
    opened = await at_last(station, opening, until=task.spec.expires_at.ToDatetime(UTC))
    return _content(station, opened, message)


async def check_message(station: Station, task: VerifiedTask, message: PeerMessage) -> SendMessageRequest | None:
    """Check a message to this organization's run of a task that comes in now; return what it says.

    One that is sealed to a key which is not here yet passes: everything else about it is verified. Raises EnvelopeRejected, TaskNotProven
    (no such sibling), LedgerStale, LedgerFork.
    """
    source, expected, inspected = _envelope(task, message)
    if fingerprint(inspected.context.sender_key_id) not in station.state.nodes:
        await station.catch_up()
    try:
        sender = live_sender(station, expected.sender_organization_id)
        opened = await station.open(source, expected, sender, inspected)
    except KeyAwaited as awaited:
        log.warning("node.key_awaited", run_id=message.to_run_id, detail=str(awaited))
        return None
    return _content(station, opened, message)


def _envelope(task: VerifiedTask, message: PeerMessage) -> tuple[BytesSource, Expected, Inspected]:
    """A message's envelope, the place that it must be bound to, and what the envelope says of itself."""
    source = BytesSource(message.envelope)
    inspected = inspect(source)
    context = inspected.context
    if not 1 <= context.attempt <= attempts_allowed(task.spec):
        raise EnvelopeRejected("it comes from an attempt that the task does not allow")
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE,
        task_id=task.spec.task_id,
        sender_organization_id=task.receiver(message.from_run_id).organization_id,
        task_digest=task.digest,
        run_id=message.from_run_id,
        attempt=context.attempt,
        sequence=message.sequence,
    )
    return source, expected, inspected


def _content(station: Station, opened: Opened, message: PeerMessage) -> SendMessageRequest:
    content = parse(SendMessageRequest, opened.content())
    if (content.organization_id, content.sequence) != (station.organization_id, message.sequence):
        raise EnvelopeRejected("it is a message to somebody else, or another one")
    return content
