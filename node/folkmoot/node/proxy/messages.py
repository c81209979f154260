"""Messages between sibling runs: sealed for one receiver, numbered per pair of runs, journaled on both sides.

A message leaves when the journal has it and is sent again until the server has stored it. One that comes in is believed only if a node
of the sibling's organization has sealed it for exactly this run's place; what fails is dropped as if it had never come. Algorithms get
messages in order; one that is missing before a later one is reported (MESSAGE_GAP), never skipped.
"""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import TypeAlias

from folkmoot.node.journal import message_records
from folkmoot.node.proxy.inbox import Inbox
from folkmoot.node.proxy.message_envelopes import open_journaled, seal_message
from folkmoot.node.proxy.sender import Sender
from folkmoot.node.station import Station
from folkmoot.node.waiting import Signal, first_of
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import NodeFrame, PeerMessage, Received
from folkmoot.v1.proxy_service_pb2 import ReceiveMessagesResponse, ReceiveUntil, SendMessageRequest
from folkmoot.v1.task_pb2 import MessageGrant

MOST_UNACCEPTED = 128
"""Messages from one run to another that the server need not have accepted yet; the next one waits. They are sent again at each attach."""

UNREAD_SECONDS = 3600.0
"""How long a message waits for a sibling that does not read those before it: then TOO_MANY."""

SEALED_AT_ONCE = 16
"""Messages that are sealed, each in a fraction of a millisecond, before others get their turn."""

OVERTAKEN_SECONDS = 1.0
"""How long a message waits for those that the algorithm has sent before it."""

TAKEN_BYTES = 1024 * 1024
"""Content of messages that are given to the algorithm at once; then the call is answered, though there may be more."""

FORGOTTEN_EVERY = 64
"""After how many messages that the algorithm has received they are dropped from the journal."""

TOLD_EVERY = 32
"""After how many messages that an algorithm has had the server is told: the sender may go on."""

LEND_AFTER_SECONDS = 0.05
"""A run that waits for siblings lends its slot if it waits longer than this."""

_Incoming: TypeAlias = tuple[str, int, SendMessageRequest | bytes]
"""The run that sends, the number, and what the message says; its envelope, if it is not open yet."""


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
        self._leaving = asyncio.Lock()
        """Held while messages leave together: there is room for as many as were counted."""
        self._inbox = Inbox()
        self._forgotten: defaultdict[str, int] = defaultdict(int)
        self._had: dict[str, int] = {}
        self._told: dict[str, int] = {}

    async def send(self, request: SendMessageRequest) -> None:
        """Seal and journal a message; return when it is journaled, and few enough wait for the server. Raises TOO_MANY."""
        self._require_granted()
        to_run_id = self._sibling(request.organization_id)
        await self._in_order(to_run_id, request.sequence)
        await self._leave([request])
        if not self._room(to_run_id):
            await self._make_room(to_run_id, 1)

    async def send_some(self, requests: Sequence[SendMessageRequest]) -> int:
        """Seal and journal messages together, as many from the first one on as there is room for; return how many. Raises TOO_MANY."""
        self._require_granted()
        first = self._sibling(requests[0].organization_id)
        await self._in_order(first, requests[0].sequence)
        while True:
            async with self._leaving:
                if fitting := self._fitting(requests):
                    await self._leave(fitting)
                    return len(fitting)
            await self._make_room(first, max(1, min(len(requests), MOST_UNACCEPTED // 2)))

    def _room(self, to_run_id: str) -> int:
        """How many messages may leave for a run before the server accepts one."""
        return max(0, MOST_UNACCEPTED - self._unaccepted[to_run_id])

    def _fitting(self, requests: Sequence[SendMessageRequest]) -> list[SendMessageRequest]:
        """Those from the first one on that there is room for."""
        fitting: list[SendMessageRequest] = []
        taken: Counter[str] = Counter()
        for request in requests:
            to_run_id = self._sibling(request.organization_id)
            taken[to_run_id] += 1
            if taken[to_run_id] > self._room(to_run_id):
                break
            fitting.append(request)
        return fitting

    async def _leave(self, requests: Sequence[SendMessageRequest]) -> None:
        """Seal messages, journal them in one step, and send them."""
        self._run.require_allowed()
        record = self._run.record
        outgoing = []
        for number, request in enumerate(requests, start=1):
            to_run_id = self._sibling(request.organization_id)
            outgoing.append(seal_message(self._station, record, to_run_id, request))
            if number % SEALED_AT_ONCE == 0:
                await asyncio.sleep(0)  # the node has others to serve
        for request in requests:
            self._hand(self._sibling(request.organization_id), request.sequence)
        async with self._run.leaving():
            new = await self._station.journal.transact(lambda db: message_records.insert_outgoing(db, record, outgoing))
            if new:
                failpoint("node.message.journaled")
                self._run.left(sum(len(message.envelope) for message in new))
        for message in new:
            self._send(NodeFrame(peer_message=message))
            self._unaccepted[message.to_run_id] += 1

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

    def _hand(self, to_run_id: str, sequence: int) -> None:
        """A message is on its way into the journal."""
        self._handed[to_run_id] = max(self._handed.get(to_run_id, 0), sequence)
        self._handing.notify()

    async def _make_room(self, to_run_id: str, number: int) -> None:
        """Wait until the server has accepted what was sent to a run before: it does when it has it, and that run reads."""
        counting = partial(
            message_records.count_unaccepted_to, from_run_id=self._run.record.run_id, to_run_id=to_run_id
        )
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                while True:
                    accepted = self._accepted.changed()
                    self._unaccepted[to_run_id] = await self._station.journal.transact(counting)
                    if self._room(to_run_id) >= number:
                        return
                    await self._wait_for_others(accepted)
        except TimeoutError:
            name = self._station.state.organization_name(self._organization(to_run_id))
            raise FolkmootError(
                ErrorReason.ERROR_REASON_TOO_MANY,
                f"{name} has not read what was sent to it for {UNREAD_SECONDS / 60:.0f} minutes: have it receive, or send less",
            ) from None

    async def take(self, cursors: Mapping[str, int]) -> list[ReceiveMessagesResponse]:
        """Wait for messages, and return those that there are; no more when they take TAKEN_BYTES."""
        taken, size_bytes = [], 0
        async with aclosing(self.receive(cursors, until=ReceiveUntil.RECEIVE_UNTIL_IDLE)) as messages:
            async for message in messages:
                taken.append(message)
                size_bytes += len(message.content)
                if size_bytes >= TAKEN_BYTES:
                    break
        return taken

    async def receive(
        self, cursors: Mapping[str, int], *, until: ReceiveUntil.ValueType
    ) -> AsyncGenerator[ReceiveMessagesResponse, None]:
        """Stream messages in order, from the last one that was received of each organization; what was had is forgotten."""
        self._require_granted()
        for organization_id in cursors:
            self._sibling(organization_id)
        received = {run_id: cursors.get(organization_id, 0) for organization_id, run_id in self._siblings()}
        await self._forget(received)
        any_yet = False
        while True:
            arrived = self._arrived.changed()
            found = await self._behind(received)
            try:
                for from_run_id, sequence, content in found:
                    self._require_next(from_run_id, received[from_run_id], sequence)
                    opened = await self._open(from_run_id, sequence, content)
                    received[from_run_id] = sequence
                    self._inbox.had(from_run_id, sequence)
                    yield ReceiveMessagesResponse(
                        organization_id=self._organization(from_run_id),
                        sequence=sequence,
                        content_type=opened.content_type,
                        content=opened.content,
                    )
            finally:
                self._note_had(received)
            any_yet = any_yet or bool(found)
            if found:
                continue
            if any_yet and until == ReceiveUntil.RECEIVE_UNTIL_IDLE:
                return
            await self._wait_for_others(arrived)

    async def _forget(self, received: Mapping[str, int]) -> None:
        """Drop what the algorithm says that it has received: not each time, since that takes a turn of the disk."""
        to_run_id = self._run.record.run_id
        for from_run_id, last in received.items():
            self._inbox.had(from_run_id, last)
            if last - self._forgotten[from_run_id] >= FORGOTTEN_EVERY:
                self._forgotten[from_run_id] = last
                await self._station.journal.transact(
                    partial(message_records.forget_read, to_run_id=to_run_id, from_run_id=from_run_id, sequence=last)
                )

    async def _behind(self, received: Mapping[str, int]) -> "Sequence[_Incoming]":
        """The next messages: those that are open in memory, or else what the journal has."""
        at_hand = self._inbox.at_hand(received)
        if at_hand or not self._inbox.lacks(received):
            return at_hand
        self._inbox.is_whole = True  # but for what comes while the journal is read
        found = await self._station.journal.transact(self._later_than(received))
        if found:
            self._inbox.is_whole = False  # there may be more
        return found

    def _require_next(self, from_run_id: str, last: int, sequence: int) -> None:
        """Raise MESSAGE_GAP unless a message is the next one."""
        if sequence != last + 1:
            raise FolkmootError(
                ErrorReason.ERROR_REASON_MESSAGE_GAP,
                f"message {last + 1} of {self._organization(from_run_id)} is missing, and message {sequence} has come",
            )

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

    async def _open(self, from_run_id: str, sequence: int, envelope: SendMessageRequest | bytes) -> SendMessageRequest:
        if isinstance(envelope, SendMessageRequest):
            return envelope
        message = PeerMessage(from_run_id=from_run_id, sequence=sequence, envelope=envelope)
        return await open_journaled(self._station, self._run.task, message)

    def accepted(self) -> None:
        """The server has stored a message."""
        self._accepted.notify()

    def arrived(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        """A message has been journaled; what it says, if it was opened."""
        self._inbox.put(message, content)
        self._arrived.notify()

    def _later_than(self, received: Mapping[str, int]) -> "Callable[[sqlite3.Connection], list[_Incoming]]":
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
