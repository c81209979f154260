"""Messages between sibling runs: sealed for one receiver, numbered per pair of runs, journaled on both sides.

A message leaves when the journal has it and is sent again until the server has stored it. One that comes in is believed only if a node
of the sibling's organization has sealed it for exactly this run's place; what fails is dropped as if it had never come. Algorithms get
messages in order; one that is missing before a later one is reported (MESSAGE_GAP), never skipped.

The content of a MESSAGE envelope is the SendMessageRequest itself: so the signature covers whom it is for, where payloads are plain too.
"""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC
from functools import partial

import structlog

from folkmoot.node import message_records
from folkmoot.node.awaiting import at_last
from folkmoot.node.keys import KeyAwaited
from folkmoot.node.sender import Sender
from folkmoot.node.station import Station
from folkmoot.node.waiting import Signal, first_of
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
from folkmoot.v1.link_pb2 import NodeFrame, PeerMessage, Received
from folkmoot.v1.proxy_service_pb2 import ReceiveMessagesResponse, ReceiveUntil, SendMessageRequest
from folkmoot.v1.task_pb2 import MessageGrant

log = structlog.get_logger()

MOST_UNACCEPTED = 64
"""Messages from one run to another that the server need not have accepted yet; the next one waits. They are sent again at each attach."""

UNREAD_SECONDS = 3600.0
"""How long a message waits for a sibling that does not read those before it: then TOO_MANY."""

OVERTAKEN_SECONDS = 1.0
"""How long a message waits for those that the algorithm has sent before it."""

MOST_OPENED = 64
"""Messages that are kept open in memory until the algorithm asks for them."""

OPENED_BYTES = 16 * 1024
"""The largest of them."""

TOLD_EVERY = 32
"""After how many messages that an algorithm has had the server is told: the sender may go on."""

LEND_AFTER_SECONDS = 0.05
"""A run that waits for siblings lends its slot if it waits longer than this."""

MESSAGE_CONTENT_TYPE = "application/vnd.folkmoot.message"


class Messages:
    """The messages of one run."""

    def __init__(self, station: Station, run: Sender, send: Callable[[NodeFrame], None]) -> None:
        self._station = station
        self._run = run
        self._send = send
        self._arrived = Signal()
        self._accepted = Signal()
        self._unaccepted: defaultdict[str, int] = defaultdict(int)
        self._handed: dict[str, int] = {}
        self._handing = Signal()
        self._opened: dict[tuple[str, int], tuple[bytes, SendMessageRequest]] = {}
        self._had: dict[str, int] = {}
        self._told: dict[str, int] = {}

    async def send(self, request: SendMessageRequest) -> None:
        """Seal and journal a message; return when it is journaled, and few enough wait for the server. Raises TOO_MANY."""
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
        await self._in_order(to_run_id, request.sequence)
        async with self._run.leaving():
            is_new = await self._station.journal.transact(
                lambda db: message_records.insert_outgoing(db, record, message, digest(content), departure)
            )
            if is_new:
                failpoint("node.message.journaled")
                self._run.left(len(sealed.envelope))
        if is_new:
            self._send(NodeFrame(peer_message=message))
            self._unaccepted[to_run_id] += 1
        if self._unaccepted[to_run_id] >= MOST_UNACCEPTED:
            await self._few_unaccepted(to_run_id)

    async def _in_order(self, to_run_id: str, sequence: int) -> None:
        """Calls that have overtaken each other on their way to the proxy wait a moment for those before them."""
        if to_run_id not in self._handed:
            last = partial(message_records.last_outgoing, from_run_id=self._run.record.run_id, to_run_id=to_run_id)
            known = await self._station.journal.transact(last)
            self._handed.setdefault(to_run_id, known)
        while sequence > self._handed[to_run_id] + 1:
            handed = self._handing.changed()
            await first_of(handed.wait(), timeout_seconds=OVERTAKEN_SECONDS)
            if not handed.is_set():
                return  # the journal says what is missing
        self._handed[to_run_id] = max(self._handed[to_run_id], sequence)
        self._handing.notify()

    async def _few_unaccepted(self, to_run_id: str) -> None:
        """Wait until the server has accepted what was sent to a run before: it does when it has it, and that run reads."""
        counting = partial(
            message_records.count_unaccepted_to, from_run_id=self._run.record.run_id, to_run_id=to_run_id
        )
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                while True:
                    accepted = self._accepted.changed()
                    self._unaccepted[to_run_id] = await self._station.journal.transact(counting)
                    if self._unaccepted[to_run_id] < MOST_UNACCEPTED:
                        return
                    await self._wait_for_others(accepted)
        except TimeoutError:
            name = self._station.state.organization_name(self._organization(to_run_id))
            raise FolkmootError(
                ErrorReason.ERROR_REASON_TOO_MANY,
                f"{name} has not read what was sent to it for {UNREAD_SECONDS / 60:.0f} minutes: have it receive, or send less",
            ) from None

    async def receive(
        self, cursors: Mapping[str, int], *, until: ReceiveUntil.ValueType
    ) -> AsyncGenerator[ReceiveMessagesResponse, None]:
        """Stream messages in order, from the last one that was received of each organization; what was had is forgotten."""
        self._require_granted()
        for organization_id in cursors:
            self._sibling(organization_id)
        received = {run_id: cursors.get(organization_id, 0) for organization_id, run_id in self._siblings()}
        confirmed = {run_id: last for run_id, last in received.items() if last}
        any_yet = False
        while True:
            arrived = self._arrived.changed()
            found = await self._station.journal.transact(self._later_than(received, forgetting=confirmed))
            confirmed = {}
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
            self._note_had(received)
            any_yet = any_yet or bool(found)
            if found:
                continue
            if any_yet and until == ReceiveUntil.RECEIVE_UNTIL_IDLE:
                return
            await self._wait_for_others(arrived)

    async def _wait_for_others(self, event: asyncio.Event) -> None:
        """Wait; if it takes longer than a moment, without a slot."""
        await first_of(event.wait(), timeout_seconds=LEND_AFTER_SECONDS)
        if not event.is_set():
            async with self._run.waiting_for_others():
                await event.wait()

    def _note_had(self, received: Mapping[str, int]) -> None:
        """Have senders go on, each time that the algorithm has had some more of theirs."""
        self._had.update(received)
        for frame in self.had(at_least=TOLD_EVERY):
            self._send(frame)

    def had(self, *, at_least: int) -> list[NodeFrame]:
        """What the server is to be told of messages that the algorithm has had, if they are so many since it was last told."""
        frames = []
        for from_run_id, sequence in self._had.items():
            if sequence - self._told.get(from_run_id, 0) >= at_least:
                self._told[from_run_id] = sequence
                received = Received(from_run_id=from_run_id, to_run_id=self._run.record.run_id, sequence=sequence)
                frames.append(NodeFrame(received=received))
        return frames

    def had_all(self) -> list[NodeFrame]:
        """`had`, for a server that may not have been told yet."""
        self._told = {}
        return self.had(at_least=1)

    async def _open(self, message: PeerMessage) -> SendMessageRequest:
        """Open a journaled message, as soon as the key is here that it is sealed to; its sender may have gone since it came."""
        envelope, content = self._opened.pop((message.from_run_id, message.sequence), (b"", None))
        if content is not None and envelope == message.envelope:
            return content
        station, task = self._station, self._run.task
        source, expected, _ = _envelope(task, message)
        opening = partial(station.open, source, expected, station.node_sender(expected.sender_organization_id))
        opened = await at_last(station, opening, until=task.spec.expires_at.ToDatetime(UTC))
        return _content(station, opened, message)

    def accepted(self) -> None:
        """The server has stored a message."""
        self._accepted.notify()

    def arrived(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        """A message has been journaled; if it was opened, and is small, it need not be opened once more."""
        if content is not None and len(self._opened) < MOST_OPENED and len(message.envelope) <= OPENED_BYTES:
            self._opened[message.from_run_id, message.sequence] = (message.envelope, content)
        self._arrived.notify()

    def _later_than(
        self, received: Mapping[str, int], *, forgetting: Mapping[str, int]
    ) -> Callable[[sqlite3.Connection], list[tuple[str, int, bytes]]]:
        after, to_run_id = dict(received), self._run.record.run_id

        def query(connection: sqlite3.Connection) -> list[tuple[str, int, bytes]]:
            for from_run_id, last in forgetting.items():
                message_records.forget_read(connection, to_run_id, from_run_id, last)
            return [
                (from_run_id, sequence, envelope)
                for from_run_id, last in after.items()
                for sequence, envelope in message_records.incoming_after(connection, to_run_id, from_run_id, last)
            ]

        return query

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


async def check_message(station: Station, task: VerifiedTask, message: PeerMessage) -> SendMessageRequest | None:
    """Check a message to this organization's run of a task that comes in now; return what it says.

    One that is sealed to a key which is not here yet passes: everything else about it is verified. Raises EnvelopeRejected, TaskNotProven
    (no such sibling), LedgerStale, LedgerFork.
    """
    source, expected, sender_key_id = _envelope(task, message)
    if fingerprint(sender_key_id) not in station.state.nodes:
        await station.catch_up()
    try:
        opened = await station.open(source, expected, station.live_sender(expected.sender_organization_id))
    except KeyAwaited as awaited:
        log.warning("node.key_awaited", run_id=message.to_run_id, detail=str(awaited))
        return None
    return _content(station, opened, message)


def _envelope(task: VerifiedTask, message: PeerMessage) -> tuple[BytesSource, Expected, bytes]:
    """A message's envelope, the place that it must be bound to, and the key that it says has signed it."""
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
    return source, expected, context.sender_key_id


def _content(station: Station, opened: Opened, message: PeerMessage) -> SendMessageRequest:
    content = parse(SendMessageRequest, opened.content())
    if (content.organization_id, content.sequence) != (station.organization_id, message.sequence):
        raise EnvelopeRejected("it is a message to somebody else, or another one")
    return content
