"""Payloads in a folder: `ab/abcd…/00000`, a file for each part. What is written is on disk, names included, when it is told.

Several instances may share the folder where its file system is one that they all see.
"""

import asyncio
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from folkmoot.server.payloads.parts import NewPart, Parts, take
from folkmoot.server.payloads.stores import Check, unusable
from folkmoot.transport.durable import sync_folder
from folkmoot.transport.failpoints import failpoint
from folkmoot.transport.storage import told_if_full
from folkmoot.trust import Source

THREADS = 4
UNFINISHED_SECONDS = 3600.0
"""Where files can't be locked, a part to which nothing was added for so long is nobody's: silence ends an upload much sooner."""

_UNFINISHED = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}/[0-9]{5,}\.[0-9a-f]{16}")
"""A part in the making: nothing else that is in the folder is ours to remove."""


class FolderStore:
    """A folder of parts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads")

    async def check(self) -> None:
        """Write, read and remove a few bytes. Raises INVALID_FIELD."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._check)

    def _check(self) -> None:
        probe = self._folder / f".check-{secrets.token_hex(8)}"
        try:
            _make_durable(self._folder)
            probe.write_bytes(b"folkmoot")
            probe.unlink()
        except OSError as error:
            raise unusable(f"the folder {self._folder} can't be written to: {error}") from error

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part. Raises DiskFull."""
        with told_if_full():
            await self._write_part(digest, number, frames, check)

    async def _write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        loop = asyncio.get_running_loop()
        part = await loop.run_in_executor(self._threads, _PartFile, self._of(digest), number)
        publishing: asyncio.Future[None] | None = None
        try:
            await take(part, frames, self._threads)
            await check(part.size_bytes, part.digest)
            publishing = loop.run_in_executor(self._threads, part.publish)
            await publishing
        finally:
            if publishing is not None:
                await asyncio.wait([publishing])  # also when cancelled: a thread is at the file
            await loop.run_in_executor(self._threads, part.close)

    async def parts(self, digest: bytes, expected: int = 0) -> frozenset[int]:  # noqa: ARG002 - its list never lags
        """Return the numbers of the parts that are there and durable."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, _durable_parts, self._of(digest))

    @contextmanager
    def open(self, digest: bytes, size_bytes: int, *, checked: bool = True) -> Iterator[Source]:
        """Give random access to a payload."""
        folder = self._of(digest)

        def open_part(number: int) -> int:
            return os.open(folder / f"{number:05}", os.O_RDONLY)

        source = Parts(digest, size_bytes, open_part, self._threads, checked=checked)
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
        """Remove what other processes have left of parts that they did not finish."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._remove_unfinished)

    def _remove_unfinished(self) -> None:
        for path in self._folder.glob("??/*/*.*"):
            if _UNFINISHED.fullmatch("/".join(path.parts[-3:])):
                with suppress(FileNotFoundError):
                    _remove_if_nobodys(path)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown()

    def _of(self, digest: bytes) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name


class _PartFile(NewPart):
    """A part that comes in, under a name of its own until it is whole and on disk."""

    def __init__(self, folder: Path, number: int) -> None:
        _make_durable(folder)
        self._path = folder / f"{number:05}"
        self._unfinished = folder / f"{number:05}.{secrets.token_hex(8)}"
        super().__init__(_owned(self._unfinished))

    def publish(self) -> None:
        self.seal()
        os.fdatasync(self.descriptor)
        failpoint("server.part.written")
        self._unfinished.replace(self._path)
        failpoint("server.part.named")
        sync_folder(self._path.parent)
        failpoint("server.part.synced")

    def close(self) -> None:
        os.close(self.descriptor)
        with suppress(FileNotFoundError):
            self._unfinished.unlink()


def _owned(path: Path) -> int:
    """Make a file that is this process's as long as it is open: the lock goes with whoever holds it, however he dies."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):  # where files can't be locked, age says whose they are
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # somebody who tidied up was there between the two


def _remove_if_nobodys(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        pass  # it is being written
    except OSError:
        if os.fstat(descriptor).st_mtime < time.time() - UNFINISHED_SECONDS:
            path.unlink()
    finally:
        os.close(descriptor)


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
