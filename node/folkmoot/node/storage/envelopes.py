"""Sealed payloads at the station: small ones rest in the journal, large ones in files of `inbox/` and `outbox/`, named by digest.

Only sealed bytes are stored. A file appears under its name when all of it is on disk; an outgoing one is synced first.
"""

import asyncio
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from folkmoot.node.journal import records
from folkmoot.node.journal.database import Journal
from folkmoot.node.journal.records import StoredEnvelope
from folkmoot.node.proxy.bridge import consume_in_thread, split
from folkmoot.node.waiting import cancelled
from folkmoot.transport import INLINE_BYTES
from folkmoot.transport.durable import sync_folder
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.storage import told_if_full
from folkmoot.trust import BytesSource, EnvelopeRejected, FileSource, Sealing, Source, inspect

RECENT = 64
"""Small envelopes that are kept in memory: 16 MiB at most."""


class Envelopes:
    """The envelopes below one folder."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._inbox = directory / "inbox"
        self._outbox = directory / "outbox"
        self._journal = journal
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        for folder in (self._inbox, self._outbox):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for unfinished in folder.glob("*.part"):
                unfinished.unlink()

    async def open(self, digest: bytes, closing: ExitStack) -> Source | None:
        """An envelope that is here, open until `closing` closes; None if it is not here."""
        data = self._recent.get(digest)
        if data is None:
            data = await self._journal.transact(lambda connection: records.get_envelope(connection, digest))
        if data is not None:
            return BytesSource(data)
        for folder in (self._outbox, self._inbox):
            path = folder / digest.hex()
            if path.exists():
                return FileSource(closing.enter_context(path.open("rb")))
        return None

    def remember(self, digest: bytes, data: bytes) -> None:
        """Keep a small envelope, which the journal has, in memory for a while: it is about to be opened or sent."""
        self._recent[digest] = data
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    async def fetch(self, digest: bytes, pieces: AsyncIterator[bytes], *, most_bytes: int) -> None:
        """Write a download to the inbox; raise EnvelopeRejected if it is larger than that, or another envelope than the named one."""
        await consume_in_thread(_bounded(pieces, most_bytes), lambda content: self._write_incoming(digest, content))

    async def seal(
        self, content: AsyncIterator[bytes], sealing: Callable[[Iterator[bytes]], Sealing]
    ) -> StoredEnvelope:
        """Seal a content of any size: in memory while it is small, else straight into the outbox.

        A small envelope is not stored yet: its journal entry is written with whatever refers to it, in one step.
        """
        head, ended = await _read_head(content)
        if ended:
            envelope = sealing(iter((head,)))
            data = b"".join(envelope)
            if len(data) <= INLINE_BYTES:
                return StoredEnvelope(envelope.digest, len(data), data)
            return self._write_outgoing(iter((data,)), lambda: envelope.digest)
        return await consume_in_thread(_prefixed(head, content), lambda pieces: self._seal_to_file(sealing(pieces)))

    async def seal_twice(
        self,
        content: AsyncIterator[bytes],
        one: Callable[[Iterator[bytes]], Sealing],
        other: Callable[[Iterator[bytes]], Sealing],
    ) -> tuple[StoredEnvelope, StoredEnvelope]:
        """`seal` a content for two, in one pass over it; both are there, or none."""
        async with split(content) as (first, second):
            sealings = [asyncio.create_task(self.seal(*each)) for each in ((first, one), (second, other))]
            try:
                stored, also_stored = await asyncio.gather(*sealings)
            except BaseException:
                await cancelled(*sealings)
                for sealing in sealings:
                    if not sealing.cancelled() and sealing.exception() is None:
                        self.forget(sealing.result().digest)
                raise
            return stored, also_stored

    def forget(self, digest: bytes) -> None:
        """Remove an envelope's files, if there are any."""
        self._recent.pop(digest, None)
        self.forget_download(digest)
        (self._outbox / digest.hex()).unlink(missing_ok=True)

    def forget_download(self, digest: bytes) -> None:
        """Remove what was downloaded; the server has it."""
        (self._inbox / digest.hex()).unlink(missing_ok=True)

    def keep_only(self, *, outgoing: set[bytes], incoming: set[bytes]) -> int:
        """Remove files that a process before this one has left and nothing names; tell how many."""
        stale = [
            path
            for folder, kept in ((self._outbox, outgoing), (self._inbox, incoming))
            for path in folder.iterdir()
            if path.name not in {digest.hex() for digest in kept}
        ]
        for path in stale:
            path.unlink(missing_ok=True)
        return len(stale)

    def _seal_to_file(self, sealing: Sealing) -> StoredEnvelope:
        return self._write_outgoing(sealing, lambda: sealing.digest)

    def _write_outgoing(self, pieces: Iterator[bytes], digest: Callable[[], bytes]) -> StoredEnvelope:
        with part_file(self._outbox) as (file, path):
            size_bytes = sum(file.write(piece) for piece in pieces)
            file.flush()
            os.fdatasync(file.fileno())
            failpoint("node.envelope.written")
            path.rename(self._outbox / digest().hex())
        failpoint("node.envelope.named")
        sync_folder(self._outbox)
        return StoredEnvelope(digest(), size_bytes, None)

    def _write_incoming(self, digest: bytes, pieces: Iterator[bytes]) -> None:
        with part_file(self._inbox) as (file, path):
            for piece in pieces:
                file.write(piece)
            file.flush()
            if inspect(FileSource(file)).digest != digest:
                raise EnvelopeRejected("the server sent another envelope than the one that was asked for")
            path.rename(self._inbox / digest.hex())


async def _read_head(content: AsyncIterator[bytes]) -> tuple[bytes, bool]:
    """The first bytes of a stream, about as many as an inline envelope holds, and whether that was all."""
    head = bytearray()
    async for piece in content:
        head += piece
        if len(head) > INLINE_BYTES:
            return bytes(head), False
    return bytes(head), True


async def _bounded(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """Pass a download on; end one that would fill the disk."""
    size_bytes = 0
    async for piece in pieces:
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            raise EnvelopeRejected(f"the server sends more than the {most_bytes} bytes that it has")
        yield piece


async def _prefixed(head: bytes, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield head
    async for piece in content:
        yield piece


@contextmanager
def part_file(folder: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A file in the making, removed unless it was renamed. Raises DiskFull."""
    path = folder / f"{os.urandom(8).hex()}.part"
    with told_if_full():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file, path
        finally:
            path.unlink(missing_ok=True)
