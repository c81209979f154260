"""Dispatch: which nodes are attached to this server, and the work that goes on by itself.

What is in memory here are hints: sessions, to end the older one of a node at once and to tell of grown ledgers. Whom a
delivery is for and which session is the newest is in rows.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, or_, select

from folkmoot.server.audit import events
from folkmoot.server.audit.usage import Fetched
from folkmoot.server.collaborations.entries import not_admitted
from folkmoot.server.collaborations.ledgers import Effect
from folkmoot.server.context import Caller
from folkmoot.server.core import ConnectionState, Core, NodeKey
from folkmoot.server.instances import Instances
from folkmoot.server.nodes.checks import Checks, Session
from folkmoot.server.nodes.link import SILENT_INTERVALS, LinkSession, Work
from folkmoot.server.nodes.relays import RemoteSession
from folkmoot.server.store import departures, endings, links, placement, reassignment
from folkmoot.server.store.departures import Departure
from folkmoot.server.store.jobs import Joint
from folkmoot.server.store.reassignment import Moved
from folkmoot.server.store.task_tables import AnyRow, node_links
from folkmoot.server.store.touched import Touched
from folkmoot.server.wakers import Waker
from folkmoot.transport.timeouts import HEARTBEAT_SECONDS
from folkmoot.trust import State
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.admin_service_pb2 import Connection as NodeConnection
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import LedgerHead, PolicySummary, ServerFrame

SWEEP_SECONDS = 1.0
EXPIRED_AT_ONCE = 500
MOVED_AT_ONCE = 500
ABANDONED_LOOKED_FOR_EVERY = timedelta(minutes=1)

T = TypeVar("T")
Item = TypeVar("Item")
JointWork = Callable[[Connection, Touched, Sequence[Item]], Sequence[T]]


class Dispatch:
    """The sessions of one instance of the server."""

    def __init__(self, core: Core, waker: Waker) -> None:
        self.core = core
        self.waker = waker
        self.checks = Checks(core)
        self.fetched = Fetched(core)
        self._sessions: dict[int, LinkSession] = {}
        self._by_id: dict[str, LinkSession] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self.instances = Instances(self)
        core.ledgers.on_moved(self._ledger_moved)
        core.ledgers.follow(self._settle_departures)
        self._abandoned_looked_for_at = core.clock()

    async def write(self, work: Work[T], *, then: Callable[[T], None] | None = None, order: Hashable = None) -> T:
        """Do work in a transaction, behind other work of the same order; wake whom it concerns as soon as it is committed."""

        def operation(connection: Connection) -> tuple[T, Touched]:
            touched = Touched()
            return work(connection, touched), touched

        def committed(outcome: tuple[T, Touched]) -> None:
            value, touched = outcome
            if then is not None:
                then(value)
            self.waker.wake(touched.topics)

        value, _ = await self.core.store.write(operation, then=committed, order=order)
        return value

    def joint(self, work: JointWork[Item, T]) -> Callable[[Item], Awaitable[T]]:
        """Return what does work for an item, in one transaction and at once with whatever else waits for the same."""

        def done(connection: Connection, items: Sequence[Item]) -> list[tuple[T, Touched]]:
            touched = Touched()
            first, *others = work(connection, touched, items)
            return [(first, touched), *((value, Touched()) for value in others)]

        def committed(outcome: tuple[T, Touched]) -> None:
            self.waker.wake(outcome[1].topics)

        async def write(item: Item) -> T:
            # In one order: what is done here would meet at the same nodes, and who waits for his turn is joined by others.
            value, _ = await self.core.store.write(Joint(done, item), then=committed, order=done)
            return value

        return write

    # ---- sessions --------------------------------------------------------------------------------------------------

    def open(self, caller: Caller) -> LinkSession:
        """Return a session that waits for its Hello."""
        return LinkSession(self, caller)

    def find(self, caller: Caller, session_id: str) -> LinkSession:
        """Return a session of Exchange; raise SESSION_UNKNOWN."""
        session = self._by_id.get(session_id)
        if session is None or session.ended_well or session.node != NodeKey(caller.genesis, caller.node_id):
            raise FolkmootError(ErrorReason.ERROR_REASON_SESSION_UNKNOWN, "The session is unknown here, or over")
        return session

    def attached(self, session: LinkSession) -> None:
        """Take a session for its node's live one, if it is the newest; end the others."""
        if session.link_id is None:
            return
        other = self._sessions.get(session.link_id)
        if other is not None and other.epoch > session.epoch:
            session.end(links.session_replaced())
            return
        self._sessions[session.link_id] = session
        self._by_id[session.session_id] = session
        if other is not None:
            other.end(links.session_replaced())

    def live(self, link_id: int | None) -> LinkSession | None:
        """Return the node's session, if it is attached to this instance."""
        return None if link_id is None else self._sessions.get(link_id)

    def session_of(self, link: links.Link) -> Session | None:
        """Return what asks a node that is attached, to this instance or to another; None if nobody can."""
        if (session := self.live(link.link_id)) is not None:
            return session
        if link.link_id is None or link.instance_id in ("", self.instances.id):
            return None
        return RemoteSession(self, link.link_id, link.instance_id)

    @property
    def link_ids(self) -> list[int]:
        """The links whose sessions are at this instance."""
        return list(self._sessions)

    def fenced(self) -> None:
        """End all sessions: others have taken them over."""
        for session in tuple(self._sessions.values()):
            session.end(links.session_replaced())

    def detached(self, session: LinkSession) -> None:
        """Forget a session that has ended, and note since when its node is away."""
        self.checks.gone(session)
        link_id, epoch, now = session.link_id, session.epoch, self.core.clock()
        if link_id is None:
            return
        if self._sessions.get(link_id) is session:
            del self._sessions[link_id]

        def detach(connection: Connection, touched: Touched) -> None:
            """What the node can't have got is somebody else's from now on, if there is one."""
            if links.detach(connection, link_id, epoch, sent=session.sent, now=now):
                placement.relocate(connection, session.node.genesis, session.caller.organization_id, touched)

        self.begin(self._note_away(detach))

    async def _note_away(self, detach: Work[None]) -> None:
        """Note it, as soon as there is room on the disk: a node that is taken for attached is given runs."""
        while True:
            try:
                return await self.write(detach)
            except Exception:
                self.core.log.exception("dispatch.away_not_noted")
            if self.core.draining.is_set():
                return None
            with suppress(TimeoutError):
                await asyncio.wait_for(self.core.draining.wait(), SWEEP_SECONDS)

    def _ledger_moved(self, state: State) -> None:
        """Tell the nodes that are attached; one that is admitted no more has no session from now on."""
        grown = ServerFrame(ledger_head=LedgerHead(position=state.position.message()))
        for session in [each for each in self._sessions.values() if each.node.genesis == state.genesis]:
            if session.node.node_id in state.nodes:
                session.post(grown)
            else:
                session.end(not_admitted(state, session.node.node_id))

    def _settle_departures(
        self, connection: Connection, before: State | None, state: State, author: events.Author
    ) -> Effect:
        touched = Touched()
        departure = Departure(
            genesis=state.genesis,
            organization_ids=before.members.keys() - state.members.keys() if before else (),
            node_ids=before.nodes.keys() - state.nodes.keys() if before else (),
        )
        if departure.organization_ids or departure.node_ids:
            settled = departures.settle(connection, departure, now=self.core.clock(), touched=touched)
            for run, reason in settled.ended:
                author("run.expire", {"run_id": run.run_id, "reason": reason})(connection)
            _record_moved(connection, author, settled.moved)
        return lambda: self.waker.wake(touched.topics)

    async def connections(self, nodes: Sequence[NodeKey]) -> Mapping[NodeKey, ConnectionState]:
        """Tell of each of the nodes that ever attached whether it is connected, and what it offers."""
        if not nodes:
            return {}
        wanted = or_(*(and_(node_links.c.genesis == key.genesis, node_links.c.node_id == key.node_id) for key in nodes))
        asked = select(node_links).where(node_links.c.attached_at.is_not(None), wanted)
        rows = await self.core.store.read(lambda connection: connection.execute(asked).all())
        return {NodeKey(row.genesis, row.node_id): _connection(row) for row in rows}

    # ---- what goes on by itself ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin. Without other instances every node is away: who was attached was so to a process that is gone."""
        now = self.core.clock()
        if self.core.store.shared:
            await self.instances.join()
        else:
            await self.core.store.write(lambda connection: links.detach_all(connection, now=now))
        self.begin(self._run())
        self.begin(self.fetched.keep())

    async def _run(self) -> None:
        """Sweep until the server is about to stop; then send all nodes away."""
        while not self.core.draining.is_set():
            try:
                await self.sweep()
            except Exception:
                self.core.log.exception("dispatch.sweep_failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self.core.draining.wait(), SWEEP_SECONDS)
        for session in tuple(self._sessions.values()):
            session.drain()

    async def sweep(self) -> None:
        """End sessions of nodes that have fallen silent, and runs whose time is over."""
        for session in tuple(self._by_id.values()):
            if session.silent_seconds > SILENT_INTERVALS * HEARTBEAT_SECONDS:
                session.end()
                del self._by_id[session.session_id]
        if self.core.store.shared:
            await self.instances.look()
        now = self.core.clock()
        while await self.core.store.read(lambda connection: endings.are_late(connection, now=now)):
            await self.write(
                lambda connection, touched: endings.expire(connection, now=now, touched=touched, most=EXPIRED_AT_ONCE)
            )
        if now - self._abandoned_looked_for_at >= ABANDONED_LOOKED_FOR_EVERY:
            self._abandoned_looked_for_at = now
            await self._expire_abandoned(now)
            await self._reassign(now)

    async def _expire_abandoned(self, now: datetime) -> None:
        """End runs whose node is admitted no more and whose time is over. That is rare, and takes a look at all nodes."""
        while await self.core.store.read(lambda connection: departures.are_late(connection, now=now)):
            await self.write(
                lambda connection, touched: departures.expire(
                    connection, now=now, touched=touched, most=EXPIRED_AT_ONCE
                )
            )

    async def _reassign(self, now: datetime) -> None:
        """Give runs of nodes that have been away for long to others, where their tasks allow it."""
        since = now - timedelta(minutes=self.core.config.reassign_after_minutes)
        for held in await self.core.store.read(lambda connection: reassignment.holding(connection, away_since=since)):
            await self.take_over(held.link_id, held.genesis, only_unstarted=not held.away)

    async def take_over(self, link_id: int, genesis: bytes, *, only_unstarted: bool, epoch: int | None = None) -> None:
        """Have other nodes begin a node's runs anew, as far as tasks allow it and there are such.

        `epoch` is that of the session in whose name this is done, if it is: raises SESSION_REPLACED.
        """
        now = self.core.clock()
        author = events.author(now=now, genesis=genesis)

        def work(connection: Connection, touched: Touched) -> int:
            if epoch is not None:
                links.require(connection, link_id, epoch)
            moved = reassignment.take_over(
                connection, link_id, only_unstarted=only_unstarted, now=now, touched=touched, most=MOVED_AT_ONCE
            )
            _record_moved(connection, author, moved)
            return len(moved)

        while await self.write(work) == MOVED_AT_ONCE:
            pass

    async def close(self) -> None:
        """Send all nodes away, and finish what their sessions have left to write."""
        self.core.draining.set()
        await self.settle()
        if self.core.store.shared:
            with suppress(FolkmootError):  # the database is away: the others find out by themselves
                await self.instances.leave()
        await self.fetched.write()

    async def settle(self) -> None:
        """Wait for what nobody else waits for."""
        while self._under_way:
            await asyncio.wait(tuple(self._under_way))

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that nobody has to wait for, but `close`."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task


def _record_moved(connection: Connection, author: events.Author, moved: Iterable[Moved]) -> None:
    """Leave in the audit trail which attempts count no more."""
    for each in moved:
        data = {"run_id": each.former.run_id, "attempt": each.former.attempt, "link_id": each.former.link_id}
        author("run.reassign", data | {"to_link_id": each.link_id})(connection)


def _connection(row: AnyRow) -> ConnectionState:
    is_away = row.away_since is not None
    return ConnectionState(
        connection=NodeConnection.CONNECTION_AWAY if is_away else NodeConnection.CONNECTION_ONLINE,
        since=row.away_since if is_away else row.attached_at,
        version=row.version,
        policy=PolicySummary.FromString(row.policy),
        availability=row.availability,
        offered_at=row.offered_at or row.attached_at,
    )
