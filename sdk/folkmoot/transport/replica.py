"""A full, verified copy of a collaboration's ledger in a file, kept by every client and node.

Promises: what is in `state` was replayed from entry 0 against the genesis that the user named, by this process. The file only grows.
Several processes may share it. A server that shows another entry where this copy already has one, which follows from those before as
ours does, is caught (LEDGER_FORK): that is remembered until a person removes the evidence. What does not follow is no history, whoever
shows it (LEDGER_ENTRY_INVALID). A server that is merely behind gets back what it lost. Whatever a server sends, memory stays bounded by what
its members have signed, and errors are typed.

The file is a sequence of entries (see folkmoot.transport.records).
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from google.protobuf.message import DecodeError

from folkmoot.transport import timeouts
from folkmoot.transport.calls import TRANSIENT, retrying
from folkmoot.transport.fork import ForkPin
from folkmoot.transport.payloads import Metadata
from folkmoot.transport.records import LENGTH_BYTES, dump_records, load_records
from folkmoot.transport.status import RemoteError, Unreachable
from folkmoot.trust import FolkmootError, Reference, State, digest, fingerprint, parse, replay
from folkmoot.trust.errors import (
    LedgerEntryInvalid,
    LedgerFork,
    LedgerHeadMoved,
    LedgerStale,
    LedgerUpgradeNeeded,
    TrustError,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.key_service_pb2 import AppendLedgerEntryRequest, GetLedgerRequest, GetLedgerResponse
from folkmoot.v1.ledger_pb2 import LedgerEntry
from folkmoot.v1.signed_pb2 import Signed

if TYPE_CHECKING:
    from folkmoot.v1.key_service_pb2_grpc import KeyServiceAsyncStub

log = logging.getLogger("folkmoot.transport")


class _AnotherEntry(Exception):  # noqa: N818 - whether it is an error is not known yet
    """A server shows another entry than the one that is known at its place."""

    def __init__(self, sequence: int, entry: Signed) -> None:
        super().__init__(sequence)
        self.sequence, self.entry = sequence, entry


class Replica:
    """The ledger of one collaboration. `state` is None until the first refresh that brings entries."""

    def __init__(self, folder: Path, reference: Reference) -> None:
        self.reference = reference
        self.state: State | None = None
        self.entries: list[Signed] = []
        self.path = folder / f"{fingerprint(reference.genesis)}.ledger"
        self._pin = ForkPin.beside(self.path, reference)
        self._offset = 0
        self._lock = asyncio.Lock()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked_file() as file:
            self._catch_up(file)

    @property
    def verified(self) -> State:
        """The state; raises FolkmootError while there is none."""
        if self.state is None:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND,
                f"the ledger of {self.reference} has not been fetched from the server",
            )
        return self.state

    # ---- forks -----------------------------------------------------------------------------------------------------

    @property
    def fork(self) -> LedgerFork | None:
        """The fork that was seen, now or in an earlier process; None: there is one history."""
        return self._pin.fork

    def pin_fork(self, fork: LedgerFork, theirs: Signed | None = None) -> LedgerFork:
        """Remember another history that is proven, with what was signed in it; gives the error to raise."""
        sequence = int(fork.metadata.get("sequence", -1))
        ours = self.entries[sequence] if 0 <= sequence < len(self.entries) else None
        return self._pin.set(fork, ours=ours, theirs=theirs, now=datetime.now(UTC))

    # ---- with a server ---------------------------------------------------------------------------------------------

    async def refresh(self, stub: "KeyServiceAsyncStub", *, metadata: Callable[[], Metadata] = tuple) -> State:
        """Fetch what is new, verify it, keep it; give a server that is behind what it lacks.

        Raises LedgerFork, also for one that was seen before; LedgerEntryInvalid, LedgerUpgradeNeeded, WrongCollaboration; RemoteError.
        """
        async with self._lock:
            self._pin.check()
            try:
                await self._follow(stub, metadata)
            except _AnotherEntry as another:
                await self._find_branch(stub, metadata, another)
            return self.verified

    async def append(
        self,
        stub: "KeyServiceAsyncStub",
        make: Callable[[State], Signed],
        *,
        metadata: Callable[[], Metadata] = tuple,
    ) -> Signed:
        """Make an entry on the newest state and append it; when another was faster, fetch, verify and make it anew.

        It is part of the ledger then. Raises as `refresh` does, and LedgerStale when the server says that it has it and does not show it.
        """
        while True:
            entry = make(await self.refresh(stub, metadata=metadata))
            position = self.verified.position
            try:
                await _append(stub, entry, metadata)
            except FolkmootError as error:
                if error.reason != errors_pb2.ERROR_REASON_LEDGER_HEAD_MOVED:
                    raise
                if (await self.refresh(stub, metadata=metadata)).position == position:
                    raise LedgerHeadMoved("the server says that another entry was faster, and shows none") from error
                continue
            await self.refresh(stub, metadata=metadata)
            if all(later.body != entry.body for later in self.entries[position.sequence + 1 :]):
                raise LedgerStale(
                    f"the server says that it has appended the entry to {self.reference}, and does not show it: it withholds it. "
                    "Ask its operator why, and do it again when it is there",
                    metadata={"sequence": str(position.sequence + 1)},
                )
            return entry

    async def _follow(self, stub: "KeyServiceAsyncStub", metadata: Callable[[], Metadata]) -> None:
        try:
            # The newest entry that is known here is asked for again: whoever shows another one there shows a fork.
            length = await self._fetch(stub, max(0, len(self.entries) - 1), metadata)
        except RemoteError as error:
            if not self.entries or error.reason != errors_pb2.ERROR_REASON_COLLABORATION_NOT_FOUND:
                raise
            await self._bring_back(stub, metadata, error)
            return
        if length < len(self.entries):
            await self._heal(stub, metadata)

    async def _fetch(self, stub: "KeyServiceAsyncStub", begin: int, metadata: Callable[[], Metadata]) -> int:
        """Take what the server shows from an entry on; gives how many it has, as far as that shows, and 0 if it shows none.

        A ledger that takes longer than a call is fetched in several.
        """
        while True:
            known = len(self.entries)
            try:
                stream = partial(self._stream, stub, begin, metadata)
                return await retrying(stream, give_up_after_seconds=timeouts.CALL_SECONDS)
            except Unreachable:
                if len(self.entries) == known:
                    raise
                begin = len(self.entries) - 1

    async def _stream(self, stub: "KeyServiceAsyncStub", begin: int, metadata: Callable[[], Metadata]) -> int:
        request, sequence = GetLedgerRequest(genesis=self.reference.genesis, from_sequence=begin), begin
        async for batch in stub.GetLedger(request, metadata=metadata(), timeout=timeouts.CALL_SECONDS):
            sequence = await self._take(batch, sequence)
        return sequence if sequence > begin else 0

    async def _take(self, batch: GetLedgerResponse | None, first: int) -> int:
        """Take a batch that begins with entry `first`; gives the number of the one after it."""
        # gRPC gives None for a message that does not parse.
        if batch is None or not batch.entries:
            raise LedgerEntryInvalid(
                "the server sends a batch of the ledger that is empty or can't be read",
                metadata={"sequence": str(first)},
            )
        entries, known = list(batch.entries), len(self.entries) - first
        self._compare(entries[:known], first)
        if len(entries) > known:
            await asyncio.to_thread(self._keep, entries, first)
        return first + len(entries)

    def _compare(self, theirs: Sequence[Signed], first: int) -> None:
        """Compare entries with those that are known at their places. Raises _AnotherEntry."""
        for sequence, entry in enumerate(theirs, first):
            ours = self.entries[sequence]
            if entry.body == ours.body:
                continue
            claimed = parse(LedgerEntry, entry.body)
            if claimed.sequence != sequence:
                raise LedgerEntryInvalid(
                    f"asked for entry {sequence}, the server sends entry {claimed.sequence}",
                    metadata={"sequence": str(sequence), "rule": "SEQUENCE"},
                )
            raise _AnotherEntry(sequence, entry)

    async def _find_branch(
        self, stub: "KeyServiceAsyncStub", metadata: Callable[[], Metadata], shown: "_AnotherEntry"
    ) -> None:
        """Ask for all of the history that a server shows, up to where it leaves ours. Raises LedgerFork if it does so by the rules."""
        try:
            await self._fetch(stub, 0, metadata)
        except _AnotherEntry as first:
            raise await asyncio.to_thread(self._proven_fork, first) from None
        raise LedgerEntryInvalid(
            f"the server shows now one entry {shown.sequence} of {self.reference}, now another",
            metadata={"sequence": str(shown.sequence)},
        )

    def _proven_fork(self, first: "_AnotherEntry") -> LedgerFork:
        """The fork that an entry proves by following from those before it. Raises LedgerEntryInvalid, LedgerUpgradeNeeded, WrongCollaboration."""
        sequence, ours = first.sequence, self.entries[first.sequence]
        replay([*self.entries[:sequence], first.entry], expected_genesis=self.reference.genesis)
        fork = LedgerFork(
            f"the server shows another entry {sequence} of {self.reference} than it showed before",
            metadata={
                "sequence": str(sequence),
                "ours": digest(ours.body).hex(),
                "theirs": digest(first.entry.body).hex(),
            },
        )
        return self.pin_fork(fork, first.entry)

    # ---- healing ---------------------------------------------------------------------------------------------------

    async def _bring_back(
        self, stub: "KeyServiceAsyncStub", metadata: Callable[[], Metadata], unknown: RemoteError
    ) -> None:
        """Give a server that shows nothing of this ledger all of it, unless it has it; raise what it said if it still shows nothing."""
        try:
            await _append(stub, self.entries[0], metadata)
            if not await _has(stub, self.entries[-1], metadata):
                for entry in self.entries[1:]:
                    await _append(stub, entry, metadata)
            await self._fetch(stub, 0, metadata)
        except RemoteError as error:
            raise unknown from error

    async def _heal(self, stub: "KeyServiceAsyncStub", metadata: Callable[[], Metadata]) -> None:
        """Give the server back what it has lost. Entries prove themselves, so anybody may bring them, several at once too."""
        there = await self._length_there(stub, metadata)
        missing = self.entries[there:]
        for number, entry in enumerate(missing):
            try:
                await _append(stub, entry, metadata)
            except RemoteError as error:
                if error.code in TRANSIENT:
                    raise
                log.warning(
                    "the server lacks entries of %s from %d on, and does not take them from here: %s",
                    self.reference,
                    there + number,
                    error,
                )
                break
        # Who has gone is shown the ledger up to there; a server that has the rest has lost nothing.
        if await self._fetch(stub, max(0, there - 1), metadata) >= there + len(missing):
            log.warning("the server had lost %d entries of %s and got them back", len(missing), self.reference)

    async def _length_there(self, stub: "KeyServiceAsyncStub", metadata: Callable[[], Metadata]) -> int:
        """How many entries a server has that lacks the newest one: found in steps backwards that double."""
        step, begin = 1, len(self.entries) - 1
        while begin > 0:
            begin = max(0, begin - step)
            if length := await self._fetch(stub, begin, metadata):
                return length
            step *= 2
        return 0

    # ---- the file --------------------------------------------------------------------------------------------------

    def _keep(self, received: Sequence[Signed], first: int) -> None:
        """Verify entries and write them down. Of a ledger of a later release, what this one understands is kept."""
        with self._locked_file() as file:
            self._catch_up(file)
            known = len(self.entries) - first
            self._compare(received[:known], first)
            try:
                self._extend(file, received[known:])
            except LedgerUpgradeNeeded as later:
                self._extend(file, received[known : int(later.metadata["sequence"]) - first])
                raise

    def _extend(self, file: BinaryIO, fresh: Sequence[Signed]) -> None:
        if not fresh:
            return
        state = replay(fresh, state=self.state, expected_genesis=self.reference.genesis, now=datetime.now(UTC))
        file.write(dump_records(entry.SerializeToString() for entry in fresh))
        file.flush()
        os.fsync(file.fileno())
        self.state = state
        self.entries += fresh
        self._offset = file.tell()

    def _catch_up(self, file: BinaryIO) -> None:
        """Read what is in the file beyond what is known, verify it, and cut off an entry that was written by halves."""
        file.seek(self._offset)
        found = list(load_records(file.read()))
        if found:
            try:
                entries = [Signed.FromString(data) for data in found]
                self.state = replay(entries, state=self.state, expected_genesis=self.reference.genesis)
            except LedgerUpgradeNeeded:
                raise  # a newer release of ours has written it
            except (TrustError, DecodeError) as error:
                raise LedgerEntryInvalid(
                    f"{self.path} is damaged ({error}): move it away, and it will be fetched and verified anew"
                ) from error
            self.entries += entries
            self._offset += sum(LENGTH_BYTES + len(data) for data in found)
        file.seek(self._offset)
        file.truncate()

    @contextmanager
    def _locked_file(self) -> Iterator[BinaryIO]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


async def _append(stub: "KeyServiceAsyncStub", entry: Signed, metadata: Callable[[], Metadata]) -> None:
    request = AppendLedgerEntryRequest(entry=entry)
    await retrying(
        lambda: stub.AppendLedgerEntry(request, metadata=metadata(), timeout=timeouts.CALL_SECONDS),
        give_up_after_seconds=timeouts.CALL_SECONDS,
    )


async def _has(stub: "KeyServiceAsyncStub", entry: Signed, metadata: Callable[[], Metadata]) -> bool:
    """Whether a server has an entry already: the same one again is answered with its place, one without those before it refused."""
    try:
        await _append(stub, entry, metadata)
    except RemoteError as error:
        if error.code in TRANSIENT:
            raise
        return False
    return True
