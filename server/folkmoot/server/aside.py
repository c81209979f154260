"""An event loop beside that of the server, in a thread of its own: for work that threads and coroutines both wait for.

Whatever is under way when it is closed ends at once, so that a server stops though somebody far away does not answer.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """A loop that runs until it is closed."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def result(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something there, and wait for it in this thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something there, and wait for it in this loop. If whoever waits is cancelled, it has ended when he goes on."""
        here = asyncio.get_running_loop()
        ended: asyncio.Future[asyncio.Task[T]] = here.create_future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self._loop.create_task(work))
            begun[0].add_done_callback(lambda task: here.call_soon_threadsafe(ended.set_result, task))

        def give_up() -> None:
            begun[0].cancel()

        self._loop.call_soon_threadsafe(begin)
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            self._loop.call_soon_threadsafe(give_up)
            await ended
            raise
        return ended.result().result()

    def close(self) -> None:
        """End what is under way, and the loop."""
        self.result(_end_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _end_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
