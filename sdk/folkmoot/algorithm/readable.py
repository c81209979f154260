"""A file to read from, over pieces of bytes that arrive one by one."""

import io
from collections.abc import Iterator
from typing import BinaryIO


def open_pieces(pieces: Iterator[bytes]) -> BinaryIO:
    """Return a file over the pieces; it holds one of them at a time, and a small buffer."""
    return io.BufferedReader(_Pieces(pieces))


class _Pieces(io.RawIOBase):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object, /) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = memoryview(piece)
        target = memoryview(buffer)  # type: ignore[arg-type]
        length = min(len(target), len(self._left))
        target[:length] = self._left[:length]
        self._left = self._left[length:]
        return length
