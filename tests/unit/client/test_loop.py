"""The event loop behind the synchronous client: answers, errors, interrupts."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from folkmoot.client.loop import blocking, iterating, loop, run


class Core:
    def __init__(self) -> None:
        self.closed = threading.Event()

    async def add(self, left: int, *, right: int = 1) -> int:
        return left + right

    async def count(self, end: int) -> AsyncIterator[int]:
        try:
            for number in range(end):
                yield number
            await asyncio.Event().wait()
        finally:
            for _ in range(1000):  # leaving takes a while
                await asyncio.sleep(0)
            self.closed.set()

    async def fail(self) -> None:
        raise ZeroDivisionError("as asked")


class Facade:
    def __init__(self) -> None:
        self._core = Core()

    add = blocking(Core.add)
    shown = blocking(Core.add, str)
    count = iterating(Core.count)
    fail = blocking(Core.fail)


@contextmanager
def interrupt_soon() -> Iterator[None]:
    """Press Ctrl-C while something is waited for, also where the tests run in the background and are to ignore it."""
    own = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    pressing = threading.Timer(0.05, lambda: signal.pthread_kill(own, signal.SIGINT))
    pressing.start()
    try:
        yield
    finally:
        pressing.join()
        signal.signal(signal.SIGINT, before)


def test_answers_and_errors_come_through():
    facade = Facade()
    assert facade.add(1, right=2) == 3
    assert facade.shown(1) == "2"
    with pytest.raises(ZeroDivisionError, match="as asked"):
        facade.fail()


def test_one_loop_for_the_process():
    assert loop() is loop()


def test_stream_that_is_left_is_closed():
    facade = Facade()
    for number in facade.count(10):
        if number == 3:
            break
    assert facade._core.closed.wait(10)


def test_interrupt_while_waiting_for_the_next_item_closes_the_stream():
    facade = Facade()
    numbers = facade.count(1)
    assert next(numbers) == 0
    with interrupt_soon(), pytest.raises(KeyboardInterrupt):
        next(numbers)
    assert facade._core.closed.is_set()


def test_interrupt_cancels_what_is_waited_for():
    cancelled = threading.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with interrupt_soon(), pytest.raises(KeyboardInterrupt):
        run(wait())
    assert cancelled.wait(10)


def test_calls_work_while_the_caller_has_a_loop_of_its_own():
    async def notebook() -> int:
        return Facade().add(1)

    assert asyncio.run(notebook()) == 2
