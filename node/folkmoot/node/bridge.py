"""Between the loop and threads: hashing, sealing and writing of large contents happen beside the loop, piece by piece.

Both directions hold one piece at a time, whatever the content's size.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

_Result = TypeVar("_Result")


async def consume_in_thread(content: AsyncIterator[bytes], work: Callable[[Iterator[bytes]], _Result]) -> _Result:
    """Let `work` read a stream in a thread of its own; what the stream raises, it raises.

    If the caller is cancelled, the thread's next read raises, so that `work` can clean up.
    """
    pulled = _Pulled(content)
    try:
        return await asyncio.to_thread(work, pulled)
    except asyncio.CancelledError:
        pulled.break_off()
        raise


async def iterate_in_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Step an iterator that reads files or decrypts in threads."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


class _Pulled(Iterator[bytes]):
    """A stream of the loop, as an iterator for another thread."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content = content
        self._loop = asyncio.get_running_loop()
        self._broken = False
        self._pending: concurrent.futures.Future[bytes | None] | None = None

    def __next__(self) -> bytes:
        if self._broken:
            raise asyncio.CancelledError
        self._pending = asyncio.run_coroutine_threadsafe(self._pull(), self._loop)
        piece = self._pending.result()
        if piece is None:
            raise StopIteration
        return piece

    async def _pull(self) -> bytes | None:
        return await anext(self._content, None)

    def break_off(self) -> None:
        """Let the thread's present or next read raise."""
        self._broken = True
        if self._pending is not None:
            self._pending.cancel()
