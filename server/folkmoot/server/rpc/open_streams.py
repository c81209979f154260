"""Streams that are open: each outlasts what let it in, so that who reads one is looked at again while it lasts.

With every message, every few seconds, and at once when something about rights has changed: a login that was ended, an API key that
was deleted, a rule that was taken away end the streams that they opened, also those in which nothing happens. A
stream of somebody who may do something else than when he opened it ends too, with SHUTTING_DOWN: he opens it anew, and sees what
he may see now.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from folkmoot.server.context import Caller
from folkmoot.server.core import Core, wait_for
from folkmoot.server.rpc.aging import Life
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

ENDLESS = ("Attach", "Watch")
"""How methods are called whose streams have no end of their own."""
LAST_WORDS_SECONDS = 1.0
"""How long such a stream may take for what it still has to say when the server stops: its reader may read nothing at all."""
LOOK_AGAIN_SECONDS = 5.0
"""What another instance has changed is told, but the telling may get lost; and API keys end with time."""


@dataclass(eq=False, slots=True)
class _Stream:
    caller: Caller
    method: str
    life: Life
    task: asyncio.Task[object] | None

    @property
    def is_endless(self) -> bool:
        return self.method.rpartition("/")[2].startswith(ENDLESS)


@dataclass
class OpenStreams:
    """The streams that are open here. `check` raises what ends the stream of a caller in a method."""

    check: Callable[[Caller, str], Awaitable[None]]
    core: Core
    _open: set[_Stream] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _one_has_ended: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def opened(self, caller: Caller, method: str, life: Life) -> Iterator[None]:
        """Look at a stream as long as this context lasts."""
        stream = _Stream(caller, method, life, asyncio.current_task())
        self._open.add(stream)
        try:
            yield
        finally:
            self._open.discard(stream)
            self._one_has_ended.set()

    def rights_changed(self) -> None:
        """Look at all of them now."""
        self._changed.set()

    async def keep_watch(self) -> None:
        """Look at them again and again, until the server is about to stop; then hang up on who does not let them end."""
        while not self.core.draining.is_set():
            with suppress(FolkmootError):
                await wait_for(self._changed, draining=self.core.draining, at_most_seconds=LOOK_AGAIN_SECONDS)
            self._changed.clear()
            for stream in tuple(self._open):
                await self._look_at(stream)
        await self._hang_up()

    async def _hang_up(self) -> None:
        """Give up streams that have no end of their own, a moment after they were told to end: a write waits for its reader."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                while any(stream.is_endless for stream in self._open):
                    self._one_has_ended.clear()
                    await self._one_has_ended.wait()
        for stream in tuple(self._open):
            if stream.is_endless and stream.task is not None:
                stream.task.cancel()

    async def _look_at(self, stream: _Stream) -> None:
        try:
            await self.check(stream.caller, stream.method)
        except FolkmootError as error:
            stream.life.end(error)
        except Exception:
            self.core.log.exception("stream.not_checked", method=stream.method)


def rights_are_others() -> FolkmootError:
    """Return what ends a stream of somebody who may do something else by now."""
    text = "What you may do has changed: open this stream again, it goes on where it was as far as you may see"
    return FolkmootError(errors_pb2.ERROR_REASON_SHUTTING_DOWN, text)
