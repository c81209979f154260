"""Parts of payloads as they rest: their bytes, and behind them the SHA-256 of these. Read as one, each found whole first.

A part is checked when it is opened, before anything of it is handed out: what has rotted, was cut short or exchanged since
it was stored is PAYLOAD_DAMAGED, never a payload. Parts of releases before this one have no hash behind them; they are read
as they are.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future

from folkmoot.transport.limits import FRAME_BYTES, PART_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

HASH_BYTES = 32

OpenPart = Callable[[int], int]
"""Gives a descriptor to read a part from, by its number. Raises FileNotFoundError."""


class PayloadDamaged(FolkmootError):  # noqa: N818 - as all of the tree
    """What is stored of a payload is not what was stored."""

    def __init__(self, text: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_PAYLOAD_DAMAGED, text)


def part_count(size_bytes: int) -> int:
    """Return how many parts a payload has."""
    return -(-size_bytes // PART_BYTES)


def part_bytes(size_bytes: int, number: int) -> int:
    """Return how many bytes a part has: the last one may be shorter."""
    return min(PART_BYTES, size_bytes - number * PART_BYTES)


class NewPart:
    """A part that comes in, at a file that nobody else sees yet."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = 0
        self._hash = hashlib.sha256()

    def append(self, frame: bytes) -> None:
        """Take what has come."""
        _write(self.descriptor, frame)
        self._hash.update(frame)
        self.size_bytes += len(frame)

    @property
    def digest(self) -> bytes:
        """SHA-256 of what has come so far."""
        return self._hash.digest()

    def seal(self) -> None:
        """Put the hash behind the bytes."""
        _write(self.descriptor, self.digest)


async def take(part: NewPart, frames: AsyncIterator[bytes], threads: Executor) -> None:
    """Append all frames, one while the next one arrives. However it ends, no thread is at the part's file any more."""
    loop = asyncio.get_running_loop()
    writing: asyncio.Future[None] = loop.create_future()
    writing.set_result(None)
    try:
        async for frame in frames:
            await writing
            writing = loop.run_in_executor(threads, part.append, frame)
        await writing
    finally:
        await asyncio.wait([writing])


def check_part(descriptor: int, expected_bytes: int, name: str) -> None:
    """Read all of a part; raise PAYLOAD_DAMAGED unless it is what was stored."""
    size = os.fstat(descriptor).st_size
    if size == expected_bytes:
        return  # of a release that stored no hashes
    if size != expected_bytes + HASH_BYTES:
        raise PayloadDamaged(f"{name} has {size} bytes in the store, and had {expected_bytes + HASH_BYTES}")
    found, offset = hashlib.sha256(), 0
    while offset < expected_bytes:
        piece = os.pread(descriptor, min(FRAME_BYTES, expected_bytes - offset), offset)
        if not piece:
            raise PayloadDamaged(f"{name} has become shorter while it was read")
        found.update(piece)
        offset += len(piece)
    if found.digest() != os.pread(descriptor, HASH_BYTES, expected_bytes):
        raise PayloadDamaged(f"{name} is not what was stored: its bytes have another SHA-256")


class Parts:
    """A payload's parts, read as one, in threads. Who reads on and on has the next part ready when he comes to it."""

    def __init__(
        self, digest: bytes, size_bytes: int, open_part: OpenPart, threads: Executor, *, checked: bool = True
    ) -> None:
        self.size_bytes = size_bytes
        self._is_checked = checked
        self._name = digest.hex()
        self._open_part = open_part
        self._threads = threads
        self._number = -1
        self._file = -1
        self._ahead: tuple[int, Future[int]] | None = None

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes from any place. Raises PAYLOAD_DAMAGED, FileNotFoundError."""
        end = min(offset + length, self.size_bytes)
        pieces = []
        while offset < end:
            number, begin = divmod(offset, PART_BYTES)
            piece = os.pread(self._at(number), min(end - offset, PART_BYTES - begin), begin)
            if not piece:
                raise PayloadDamaged(f"part {number} of {self._name} has become shorter while it was read")
            pieces.append(piece)
            offset += len(piece)
            if self._is_checked and begin >= FRAME_BYTES:
                self._look_ahead(number + 1)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _at(self, number: int) -> int:
        if number != self._number:
            self._let_go_of_file()
            self._file = self._ready(number)
            self._number = number
        return self._file

    def _ready(self, number: int) -> int:
        if self._ahead is not None and self._ahead[0] == number:
            _, opening = self._ahead
            self._ahead = None
            return opening.result()
        return self._checked(number)

    def _look_ahead(self, number: int) -> None:
        if self._ahead is None and number < part_count(self.size_bytes):
            self._ahead = number, self._threads.submit(self._checked, number)

    def _checked(self, number: int) -> int:
        file = self._open_part(number)
        if not self._is_checked:
            return file
        try:
            check_part(file, part_bytes(self.size_bytes, number), f"part {number} of {self._name}")
        except BaseException:
            os.close(file)
            raise
        return file

    def close(self) -> None:
        """Let go of the files, also of one that is just being opened."""
        self._let_go_of_file()
        if self._ahead is not None:
            self._ahead[1].add_done_callback(_close_opened)
            self._ahead = None

    def _let_go_of_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = self._number = -1


def _close_opened(opening: Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


def _write(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
