"""Ledgers: the server orders and stores entries, and holds no key.

An entry is appended if the rules of replay, the same ones that every client and node applies, accept it on the ledger as
it stands. Entries and their projections (lists of collaborations, members and nodes) are written in one transaction; the
verified state is kept in memory and moves on when that is durable. An entry proves itself, whoever brings it: that is how a
server that was restored from a backup gets back from anybody what it lost.

Where instances of the server share a database, the row of a ledger's head is what an entry is appended by, and what the
state in memory is compared with before it is used: calls that come together share the question.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from sqlalchemy import Connection

from folkmoot.server import access
from folkmoot.server.audit import events
from folkmoot.server.collaborations import entries
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Clock, wait_for
from folkmoot.server.store import ledger_rows
from folkmoot.server.store.engine import Store
from folkmoot.server.wakers import Waker, ledger_topic
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust import Position, State, digest, parse, replay
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import ledger_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import Signed

Moved = Callable[[State], None]
Also = Callable[[Connection], None]
Effect = Callable[[], None]
Follower = Callable[[Connection, State | None, State, events.Author], Effect]


@dataclass
class _Ledger:
    """A ledger in memory. `state` is None only while it is being founded."""

    state: State | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    confirming: asyncio.Lock = field(default_factory=asyncio.Lock)
    confirmations: int = 0


class Ledgers:
    """The ledgers of this server, each with its verified state."""

    def __init__(self, store: Store, clock: Clock, draining: asyncio.Event, waker: Waker) -> None:
        self._store = store
        self._waker = waker
        self._listening = ExitStack()
        self._following: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._draining = draining
        self._ledgers: dict[bytes, _Ledger] = {}
        self._opening = asyncio.Lock()
        self._callbacks: list[Moved] = []
        self._followers: list[Follower] = []

    def on_moved(self, callback: Moved) -> None:
        """Have the callback called, in the event loop, with the state of each ledger that has grown."""
        self._callbacks.append(callback)

    def follow(self, follower: Follower) -> None:
        """Have rows that depend on ledgers follow them: called in the transaction of an entry, with the state before and after.

        What it returns is called when that is durable, after the callbacks.
        """
        self._followers.append(follower)

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def state(self, genesis: bytes) -> State:
        """Return the verified state; raise COLLABORATION_NOT_FOUND."""
        ledger = await self._open(genesis)
        if ledger is None or ledger.state is None:
            raise entries.not_found()
        return ledger.state

    async def state_for_caller(self, genesis: bytes, *, or_former: bool = False) -> State:
        """Return the state if the caller may see it: who is neither in it nor asks to be learns nothing.

        `or_former`: who was a member may see it, too.
        """
        state, who = await self.state(genesis), caller()
        if who.kind == options.CALLER_USER:
            visible = (
                access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_VIEW) == options.SCOPE_GLOBAL
                or state.is_member(who.organization_id)
                or (or_former and who.organization_id in state.memberships)
                or await self._asks(state, who.organization_id)
                or await self._may_follow(state, who.organization_id)
            )
        else:
            visible = who.genesis == genesis
        if not visible:
            raise entries.not_found()
        return state

    async def _asks(self, state: State, organization_id: str) -> bool:
        """Tell whether the organization has asked to join; one that was a member, whether it asks now."""
        now = self._clock() if organization_id in state.memberships else None
        return await self._store.read(
            lambda connection: ledger_rows.has_asked(connection, state.genesis, organization_id, now)
        )

    async def _may_follow(self, state: State, organization_id: str) -> bool:
        """Tell whether the organization is a member of what this collaboration succeeds: it looks at it before it asks to join."""
        old = await self._open(state.predecessor.genesis) if state.predecessor else None
        return old is not None and old.state is not None and old.state.is_member(organization_id)

    async def _ends_for_caller(self, genesis: bytes) -> int | None:
        """Return the last entry that the caller may see, None if there is no such bound.

        Who was a member, or an admitted node, sees how that ended, and nothing behind it.
        """
        state, who = await self.state_for_caller(genesis, or_former=True), caller()
        if who.kind == options.CALLER_NODE and who.node_id not in state.nodes:
            former = state.former_nodes.get(who.node_id)
            return former.until.sequence if former and former.until else -1
        try:
            await self.state_for_caller(genesis)
        except FolkmootError:
            ended = state.memberships[caller().organization_id][-1].until
            return ended.sequence if ended else None
        return None

    async def read(self, genesis: bytes, from_sequence: int) -> AsyncIterator[list[Signed]]:
        """Yield the entries from a sequence on, in batches, as far as the caller may see them."""
        last = await self._ends_for_caller(genesis)
        async for batch in self._entries(genesis, from_sequence):
            shown = batch if last is None else batch[: max(0, last + 1 - from_sequence)]
            if not shown:
                return
            yield shown
            from_sequence += len(batch)

    async def watch(self, genesis: bytes, from_sequence: int) -> AsyncIterator[list[Signed]]:
        """Yield the entries from a sequence on, then each new one, until the caller may see no more of them.

        Raises SHUTTING_DOWN when the server stops.
        """
        ledger = await self._open(genesis)
        if ledger is None:
            raise entries.not_found()
        while True:
            grown = ledger.grown
            async for batch in self.read(genesis, from_sequence):
                yield batch
                from_sequence += len(batch)
            if await self._ends_for_caller(genesis) is not None:
                return
            await wait_for(grown, draining=self._draining, at_most_seconds=self._waker.poll_seconds)

    async def _entries(self, genesis: bytes, from_sequence: int) -> AsyncIterator[list[Signed]]:
        while batch := await self._store.read(lambda connection: ledger_rows.batch(connection, genesis, from_sequence)):  # noqa: B023
            yield batch
            from_sequence += len(batch)

    def check_admitted(self, who: Caller) -> None:
        """Raise NODE_NOT_APPROVED for a node that was revoked, NOT_A_MEMBER for one whose organization is gone; others pass."""
        if who.kind not in (options.CALLER_NODE, options.CALLER_INVITED_NODE):
            return
        ledger = self._ledgers.get(who.genesis)
        if ledger is None or ledger.state is None:
            return  # nobody has moved a ledger that nobody has used yet
        if who.kind == options.CALLER_NODE and who.node_id not in ledger.state.nodes:
            raise entries.not_admitted(ledger.state, who.node_id)
        if who.organization_id not in ledger.state.members:
            raise entries.not_a_member(ledger.state, who.organization_id)

    # ---- appending -------------------------------------------------------------------------------------------------

    async def author(self, signed: Signed) -> tuple[bytes, PublicKey]:
        """Return an entry's collaboration, and the governance key of the organization that makes it, as the ledger has it.

        Raises MALFORMED, COLLABORATION_NOT_FOUND, NOT_A_MEMBER.
        """
        entry = parse(ledger_pb2.LedgerEntry, signed.body)
        if entries.is_founding(entry):
            return digest(signed.body), parse(ledger_pb2.CollaborationCreate, entry.data).governance_key
        state = await self.state(entry.genesis)
        member = state.members.get(entry.organization_id)
        if member is None:
            raise entries.not_a_member(state, entry.organization_id)
        return state.genesis, member.governance_key

    async def append(self, signed: Signed, *, also: Also | None = None) -> Position:
        """Append an entry that follows; the same entry again gives its place again. `also` is done in the same transaction.

        Raises LEDGER_HEAD_MOVED, LEDGER_ENTRY_INVALID (or the reason that fits better), LEDGER_UPGRADE_NEEDED, MALFORMED,
        COLLABORATION_NOT_FOUND, NOT_ALLOWED.
        """
        entry = parse(ledger_pb2.LedgerEntry, signed.body)
        founding = entries.is_founding(entry)
        entries.check_may_append(caller(), entry, signed, founding=founding)
        entry_hash = digest(signed.body)
        genesis = entry_hash if founding else entry.genesis
        ledger = await self._open(genesis)
        if ledger is None:
            if not founding:
                raise entries.not_found()
            ledger = self._ledgers.setdefault(genesis, _Ledger())
        try:
            return await self._append(ledger, signed, entry, entry_hash, also or _nothing)
        finally:
            if ledger.state is None:
                self._ledgers.pop(genesis, None)

    async def _append(
        self, ledger: _Ledger, signed: Signed, entry: ledger_pb2.LedgerEntry, entry_hash: bytes, also: Also
    ) -> Position:
        genesis = entry.genesis or entry_hash
        async with ledger.lock:
            while True:
                if ledger.state is not None:
                    await self._confirm(ledger, genesis)
                if ledger.state is not None and ledger.state.hash_at(entry.sequence) == entry_hash:
                    if also is not _nothing:
                        await self._store.write(also)
                    return Position(entry.sequence, entry_hash)
                state = entries.following(ledger.state, signed, entry, now=self._clock())
                try:
                    await self._store.write(
                        self._appending(ledger.state, state, signed, entry, also),
                        then=lambda effects: self._moved(ledger, state, effects),  # noqa: B023
                    )
                except ledger_rows.Overtaken:
                    await self._catch_up(ledger, genesis)
                    continue
                failpoint("server.ledger.committed")
                self._waker.wake([ledger_topic(genesis)])
                return state.position

    def _appending(
        self, before: State | None, state: State, signed: Signed, entry: ledger_pb2.LedgerEntry, also: Also
    ) -> Callable[[Connection], list[Effect]]:
        now = self._clock()
        author = events.author(now=now, genesis=state.genesis)
        record = author(
            f"ledger.{entry.intent}",
            {"genesis": state.genesis.hex(), "sequence": entry.sequence, "organization_id": entry.organization_id},
        )

        def operation(connection: Connection) -> list[Effect]:
            also(connection)
            ledger_rows.append(connection, before, state, signed, now=now)
            record(connection)
            failpoint("server.ledger.stored")
            return [follower(connection, before, state, author) for follower in self._followers]

        return operation

    def _moved(self, ledger: _Ledger, state: State, effects: list[Effect]) -> None:
        if ledger.state is None or ledger.state.position.sequence < state.position.sequence:
            self._grown(ledger, state)
        for effect in effects:
            effect()

    def _grown(self, ledger: _Ledger, state: State) -> None:
        if ledger.state is None:
            self._listen(state.genesis)
        ledger.state = state
        self._ledgers[state.genesis] = ledger
        grown, ledger.grown = ledger.grown, asyncio.Event()
        grown.set()
        for callback in self._callbacks:
            callback(state)

    # ---- memory ----------------------------------------------------------------------------------------------------

    async def remember(self) -> None:
        """Verify the ledgers whose nodes were here last: after a restart these come back all at once, and would wait for that."""
        with suppress(FolkmootError):  # whoever needs the ledger is told
            for genesis in await self._store.read(ledger_rows.attached_to_last):
                if not self._draining.is_set():
                    await self._open(genesis)

    async def _open(self, genesis: bytes) -> _Ledger | None:
        """Return a ledger, verified from its first entry when it is used for the first time; None: there is none."""
        if (known := self._ledgers.get(genesis)) and known.state:
            await self._confirm(known, genesis)
            return known
        async with self._opening:
            if genesis not in self._ledgers:
                stored = [entry async for batch in self._entries(genesis, 0) for entry in batch]
                if not stored:
                    return None
                self._ledgers[genesis] = _Ledger(await asyncio.to_thread(replay, stored, expected_genesis=genesis))
                self._listen(genesis)
        known = self._ledgers.get(genesis)
        return known if known and known.state else None

    # ---- other instances -------------------------------------------------------------------------------------------

    async def look(self) -> None:
        """Follow what other instances have appended to the ledgers in memory, whether or not somebody was woken."""
        known = {genesis: ledger.state for genesis, ledger in self._ledgers.items() if ledger.state}
        heads = await self._store.read(lambda connection: ledger_rows.heads(connection, known.keys())) if known else {}
        for genesis, sequence in heads.items():
            if sequence > known[genesis].position.sequence:
                await self._confirm(self._ledgers[genesis], genesis)

    def close(self) -> None:
        """Follow nothing any more."""
        self._listening.close()
        for task in self._following:
            task.cancel()

    def _listen(self, genesis: bytes) -> None:
        """Follow a ledger from now on as soon as others have appended to it."""
        if not self._store.shared:
            return

        def woken() -> None:
            ledger = self._ledgers.get(genesis)
            if ledger is not None and ledger.state is not None:
                task = asyncio.get_running_loop().create_task(self._confirm_quietly(ledger, genesis))
                self._following.add(task)
                task.add_done_callback(self._following.discard)

        self._listening.enter_context(self._waker.listen(ledger_topic(genesis), woken))

    async def _confirm_quietly(self, ledger: _Ledger, genesis: bytes) -> None:
        with suppress(FolkmootError):  # the database is away: the next look follows
            await self._confirm(ledger, genesis)

    async def _confirm(self, ledger: _Ledger, genesis: bytes) -> None:
        """Bring a state to what the database has now. Who waits for a question that begins after he came asks none himself."""
        if not self._store.shared:
            return
        come_at = ledger.confirmations
        async with ledger.confirming:
            if ledger.confirmations > come_at:
                return
            ledger.confirmations += 1
            newest = await self._store.read(lambda connection: ledger_rows.head(connection, genesis))
            if ledger.state is None or newest is None or newest > ledger.state.position.sequence:
                await self._catch_up(ledger, genesis)

    async def _catch_up(self, ledger: _Ledger, genesis: bytes) -> None:
        """Replay what was appended by others."""
        before = ledger.state
        first = before.position.sequence + 1 if before else 0
        appended = [entry async for batch in self._entries(genesis, first) for entry in batch]
        if not appended:
            return
        state = await asyncio.to_thread(replay, appended, state=before, expected_genesis=genesis)
        if ledger.state is before:  # else somebody else was faster
            self._grown(ledger, state)


def _nothing(_connection: Connection) -> None:
    """Do nothing besides."""
