"""Blocking calls in threads of their own."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

_Answer = TypeVar("_Answer")


async def in_thread(call: Callable[[], _Answer], *, name: str) -> _Answer:
    """Make a call in a thread that does not keep the process from ending: it may last for hours, and nobody has to wait for it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_Answer] = loop.create_future()

    def settle(set_: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            set_(value)

    def run() -> None:
        try:
            done = functools.partial(settle, answer.set_result, call())
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            done = functools.partial(settle, answer.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await answer
