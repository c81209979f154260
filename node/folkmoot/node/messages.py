"""Messages between sibling runs: sealed for one receiver, numbered per pair of runs, journaled on both sides.

A message leaves when the journal has it and is sent again until the server has stored it. One that comes in is believed only if a node
of the sibling's organization has sealed it for exactly this run's place; what fails is dropped as if it had never come. Algorithms get
messages in order; one that is missing before a later one is reported (MESSAGE_GAP), never skipped.

The content of a MESSAGE envelope is the SendMessageRequest itself: so the signature covers whom it is for, where payloads are plain too.
"""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC
from functools import partial

import structlog

from folkmoot.node import message_records
from folkmoot.node.awaiting import at_last
from folkmoot.node.keys import KeyAwaited
from folkmoot.node.sender import Sender
from folkmoot.node.station import Station
from folkmoot.node.waiting import Signal
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    Expected,
    FolkmootError,
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
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame, PeerMessage
from folkmoot.v1.proxy_service_pb2 import ReceiveMessagesResponse, SendMessageRequest
from folkmoot.v1.task_pb2 import MessageGrant

log = structlog.get_logger()

MOST_UNACCEPTED = 256
"""Messages of a run that the server need not have stored yet; the next one waits. They are held in memory and sent again at each attach."""

MESSAGE_CONTENT_TYPE = "application/vnd.folkmoot.message"


class Messages:
    """The messages of one run."""

    def __init__(self, station: Station, run: Sender, send: Callable[[NodeFrame], None]) -> None:
        self._station = station
        self._run = run
        self._send = send
        self._arrived = Signal()
        self._accepted = Signal()
        self._unaccepted = 0

    async def send(self, request: SendMessageRequest) -> None:
        """Seal and journal a message; return when it is journaled, and few enough wait for the server."""
        self._require_granted()
        self._run.require_allowed()
        to_run_id = self._sibling(request.organization_id)
        record = self._run.record
        context = self._station.context(
            EnvelopeKind.ENVELOPE_KIND_MESSAGE, record, content_type=MESSAGE_CONTENT_TYPE, sequence=request.sequence
        )
        content = serialize(request)
        sealed = self._station.seal_small(content, context, (request.organization_id,))
        message = PeerMessage(
            task_id=record.task_id,
            from_run_id=record.run_id,
            to_run_id=to_run_id,
            sequence=request.sequence,
            envelope=sealed.envelope,
        )
        departure = self._station.departure(
            EnvelopeKind.ENVELOPE_KIND_MESSAGE, sealed.digest, len(sealed.envelope), (request.organization_id,)
        )
        async with self._run.leaving():
            is_new = await self._station.journal.transact(
                lambda db: message_records.insert_outgoing(db, record, message, digest(content), departure)
            )
            if is_new:
                failpoint("node.message.journaled")
                self._run.left(len(sealed.envelope))
        if is_new:
            self._send(NodeFrame(peer_message=message))
            self._unaccepted += 1
        await self._few_unaccepted()

    async def _few_unaccepted(self) -> None:
        run_id = self._run.record.run_id
        while self._unaccepted >= MOST_UNACCEPTED:
            accepted = self._accepted.changed()
            self._unaccepted = await self._station.journal.transact(
                lambda connection: message_records.count_unaccepted(connection, run_id)
            )
            if self._unaccepted >= MOST_UNACCEPTED:
                await accepted.wait()

    async def receive(self, cursors: Mapping[str, int]) -> AsyncGenerator[ReceiveMessagesResponse, None]:
        """Stream messages in order, from the last one that was received of each organization."""
        self._require_granted()
        for organization_id in cursors:
            self._sibling(organization_id)
        received = {run_id: cursors.get(organization_id, 0) for organization_id, run_id in self._siblings()}
        while True:
            arrived = self._arrived.changed()
            found = await self._station.journal.transact(self._later_than(received))
            for from_run_id, sequence, envelope in found:
                if sequence != received[from_run_id] + 1:
                    raise FolkmootError(
                        ErrorReason.ERROR_REASON_MESSAGE_GAP,
                        f"message {received[from_run_id] + 1} of {self._organization(from_run_id)} is missing, "
                        f"and message {sequence} has come",
                    )
                message = PeerMessage(from_run_id=from_run_id, sequence=sequence, envelope=envelope)
                content = await self._open(message)
                received[from_run_id] = sequence
                yield ReceiveMessagesResponse(
                    organization_id=self._organization(from_run_id),
                    sequence=sequence,
                    content_type=content.content_type,
                    content=content.content,
                )
            if not found:
                async with self._run.waiting_for_others():
                    await arrived.wait()

    async def _open(self, message: PeerMessage) -> SendMessageRequest:
        """Open a journaled message, as soon as the key is here that it is sealed to; its sender may have gone since it came."""
        station, task = self._station, self._run.task
        source, expected = _envelope(task, message)
        opening = partial(station.open, source, expected, station.node_sender(expected.sender_organization_id))
        opened = await at_last(station, opening, until=task.spec.expires_at.ToDatetime(UTC))
        return _content(station, opened, message)

    def accepted(self) -> None:
        """The server has stored a message."""
        self._accepted.notify()

    def arrived(self) -> None:
        """A message has been journaled."""
        self._arrived.notify()

    def _later_than(self, received: Mapping[str, int]) -> Callable[[sqlite3.Connection], list[tuple[str, int, bytes]]]:
        after, to_run_id = dict(received), self._run.record.run_id
        return lambda connection: [
            (from_run_id, sequence, envelope)
            for from_run_id, last in after.items()
            for sequence, envelope in message_records.incoming_after(connection, to_run_id, from_run_id, last)
        ]

    def _require_granted(self) -> None:
        if self._run.task.spec.grant.messages != MessageGrant.MESSAGE_GRANT_SIBLINGS:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED, "the task was created without the right to send messages"
            )

    def _siblings(self) -> list[tuple[str, str]]:
        """The other runs of the task: organization and run."""
        own = self._run.record.run_id
        return [(each.organization_id, each.run_id) for each in self._run.task.spec.receivers if each.run_id != own]

    def _sibling(self, organization_id: str) -> str:
        siblings = dict(self._siblings())
        if organization_id not in siblings:
            names = ", ".join(self._station.state.organization_name(each) for each in siblings) or "nobody"
            raise FolkmootError(
                ErrorReason.ERROR_REASON_ORGANIZATION_NOT_FOUND,
                f"{organization_id} has no sibling run; this run can message {names}",
            )
        return siblings[organization_id]

    def _organization(self, run_id: str) -> str:
        return self._run.task.receiver(run_id).organization_id


async def check_message(station: Station, task: VerifiedTask, message: PeerMessage) -> None:
    """Check a message to this organization's run of a task that comes in now.

    One that is sealed to a key which is not here yet passes: everything else about it is verified. Raises EnvelopeRejected, TaskNotProven
    (no such sibling), LedgerStale, LedgerFork.
    """
    source, expected = _envelope(task, message)
    if fingerprint(inspect(source).context.sender_key_id) not in station.state.nodes:
        await station.catch_up()
    try:
        opened = await station.open(source, expected, station.live_sender(expected.sender_organization_id))
    except KeyAwaited as awaited:
        log.warning("node.key_awaited", run_id=message.to_run_id, detail=str(awaited))
    else:
        _content(station, opened, message)


def _envelope(task: VerifiedTask, message: PeerMessage) -> tuple[BytesSource, Expected]:
    """A message's envelope, and the place that it must be bound to."""
    source = BytesSource(message.envelope)
    context = inspect(source).context
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
    return source, expected


def _content(station: Station, opened: Opened, message: PeerMessage) -> SendMessageRequest:
    content = parse(SendMessageRequest, opened.content())
    if (content.organization_id, content.sequence) != (station.organization_id, message.sequence):
        raise EnvelopeRejected("it is a message to somebody else, or another one")
    return content
