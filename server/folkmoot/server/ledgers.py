"""Ledgers: the server orders and stores entries, and holds no key.

An entry is appended if the rules of replay, the same ones that every client and node applies, accept it on the ledger as
it stands. Entries and their projections (lists of collaborations, members and nodes) are written in one transaction; the
verified state is kept in memory and moves on when that is durable. An entry proves itself, whoever brings it: that is how a
server that was restored from a backup gets back from anybody what it lost.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from folkmoot.server import access, events
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Clock, wait_for
from folkmoot.server.store import tables
from folkmoot.server.store.engine import Store
from folkmoot.trust import Position, State, digest, fingerprint, parse, replay
from folkmoot.trust.errors import FolkmootError, LedgerEntryInvalid, LedgerHeadMoved
from folkmoot.v1 import errors_pb2, ledger_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import Signed

Moved = Callable[[bytes], None]
Also = Callable[[Connection], None]

BATCH_ENTRIES = 256
BATCH_BYTES = 1024 * 1024
FOUNDING_INTENT = "collaboration.create"
NODE_INTENT = "node.approve"

# Rules of replay whose breach has a reason of its own in the contract.
_REASONS = {
    "SIGNATURE": errors_pb2.ERROR_REASON_SIGNATURE_INVALID,
    "NAME_TAKEN": errors_pb2.ERROR_REASON_NAME_TAKEN,
    "INVITATION": errors_pb2.ERROR_REASON_INVITATION_INVALID,
    "INVITATION_EXPIRED": errors_pb2.ERROR_REASON_INVITATION_INVALID,
    "INVITATION_USED": errors_pb2.ERROR_REASON_INVITATION_INVALID,
}


@dataclass
class _Ledger:
    """A ledger in memory. `state` is None only while it is being founded."""

    state: State | None = None
    grown: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Ledgers:
    """The ledgers of this server, each with its verified state."""

    def __init__(self, store: Store, clock: Clock, draining: asyncio.Event) -> None:
        self._store = store
        self._clock = clock
        self._draining = draining
        self._ledgers: dict[bytes, _Ledger] = {}
        self._opening = asyncio.Lock()
        self._callbacks: list[Moved] = []

    def on_moved(self, callback: Moved) -> None:
        """Have the callback called, in the event loop, with the genesis of each ledger that has grown."""
        self._callbacks.append(callback)

    # ---- reading ---------------------------------------------------------------------------------------------------

    async def state(self, genesis: bytes) -> State:
        """Return the verified state; raise COLLABORATION_NOT_FOUND."""
        ledger = await self._open(genesis)
        if ledger is None or ledger.state is None:
            raise not_found()
        return ledger.state

    async def state_for_caller(self, genesis: bytes) -> State:
        """Return the state if the caller may see it: who is neither in it nor asks to be learns nothing."""
        state, who = await self.state(genesis), caller()
        if who.kind == options.CALLER_USER:
            visible = (
                access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_VIEW) == options.SCOPE_GLOBAL
                or state.is_member(who.organization_id)
                or await self._store.read(lambda connection: _has_asked(connection, genesis, who.organization_id))
            )
        else:
            visible = who.genesis == genesis
        if not visible:
            raise not_found()
        return state

    async def entries(self, genesis: bytes, from_sequence: int) -> AsyncIterator[list[Signed]]:
        """Yield the entries from a sequence on, in batches."""
        while batch := await self._store.read(lambda connection: _batch(connection, genesis, from_sequence)):  # noqa: B023
            yield batch
            from_sequence += len(batch)

    async def watch(self, genesis: bytes, from_sequence: int) -> AsyncIterator[list[Signed]]:
        """Yield the entries from a sequence on, then each new one; raise SHUTTING_DOWN when the server stops."""
        ledger = await self._open(genesis)
        if ledger is None:
            raise not_found()
        while True:
            grown = ledger.grown
            async for batch in self.entries(genesis, from_sequence):
                yield batch
                from_sequence += len(batch)
            await wait_for(grown, draining=self._draining)

    # ---- appending -------------------------------------------------------------------------------------------------

    async def author(self, signed: Signed) -> tuple[bytes, PublicKey]:
        """Return an entry's collaboration, and the governance key of the organization that makes it, as the ledger has it.

        Raises MALFORMED, COLLABORATION_NOT_FOUND, NOT_A_MEMBER.
        """
        entry = parse(ledger_pb2.LedgerEntry, signed.body)
        if is_founding(entry):
            return digest(signed.body), parse(ledger_pb2.CollaborationCreate, entry.data).governance_key
        state = await self.state(entry.genesis)
        member = state.members.get(entry.organization_id)
        if member is None:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_NOT_A_MEMBER,
                f"The organization {entry.organization_id} is not a member of {state.name}",
                metadata={"organization_id": entry.organization_id},
            )
        return state.genesis, member.governance_key

    async def append(self, signed: Signed, *, also: Also | None = None) -> Position:
        """Append an entry that follows; the same entry again gives its place again. `also` is done in the same transaction.

        Raises LEDGER_HEAD_MOVED, LEDGER_ENTRY_INVALID (or the reason that fits better), LEDGER_UPGRADE_NEEDED, MALFORMED,
        COLLABORATION_NOT_FOUND, NOT_ALLOWED.
        """
        entry = parse(ledger_pb2.LedgerEntry, signed.body)
        founding = is_founding(entry)
        _check_may_append(caller(), entry, signed, founding=founding)
        entry_hash = digest(signed.body)
        genesis = entry_hash if founding else entry.genesis
        ledger = await self._open(genesis)
        if ledger is None:
            if not founding:
                raise not_found()
            ledger = self._ledgers.setdefault(genesis, _Ledger())
        try:
            return await self._append(ledger, signed, entry, entry_hash, also or _nothing)
        finally:
            if ledger.state is None:
                self._ledgers.pop(genesis, None)

    async def _append(
        self, ledger: _Ledger, signed: Signed, entry: ledger_pb2.LedgerEntry, entry_hash: bytes, also: Also
    ) -> Position:
        async with ledger.lock:
            if ledger.state is not None and ledger.state.hash_at(entry.sequence) == entry_hash:
                if also is not _nothing:
                    await self._store.write(also)
                return Position(entry.sequence, entry_hash)
            state = self._follow(ledger.state, signed, entry)
            await self._store.write(
                self._appending(ledger.state, state, signed, entry, also),
                then=lambda _none: self._moved(ledger, state),
            )
            return state.position

    def _follow(self, before: State | None, signed: Signed, entry: ledger_pb2.LedgerEntry) -> State:
        if before is not None and entry.sequence <= before.position.sequence:
            raise LedgerHeadMoved(
                f"The newest entry is {before.position.sequence}, and entry {entry.sequence} is another one",
                metadata={"sequence": str(before.position.sequence)},
            )
        try:
            return replay([signed], state=before, now=self._clock())
        except LedgerEntryInvalid as error:
            reason = _REASONS.get(error.metadata.get("rule", ""))
            if reason is None:
                raise
            raise FolkmootError(reason, error.message, metadata=error.metadata) from error

    def _appending(
        self, before: State | None, state: State, signed: Signed, entry: ledger_pb2.LedgerEntry, also: Also
    ) -> Callable[[Connection], None]:
        now = self._clock()
        record = events.prepare(
            intent=f"ledger.{entry.intent}",
            data={"genesis": state.genesis.hex(), "sequence": entry.sequence, "organization_id": entry.organization_id},
            now=now,
            genesis=state.genesis,
        )

        def operation(connection: Connection) -> None:
            also(connection)
            connection.execute(
                insert(tables.ledger_entries).values(
                    genesis=state.genesis,
                    sequence=entry.sequence,
                    hash=state.position.hash,
                    signed=signed.SerializeToString(),
                    received_at=now,
                )
            )
            _project(connection, before, state)
            record(connection)

        return operation

    def _moved(self, ledger: _Ledger, state: State) -> None:
        ledger.state = state
        self._ledgers[state.genesis] = ledger
        grown, ledger.grown = ledger.grown, asyncio.Event()
        grown.set()
        for callback in self._callbacks:
            callback(state.genesis)

    # ---- memory ----------------------------------------------------------------------------------------------------

    async def _open(self, genesis: bytes) -> _Ledger | None:
        """Return a ledger, verified from its first entry when it is used for the first time; None: there is none."""
        if (known := self._ledgers.get(genesis)) and known.state:
            return known
        async with self._opening:
            if genesis not in self._ledgers:
                stored = [entry async for batch in self.entries(genesis, 0) for entry in batch]
                if not stored:
                    return None
                self._ledgers[genesis] = _Ledger(await asyncio.to_thread(replay, stored, expected_genesis=genesis))
        known = self._ledgers.get(genesis)
        return known if known and known.state else None


def is_founding(entry: ledger_pb2.LedgerEntry) -> bool:
    """Tell whether the entry is one that begins a ledger."""
    return entry.intent == FOUNDING_INTENT and not entry.genesis


def not_found() -> FolkmootError:
    """Return the error for a collaboration that is not there, or not for the caller."""
    return FolkmootError(errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND, "There is no such collaboration for you here")


def _check_may_append(who: Caller, entry: ledger_pb2.LedgerEntry, signed: Signed, *, founding: bool) -> None:
    """Check that the caller may bring the entry; whether it is right, replay decides.

    Users may bring entries of any organization, nodes those of their own collaboration: that gives back what a server that
    was restored from a backup has lost. It makes nobody speak for an organization; only `possession` does.
    """
    if who.kind == options.CALLER_USER:
        if founding and not access.scope(who, options.RESOURCE_COLLABORATION, options.OPERATION_CREATE):
            raise access.lacking(options.RESOURCE_COLLABORATION, options.OPERATION_CREATE)
    elif founding or entry.genesis != who.genesis:
        raise access.not_allowed("You authenticated for another collaboration than the entry's")
    elif who.kind == options.CALLER_INVITED_NODE and (
        entry.intent != NODE_INTENT or fingerprint(signed.key_id) != who.node_id
    ):
        raise access.not_allowed("An invitation lets its bearer append one entry: the one that makes it a node")


def _nothing(_connection: Connection) -> None:
    """Do nothing besides."""


# ---- rows ----------------------------------------------------------------------------------------------------------


def _project(connection: Connection, before: State | None, state: State) -> None:
    """Bring the lists to what the ledger says now."""
    head = {"head_sequence": state.position.sequence, "head_hash": state.position.hash}
    connection.execute(
        upsert(tables.collaborations)
        .values(
            genesis=state.genesis,
            name=state.name,
            reference=str(state.reference),
            encryption=state.encryption,
            **head,
        )
        .on_conflict_do_update([tables.collaborations.c.genesis], set_=head)
    )
    old_members = before.members if before else {}
    _insert_all(
        connection,
        tables.members,
        (
            {"genesis": state.genesis, "organization_id": member.organization_id, "name": member.name}
            for member in state.members.values()
            if member.organization_id not in old_members
        ),
    )
    for gone in old_members.keys() - state.members.keys():
        table = tables.members
        connection.execute(delete(table).where(table.c.genesis == state.genesis, table.c.organization_id == gone))
    for admitted in state.members.keys() - old_members.keys():
        requests = tables.join_requests
        mine = (requests.c.genesis == state.genesis) & (requests.c.organization_id == admitted)
        connection.execute(update(requests).where(mine).values(open=False))
    old_nodes = before.nodes if before else {}
    _insert_all(
        connection,
        tables.nodes,
        (
            {
                "genesis": state.genesis,
                "node_id": node.node_id,
                "organization_id": node.organization_id,
                "name": node.name,
            }
            for node in state.nodes.values()
            if node.node_id not in old_nodes
        ),
    )
    for gone in old_nodes.keys() - state.nodes.keys():
        nodes = tables.nodes
        connection.execute(delete(nodes).where(nodes.c.genesis == state.genesis, nodes.c.node_id == gone))
        heads = tables.node_heads
        connection.execute(delete(heads).where(heads.c.genesis == state.genesis, heads.c.node_id == gone))
    for admitted in state.nodes.keys() - old_nodes.keys():
        attempts = tables.node_attempts
        connection.execute(delete(attempts).where(attempts.c.genesis == state.genesis, attempts.c.node_id == admitted))


def _insert_all(connection: Connection, table: Table, rows: Iterable[dict[str, object]]) -> None:
    if values := list(rows):
        connection.execute(insert(table), values)


def _batch(connection: Connection, genesis: bytes, from_sequence: int) -> list[Signed]:
    table = tables.ledger_entries
    query = (
        select(table.c.signed)
        .where(table.c.genesis == genesis, table.c.sequence >= from_sequence)
        .order_by(table.c.sequence)
        .limit(BATCH_ENTRIES)
    )
    batch: list[Signed] = []
    size_bytes = 0
    for data in connection.execute(query).yield_per(16).scalars():
        batch.append(Signed.FromString(data))
        size_bytes += len(data)
        if size_bytes >= BATCH_BYTES:
            break
    return batch


def _has_asked(connection: Connection, genesis: bytes, organization_id: str) -> bool:
    table = tables.join_requests
    query = select(table.c.digest).where(table.c.genesis == genesis, table.c.organization_id == organization_id)
    return bool(organization_id) and connection.execute(query.limit(1)).first() is not None
