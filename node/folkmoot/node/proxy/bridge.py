"""Between the loop and threads: hashing, sealing and writing of large contents happen beside the loop, piece by piece.

Both directions hold one piece at a time, whatever the content's size.
"""

import asyncio
import concurrent.futures
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeAlias, TypeVar

from folkmoot.node.waiting import cancelled

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


@asynccontextmanager
async def split(content: AsyncIterator[bytes]) -> AsyncIterator[tuple[AsyncIterator[bytes], AsyncIterator[bytes]]]:
    """A stream, twice: who reads faster waits for the other. What the stream raises, both raise."""
    halves: tuple[_Half, _Half] = (asyncio.Queue(1), asyncio.Queue(1))

    async def pump() -> None:
        end: BaseException | None = None
        try:
            async for piece in content:
                for half in halves:
                    await half.put(piece)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the readers'
            end = error
        for half in halves:
            await half.put(end)

    pumping = asyncio.create_task(pump())
    try:
        yield _read_half(halves[0]), _read_half(halves[1])
    finally:
        await cancelled(pumping)


_Half: TypeAlias = "asyncio.Queue[bytes | BaseException | None]"
"""Pieces, then what the stream raised, or None."""


async def _read_half(half: _Half) -> AsyncIterator[bytes]:
    while isinstance(piece := await half.get(), bytes):
        yield piece
    if piece is not None:
        raise piece


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
