"""Where the bytes of large envelopes rest: part by part, on disk before anybody is told so.

A store keeps parts of a fixed size, each whole or not at all, so that an upload that broke off goes on at a part and two
uploads of the same part do each other no harm. It knows nothing of what they are; the rows of `payloads` do.
"""

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Protocol

from folkmoot.transport.durable import sync_folder
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.limits import PART_BYTES
from folkmoot.transport.storage import told_if_full
from folkmoot.trust import Source

Check = Callable[[int, bytes], None]
"""Is told the size and the SHA-256 of what came, and raises if that is not right."""

THREADS = 4


class PayloadStore(Protocol):
    """Keeps the parts of payloads."""

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part as it comes, using a few frames of memory; return when it is durable.

        If the frames break off or the check raises, the part is what it was before.
        """

    async def parts(self, digest: bytes) -> frozenset[int]:
        """Return the numbers of the parts that are there and durable."""

    def open(self, digest: bytes, size_bytes: int) -> AbstractContextManager[Source]:
        """Give random access to a payload, all of whose parts are there. Reading blocks: do it in a thread."""

    async def remove(self, digest: bytes) -> None:
        """Forget a payload; nothing happens if there is none."""

    async def is_older(self, digest: bytes, before: datetime) -> bool:
        """Tell whether nothing of a payload has come since a time."""

    async def remove_unfinished(self) -> None:
        """Remove what a process before this one has left of parts that it did not finish."""


class FolderStore:
    """A folder: `ab/abcd…/00000`, a file for each part. What is written is on disk, names included, when it is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads")
        self._boot = secrets.token_hex(4)

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part: one frame is written while the next one arrives. Raises DiskFull."""
        with told_if_full():
            await self._write_part(digest, number, frames, check)

    async def _write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        loop = asyncio.get_running_loop()
        part = await loop.run_in_executor(self._threads, _NewPart, self._of(digest), number, self._boot)
        writing: asyncio.Future[None] = loop.create_future()
        writing.set_result(None)
        try:
            async for frame in frames:
                await writing
                writing = loop.run_in_executor(self._threads, part.append, frame)
            await writing
            check(part.size_bytes, part.digest)
            writing = loop.run_in_executor(self._threads, part.publish)
            await writing
        finally:
            await asyncio.wait([writing])  # also when cancelled: a thread is at the file
            await loop.run_in_executor(self._threads, part.close)

    async def parts(self, digest: bytes) -> frozenset[int]:
        """Return the numbers of the parts that are there and durable."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _durable_parts, self._of(digest))

    @contextmanager
    def open(self, digest: bytes, size_bytes: int) -> Iterator[Source]:
        """Give random access to a payload."""
        source = _Parts(self._of(digest), size_bytes)
        try:
            yield source
        finally:
            source.close()

    async def remove(self, digest: bytes) -> None:
        """Forget a payload."""
        folder = self._of(digest)
        await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: shutil.rmtree(folder, ignore_errors=True)
        )

    async def is_older(self, digest: bytes, before: datetime) -> bool:
        """Tell whether nothing of a payload has come since a time."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _is_older, self._of(digest), before)

    async def remove_unfinished(self) -> None:
        """Remove what a process before this one has left of parts that it did not finish."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._remove_unfinished)

    def _remove_unfinished(self) -> None:
        for path in self._folder.glob("??/*/*.*"):
            if f".{self._boot}" not in path.name:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown()

    def _of(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name


class _NewPart:
    """A part that comes in, under a name of its own until it is whole and on disk."""

    def __init__(self, folder: Path, number: int, boot: str) -> None:
        _make_durable(folder)
        self._path = folder / f"{number:05}"
        self._unfinished = folder / f"{number:05}.{boot}{secrets.token_hex(4)}"
        self._file = self._unfinished.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def append(self, frame: bytes) -> None:
        rest = memoryview(frame)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(frame)
        self.size_bytes += len(frame)

    @property
    def digest(self) -> bytes:
        return self._hash.digest()

    def publish(self) -> None:
        os.fdatasync(self._file.fileno())
        failpoint("server.part.written")
        self._unfinished.replace(self._path)
        failpoint("server.part.named")
        sync_folder(self._path.parent)
        failpoint("server.part.synced")

    def close(self) -> None:
        self._file.close()
        with suppress(FileNotFoundError):
            self._unfinished.unlink()


class _Parts:
    """A payload's parts, read as one. The file of the part that was read last stays open."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._folder = folder
        self._number = -1
        self._file = -1

    def read_at(self, offset: int, length: int) -> bytes:
        end = min(offset + length, self.size_bytes)
        pieces = []
        while offset < end:
            number, begin = divmod(offset, PART_BYTES)
            piece = os.pread(self._open(number), min(end - offset, PART_BYTES - begin), begin)
            if not piece:
                raise EOFError(f"part {number} of {self._folder.name} is shorter than it was")
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _open(self, number: int) -> int:
        if number != self._number:
            self.close()
            self._file = os.open(self._folder / f"{number:05}", os.O_RDONLY)
            self._number = number
        return self._file

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = self._number = -1


def _durable_parts(folder: Path) -> frozenset[int]:
    if not folder.exists():
        return frozenset()
    sync_folder(folder)  # a name may be there that another upload has just given
    return frozenset(int(path.name) for path in folder.iterdir() if path.name.isdecimal())


def _is_older(folder: Path, before: datetime) -> bool:
    if not folder.exists():
        return True
    return all(path.stat().st_mtime < before.timestamp() for path in (folder, *folder.iterdir()))


def _make_durable(folder: Path) -> None:
    """Make a folder whose name survives a power cut, and those above it."""
    if folder.exists():
        return
    _make_durable(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
