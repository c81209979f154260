"""One session of a node's link, as link.proto numbers it: `handle` takes what comes, `next_frames` gives what goes.

Attach and Exchange drive the same session. What is delivered is read from rows; in memory are only how far this session
has sent and what is no delivery (Welcome, Accepted, LedgerHead). A session that is lost is lost without harm: the next
one goes on behind what the node has acknowledged.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection

from folkmoot.server.collaborations import heads
from folkmoot.server.context import Caller
from folkmoot.server.core import NodeKey
from folkmoot.server.nodes import beginnings
from folkmoot.server.nodes.beginnings import Beginning, Begun
from folkmoot.server.nodes.frames import check_messages, check_update, taken_together
from folkmoot.server.nodes.link_errors import shutting_down, violation
from folkmoot.server.nodes.window import Window
from folkmoot.server.store import deliveries, links, placement, reports
from folkmoot.server.store.instance_rows import Standing
from folkmoot.server.store.reports import Fate
from folkmoot.server.store.touched import Touched
from folkmoot.server.wakers import link_topic
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.timeouts import HEARTBEAT_SECONDS
from folkmoot.trust import State
from folkmoot.trust.encoding import uuid7
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.link_pb2 import (
    Accepted,
    Availability,
    Drain,
    Heartbeat,
    Hello,
    NodeFrame,
    Offer,
    PeerMessage,
    RunUpdate,
    ServerFrame,
)
from folkmoot.v1.signed_pb2 import Signed

if TYPE_CHECKING:
    from folkmoot.server.nodes.dispatch import Dispatch

SILENT_INTERVALS = 3
FRAMES_UNDER_WAY = 16
"""Most frames of a stream that wait for their commits at once."""

T = TypeVar("T")
Work = Callable[[Connection, Touched], T]


class LinkSession:
    """A node's session, from its Hello to its end."""

    def __init__(self, dispatch: "Dispatch", caller: Caller) -> None:
        self.caller = caller
        self.node = NodeKey(caller.genesis, caller.node_id)
        self.link_id: int | None = None
        self.epoch = 0
        self.session_id = ""
        self.turn = asyncio.Lock()
        """Held by a call of Exchange, one at a time."""
        self._dispatch = dispatch
        self._core = dispatch.core
        self._window = Window()
        self._frames: deque[ServerFrame] = deque()
        self._withheld: deque[Accepted] = deque()
        self._look = True
        self._stirred = asyncio.Event()
        self._listening = ExitStack()
        self._heard_at = self._time()
        self._over = False
        self._error: Exception | None = None

    # ---- what comes ------------------------------------------------------------------------------------------------

    async def listen(self, requests: AsyncIterator[Sequence[NodeFrame]]) -> None:
        """Handle the frames of a stream until it ends, and the session with it.

        They take effect in their order, because writes do; none waits until the one before is on disk.
        """
        room = asyncio.Semaphore(FRAMES_UNDER_WAY)

        async def handle(frames: Sequence[NodeFrame]) -> None:
            try:
                await self.handle(frames)
            except Exception as error:  # noqa: BLE001 -- whoever sends frames to the node raises it
                self.end(error)
            finally:
                room.release()

        try:
            async for request in requests:
                for frames in taken_together(request):
                    await room.acquire()
                    handling = self._dispatch.begin(handle(frames))
                    if self.link_id is None:
                        await handling
        except FolkmootError as error:  # a frame that breaks the contract, or a node that was revoked
            self.end(error)
        for _ in range(FRAMES_UNDER_WAY):
            await room.acquire()
        self.end()

    async def handle(self, frames: Sequence[NodeFrame]) -> None:
        """Take a frame of the node, or messages that came together; raise PROTOCOL_VIOLATION, SESSION_REPLACED, TOO_LARGE."""
        self._heard_at = self._time()
        if self._error is not None:
            raise self._error
        frame = frames[-1]
        kind = frame.WhichOneof("frame")
        if (kind == "hello") != (self.link_id is None):
            raise violation("A session begins with one Hello, and with nothing else")
        match kind:
            case "hello":
                await self._begin(frame.acknowledged, frame.hello)
            case "run_update":
                await self._update(frame.acknowledged, frame.run_update)
            case "peer_message" | "received":
                await self._messages(frames)
            case "offer":
                await self._offer(frame.acknowledged, frame.offer)
            case "checked":
                await self._acknowledge(frame.acknowledged)
                self._dispatch.checks.answered(self, frame.checked)
            case "head_statement":
                await self._acknowledge(frame.acknowledged)
                await self._state_head(frame.head_statement)
            case "bye":
                await self._acknowledge(frame.acknowledged)
                self.end()
            case _:
                await self._acknowledge(frame.acknowledged)

    async def _begin(self, acknowledged: int, hello: Hello) -> None:
        if self._core.draining.is_set():
            raise shutting_down()
        beginnings.check(hello, self.caller)
        state = await self._core.ledgers.state(self.caller.genesis)
        keep_head = self._keeping(hello.head_statement, state) if hello.HasField("head_statement") else None
        now = self._core.clock()
        begin = Beginning(
            hello=hello,
            caller=self.caller,
            state=state,
            acknowledged=acknowledged,
            instance_id=self._dispatch.instances.id,
            now=now,
            keep_head=keep_head,
            is_shared=self._core.store.shared,
            record=beginnings.event(hello, self.caller, now),
        )
        await self._dispatch.write(begin, then=lambda begun: self._begun(begun, state))
        await self._drained(hello.availability)

    def _begun(self, begun: Begun, state: State) -> None:
        self.link_id, self.epoch = begun.link_id, begun.epoch
        if self._over:  # its stream broke off meanwhile
            self._dispatch.detached(self)
            return
        self._window = Window(begun.acknowledged, resyncing=begun.resynced)
        self._look = begun.has_more or self._core.store.shared  # another instance may have woken nobody yet
        self.session_id = uuid7(self._core.clock(), self._core.random)
        self._listening.enter_context(self._dispatch.waker.listen(link_topic(begun.link_id), self._stir))
        for frame in beginnings.greeting(begun, state, session_id=self.session_id, now=self._core.clock()):
            self.post(frame)
        self._dispatch.attached(self)
        if begun.instance_id != self._dispatch.instances.id:
            self.end(links.session_replaced())  # buried meanwhile: nobody would miss a session in that name

    async def _update(self, acknowledged: int, told: RunUpdate) -> None:
        check_update(told)
        now = self._core.clock()

        def work(connection: Connection, touched: Touched) -> bool:
            return reports.update(connection, self._link, told, now=now, touched=touched)

        await self._acknowledge(acknowledged, work)

    async def _offer(self, acknowledged: int, offered: Offer) -> None:
        now = self._core.clock()

        def work(connection: Connection, touched: Touched) -> None:
            links.offer(connection, self._link, offered, now=now)
            placement.relocate(connection, self.caller.genesis, self.caller.organization_id, touched)

        await self._acknowledge(acknowledged, work)
        await self._drained(offered.availability)

    async def _drained(self, availability: Availability.ValueType) -> None:
        """Of a node that is about to go, others take what it has not started, if its tasks allow another attempt."""
        if availability == Availability.AVAILABILITY_DRAINING:
            await self._dispatch.take_over(self._link, self.caller.genesis, only_unstarted=True, epoch=self.epoch)

    async def _messages(self, frames: Sequence[NodeFrame]) -> None:
        acknowledged, told = frames[-1].acknowledged, frames[-1].received
        if frames[-1].HasField("received"):
            await self._acknowledge(
                acknowledged, lambda connection, touched: reports.read(connection, self._link, told, touched)
            )
        else:
            await self._store(acknowledged, [each.peer_message for each in frames])

    async def _store(self, acknowledged: int, sent: Sequence[PeerMessage]) -> None:
        check_messages(sent)
        now = self._core.clock()

        def work(connection: Connection, touched: Touched) -> list[Fate]:
            fates = reports.messages(connection, self._link, sent, now=now, touched=touched)
            failpoint("server.message.stored")
            return fates

        fates = await self._acknowledge(acknowledged, work)
        failpoint("server.message.committed")
        for each, fate in zip(sent, fates or (), strict=True):
            self._answer(each, fate)

    def _answer(self, sent: PeerMessage, fate: Fate) -> None:
        """Tell the node that a message is stored: now, or when the run that receives has read enough of those before."""
        if fate is Fate.NOT_KNOWN:
            self._core.log.warning("link.message_not_known", node_id=self.caller.node_id, from_run_id=sent.from_run_id)
            return
        accepted = Accepted(from_run_id=sent.from_run_id, to_run_id=sent.to_run_id, sequence=sent.sequence)
        if fate is Fate.UNREAD:
            self._withheld.append(accepted)
        else:
            self.post(ServerFrame(accepted=accepted))

    async def _state_head(self, signed: Signed) -> None:
        """Keep what the node says of its ledger. One that is not the node's own, or ahead of the clock, is no use to anybody."""
        keep = self._keeping(signed, await self._core.ledgers.state(self.caller.genesis))
        if keep is not None:
            await self._core.store.write(keep)

    def _keeping(self, signed: Signed, state: State) -> Callable[[Connection], None] | None:
        now, log = self._core.clock(), self._core.log
        return heads.keeping(signed, state=state, node=self.caller, now=now, log=log)

    async def _acknowledge(self, acknowledged: int, work: Work[T] | None = None) -> T | None:
        """Note what the node has journaled, and do what else its frame asks for, in one transaction."""
        if self._window.resynced(acknowledged):
            self._stir()
        news = self._window.is_news(acknowledged)
        if not news and work is None:
            return None
        now = self._core.clock()

        def both(connection: Connection, touched: Touched) -> T | None:
            links.require(connection, self._link, self.epoch)
            if news:
                deliveries.acknowledge(connection, self._link, acknowledged, now=now, touched=touched)
                failpoint("server.acknowledgement.stored")
            return work(connection, touched) if work else None

        done = await self._dispatch.write(both, order=self._link)
        if news:
            self._window.acknowledged = acknowledged
            self._stirred.set()  # the window is open again, if it was not
        return done

    # ---- what goes -------------------------------------------------------------------------------------------------

    def post(self, frame: ServerFrame) -> None:
        """Send something that is no delivery."""
        self._frames.append(frame)
        self._stirred.set()

    def compare(self, standing: Standing) -> None:
        """Look again if the row has more than was sent, and end if it is another session's: a wake-up was lost."""
        if standing.epoch != self.epoch:
            self.end(links.session_replaced())
        elif standing.last_sequence > self._window.sent:
            self._stir()

    def rewind(self) -> None:
        """Send again what was not acknowledged: an answer of Exchange may have been lost on its way."""
        self._window.rewind()
        self._look = True

    async def next_frames(self, wait_seconds: float) -> list[ServerFrame]:
        """Return what there is to send, waiting for it if need be; nothing if nothing comes, or if the session is over."""
        waited_until = self._time() + wait_seconds
        while True:
            self._stirred.clear()
            due = await self._due()
            frames = [*self._frames, *due]
            self._frames.clear()
            if frames:
                self._count(frames)
                return frames
            if self._error is not None:
                raise self._error
            if self._over or self._time() >= waited_until:
                return []
            # One timer, rather than a task of its own for each wait: thousands of links wait here, and are stirred at once.
            timer = asyncio.get_running_loop().call_at(waited_until, self._stirred.set)
            try:
                await self._stirred.wait()
            finally:
                timer.cancel()

    def _count(self, frames: Iterable[ServerFrame]) -> None:
        """Count the inputs that ride along as fetched by the node's organization."""
        size_bytes = sum(len(frame.assign.input_envelope) for frame in frames if frame.HasField("assign"))
        self._dispatch.fetched.count(self.caller.organization_id, size_bytes)

    def idle(self) -> list[ServerFrame]:
        """Return what to send when an interval has passed with nothing to tell; raise if the node never said Hello."""
        if self.link_id is not None:
            return [ServerFrame(heartbeat=Heartbeat())]
        if self.silent_seconds > SILENT_INTERVALS * HEARTBEAT_SECONDS:
            raise violation("A session begins with Hello, and none came")
        return []

    async def _due(self) -> list[ServerFrame]:
        """Return the next deliveries, as far as the node's window is open."""
        room = self._window.room
        if not self._look or self._over or self.link_id is None or not room:
            return []
        self._look = False
        link_id, epoch, after, withheld = self.link_id, self.epoch, self._window.sent, tuple(self._withheld)
        may_be_replaced = self._core.store.shared  # by a session at another instance

        def look(connection: Connection) -> tuple[list[ServerFrame], bool, list[Accepted]]:
            if may_be_replaced:
                links.require(connection, link_id, epoch)
            read = [each for each in withheld if not reports.is_unread(connection, each)]
            return *deliveries.pending(connection, link_id, after=after, most=room), read

        try:
            due, more, read = await self._core.store.read(look)
        except FolkmootError as error:
            self.end(error)
            return []
        for accepted in read:
            self._withheld.remove(accepted)
            self.post(ServerFrame(accepted=accepted))
        if due:
            self._window.sent_up_to(due[-1].sequence)
        if more:
            self._look = True
        return due

    # ---- its end ---------------------------------------------------------------------------------------------------

    def end(self, error: Exception | None = None) -> None:
        """End the session: without an error its stream just ends."""
        if self._over:
            return
        self._over, self._error = True, error
        self._listening.close()
        self._stirred.set()
        self._dispatch.detached(self)

    def drain(self) -> None:
        """Tell the node to attach elsewhere, and end."""
        self.post(ServerFrame(drain=Drain()))
        self.end(shutting_down())

    @property
    def sent(self) -> int:
        """Up to which delivery this session may have told its node."""
        return self._window.most_sent

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    @property
    def ended_well(self) -> bool:
        """Whether it has ended without an error that the node should learn of."""
        return self._over and self._error is None

    @property
    def silent_seconds(self) -> float:
        """How long nothing has been heard of the node. One that waits in Exchange is there."""
        return 0.0 if self.turn.locked() else self._time() - self._heard_at

    @property
    def _link(self) -> int:
        if self.link_id is None:
            raise violation("A session begins with Hello")
        return self.link_id

    def _stir(self) -> None:
        self._look = True
        self._stirred.set()

    @staticmethod
    def _time() -> float:
        return asyncio.get_running_loop().time()
