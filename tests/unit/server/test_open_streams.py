"""How long a stream lasts: until it is of an age, or until somebody ends it; a fault of ours ends none."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from folkmoot.server import context
from folkmoot.server.rpc.aging import Life
from folkmoot.server.rpc.open_streams import OpenStreams
from folkmoot.server.tokens import token_invalid
from folkmoot.trust import FolkmootError


async def quiet(closed: asyncio.Event) -> AsyncGenerator[int, None]:
    """Say one thing, and nothing more."""
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        closed.set()


class Core:
    """As much of a core as streams need."""

    def __init__(self) -> None:
        self.draining, self.log = asyncio.Event(), self

    def exception(self, *_: Any, **__: Any) -> None:
        """Log."""
        self.failed = True


async def test_a_stream_is_ended_while_it_waits_and_lets_go_of_what_it_has():
    life, closed = Life(None), asyncio.Event()
    async with aclosing(life.of(quiet(closed))) as messages:
        assert await anext(messages) == 1
        waiting = asyncio.ensure_future(anext(messages))
        await asyncio.sleep(0)
        life.end(token_invalid("ended"))
        life.end(token_invalid("ended again"))
        with pytest.raises(FolkmootError, match=r"ended$"):
            await waiting
    assert closed.is_set()


async def test_a_stream_that_is_ended_between_two_messages_gives_no_more():
    life = Life(None)
    async with aclosing(life.of(quiet(asyncio.Event()))) as messages:
        await anext(messages)
        life.end(token_invalid("ended"))
        with pytest.raises(FolkmootError, match="ended"):
            await anext(messages)


async def test_a_stream_of_an_age_ends_politely():
    async with aclosing(Life(0.001).of(quiet(asyncio.Event()))) as messages:
        with pytest.raises(FolkmootError, match="open it again"):
            async for _ in messages:
                pass


async def test_who_is_cancelled_himself_is_told_so_also_when_his_stream_ends_at_the_same_moment():
    life = Life(None)
    reading = asyncio.ensure_future(_rest(life))
    await asyncio.sleep(0)
    reading.cancel()
    life.end(token_invalid("ended"))
    with pytest.raises(asyncio.CancelledError):
        await reading


async def _rest(life: Life) -> None:
    async with aclosing(life.of(quiet(asyncio.Event()))) as messages:
        async for _ in messages:
            pass


async def test_messages_cost_no_timers(monkeypatch):
    """Of a stream with an age there is one, however many messages come."""
    loop, made = asyncio.get_running_loop(), list[Any]()
    call_at = loop.call_at

    def counted(*given: Any, **more: Any) -> Any:
        made.append(given)
        return call_at(*given, **more)

    monkeypatch.setattr(loop, "call_at", counted)

    async def many() -> AsyncGenerator[int, None]:
        for number in range(100):
            await asyncio.sleep(0)
            yield number

    async with aclosing(Life(60.0).of(many())) as messages:
        assert [number async for number in messages] == list(range(100))
    assert len(made) == 1


async def test_what_can_not_be_looked_up_ends_nothing():
    core: Any = Core()
    looked, lives = asyncio.Event(), {"broken": Life(None), "ended": Life(None)}

    async def check(_who: context.Caller, method: str) -> None:
        if method == "broken":
            raise OSError("the database is away")
        looked.set()
        raise token_invalid("ended")

    streams = OpenStreams(check, core)
    with streams.opened(context.ANYONE, "broken", lives["broken"]), streams.opened(context.ANYONE, "x", lives["ended"]):
        watching = asyncio.ensure_future(streams.keep_watch())
        streams.rights_changed()
        await looked.wait()
        core.draining.set()
        streams.rights_changed()
        await watching
    assert core.failed
    assert await anext(lives["broken"].of(quiet(asyncio.Event()))) == 1
    with pytest.raises(FolkmootError):
        await anext(lives["ended"].of(quiet(asyncio.Event())))
