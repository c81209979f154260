"""A full, verified copy of a collaboration's ledger in a file, kept by every client and node.

Promises: what is in `state` was replayed from entry 0 against the genesis that the user named, by this process. The file only grows.
Several processes may share it. A server that shows another entry where this copy already has one is caught (LEDGER_FORK); one that is
merely behind is not an error.

The file is a sequence of entries, each with its length before it (4 bytes, big-endian).
"""

import asyncio
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from folkmoot.transport import timeouts
from folkmoot.transport.calls import retrying
from folkmoot.transport.payloads import Metadata
from folkmoot.trust import FolkmootError, Reference, State, digest, fingerprint, replay
from folkmoot.trust.errors import LedgerEntryInvalid, LedgerFork, TrustError
from folkmoot.v1 import errors_pb2, key_service_pb2, key_service_pb2_grpc, ledger_pb2, signed_pb2

_LENGTH_BYTES = 4


class Replica:
    """The ledger of one collaboration. `state` is None until the first refresh that brings entries."""

    def __init__(self, folder: Path, reference: Reference) -> None:
        self.reference = reference
        self.state: State | None = None
        self.entries: list[signed_pb2.Signed] = []
        self._path = folder / f"{fingerprint(reference.genesis)}.ledger"
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

    async def refresh(
        self,
        stub: "key_service_pb2_grpc.KeyServiceAsyncStub",
        *,
        metadata: Callable[[], Metadata] = tuple,
    ) -> State:
        """Fetch what is new, verify it, keep it. Raises LedgerFork, LedgerEntryInvalid, WrongCollaboration, RemoteError."""
        async with self._lock:
            # The newest entry that is known here is asked for again: whoever shows another one there shows a fork.
            known = len(self.entries)
            request = key_service_pb2.GetLedgerRequest(genesis=self.reference.genesis, from_sequence=max(0, known - 1))
            received = await retrying(
                lambda: _collect(stub, request, metadata()), give_up_after_seconds=timeouts.CALL_SECONDS
            )
            if known and received:
                if received[0].body != self.entries[-1].body:
                    raise LedgerFork(
                        f"the server shows another entry {known - 1} of {self.reference} than it showed before",
                        metadata={
                            "ours": digest(self.entries[-1].body).hex(),
                            "theirs": digest(received[0].body).hex(),
                        },
                    )
                received = received[1:]
            if received:
                await asyncio.to_thread(self._keep, received)
            return self.verified

    async def append(
        self,
        stub: "key_service_pb2_grpc.KeyServiceAsyncStub",
        make: Callable[[State], signed_pb2.Signed],
        *,
        metadata: Callable[[], Metadata] = tuple,
    ) -> signed_pb2.Signed:
        """Make an entry on the newest state and append it; when another was faster, fetch, verify and make it anew."""
        while True:
            entry = make(await self.refresh(stub, metadata=metadata))
            request = key_service_pb2.AppendLedgerEntryRequest(entry=entry)
            try:
                await retrying(
                    lambda request=request: stub.AppendLedgerEntry(  # type: ignore[misc]
                        request, metadata=metadata(), timeout=timeouts.CALL_SECONDS
                    ),
                    give_up_after_seconds=timeouts.CALL_SECONDS,
                )
            except FolkmootError as error:
                if error.reason != errors_pb2.ERROR_REASON_LEDGER_HEAD_MOVED:
                    raise
                continue
            await self.refresh(stub, metadata=metadata)
            return entry

    def _keep(self, received: list[signed_pb2.Signed]) -> None:
        with self._locked_file() as file:
            self._catch_up(file)
            fresh = received[max(0, len(self.entries) - _sequence_of_first(received)) :]
            if not fresh:
                return
            state = replay(fresh, state=self.state, expected_genesis=self.reference.genesis, now=datetime.now(UTC))
            for entry in fresh:
                data = entry.SerializeToString()
                file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
            file.flush()
            os.fsync(file.fileno())
            self.state = state
            self.entries += fresh
            self._offset = file.tell()

    def _catch_up(self, file: BinaryIO) -> None:
        """Read what is in the file beyond what is known, verify it, and cut off an entry that was written by halves."""
        file.seek(self._offset)
        found = list(_records(file.read()))
        if found:
            try:
                entries = [signed_pb2.Signed.FromString(data) for data in found]
                self.state = replay(entries, state=self.state, expected_genesis=self.reference.genesis)
            except (TrustError, DecodeError) as error:
                raise LedgerEntryInvalid(
                    f"{self._path} is damaged ({error}): move it away, and it will be fetched and verified anew"
                ) from error
            self.entries += entries
            self._offset += sum(_LENGTH_BYTES + len(data) for data in found)
        file.seek(self._offset)
        file.truncate()

    @contextmanager
    def _locked_file(self) -> Iterator[BinaryIO]:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def _sequence_of_first(entries: list[signed_pb2.Signed]) -> int:
    return ledger_pb2.LedgerEntry.FromString(entries[0].body).sequence


def _records(data: bytes) -> Iterator[bytes]:
    position = 0
    while position + _LENGTH_BYTES <= len(data):
        begin = position + _LENGTH_BYTES
        end = begin + int.from_bytes(data[position:begin], "big")
        if end > len(data):
            return
        yield data[begin:end]
        position = end


async def _collect(
    stub: "key_service_pb2_grpc.KeyServiceAsyncStub",
    request: key_service_pb2.GetLedgerRequest,
    metadata: Metadata,
) -> list[signed_pb2.Signed]:
    entries: list[signed_pb2.Signed] = []
    async for batch in stub.GetLedger(request, metadata=metadata, timeout=timeouts.CALL_SECONDS):
        entries += batch.entries
    return entries
