"""The event loop behind the synchronous client: one thread for the whole process, started at first use, stopped at exit."""

import asyncio
import atexit
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import AsyncGeneratorType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

P = ParamSpec("P")
Answer = TypeVar("Answer")
Core = TypeVar("Core")
Shown = TypeVar("Shown")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The background loop."""
    global _loop  # noqa: PLW0603 - one for the process
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_loop.run_forever, name="folkmoot-client", daemon=True)
            thread.start()
            atexit.register(_stop, _loop, thread)
        return _loop


def _stop(running: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """End what is under way, so that the interpreter's exit never waits for a server."""
    asyncio.run_coroutine_threadsafe(_cancel_all(), running).result()
    running.call_soon_threadsafe(running.stop)
    thread.join()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def run(coroutine: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a coroutine on the background loop and wait for it; an interrupt (Ctrl-C) cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


@overload
def blocking(
    method: Callable[Concatenate[Core, P], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Any, P], Answer]: ...
@overload
def blocking(
    method: Callable[Concatenate[Core, P], Coroutine[Any, Any, Answer]], shown_as: Callable[[Answer], Shown]
) -> Callable[Concatenate[Any, P], Shown]: ...
def blocking(method: Callable[..., Any], shown_as: Callable[[Any], Any] = lambda answer: answer) -> Callable[..., Any]:
    """A method of a facade, whose `_core` has the same method: same parameters, but it returns when it is done."""

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return shown_as(run(method(self._core, *args, **kwargs)))

    return call


@overload
def iterating(
    method: Callable[Concatenate[Core, P], AsyncIterator[Answer]],
) -> Callable[Concatenate[Any, P], Iterator[Answer]]: ...
@overload
def iterating(
    method: Callable[Concatenate[Core, P], AsyncIterator[Answer]], shown_as: Callable[[Answer], Shown]
) -> Callable[Concatenate[Any, P], Iterator[Shown]]: ...
def iterating(method: Callable[..., Any], shown_as: Callable[[Any], Any] = lambda answer: answer) -> Callable[..., Any]:
    """A method of a facade, whose `_core` has the same method: same parameters, but it gives a plain iterator."""

    @wraps(method)
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        stream = method(self._core, *args, **kwargs)
        try:
            while True:
                try:
                    yield shown_as(run(_next(stream)))
                except StopAsyncIteration:
                    return
        finally:
            run(_close(stream))

    return call


async def _next(stream: AsyncIterator[Answer]) -> Answer:
    return await anext(stream)


async def _close(stream: AsyncIterator[Any]) -> None:
    """End a stream; a step of it that was interrupted may still be on its way out."""
    if isinstance(stream, AsyncGeneratorType):
        while stream.ag_running:  # noqa: ASYNC110 - nothing tells when a generator has stopped running
            await asyncio.sleep(0)
        await stream.aclose()
