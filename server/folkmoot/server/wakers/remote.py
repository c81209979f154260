"""Wake-ups between instances of the server, whatever carries them.

Who listens here is woken at once; topics go out in the background, in batches of what there is, and what comes in wakes
whoever listens here. A carrier that breaks is opened again; whoever listens is woken then, because nobody knows what
there was to hear. What could not be sent is lost: it was a hint.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, suppress
from typing import Protocol

import structlog

from folkmoot.server.wakers import POLL_SECONDS
from folkmoot.server.wakers.local import LocalWaker
from folkmoot.transport.timeouts import RECONNECT_SECONDS

LAST_WORDS_SECONDS = 1.0
MOST_TOPICS_WAITING = 10_000
MOST_TOPICS_AT_ONCE = 200


class Carrier(Protocol):
    """An open connection to whatever carries topics to other instances."""

    async def send(self, topics: Sequence[str]) -> None:
        """Hand over topics."""

    def receive(self) -> AsyncIterator[Sequence[str]]:
        """Yield topics that other instances have sent, until the connection breaks."""


class RemoteWaker(ABC):
    """A waker whose topics other instances hear of, and that hears of theirs."""

    poll_seconds: float | None = POLL_SECONDS

    def __init__(self, log: structlog.typing.FilteringBoundLogger) -> None:
        self.is_connected = False
        self._here = LocalWaker()
        self._log = log
        self._waiting: dict[str, None] = {}
        self._more = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    def wake(self, topics: Iterable[str]) -> None:
        """Wake all who listen to any of the topics: here now, elsewhere in a moment."""
        topics = list(topics)
        self._here.wake(topics)
        if len(self._waiting) < MOST_TOPICS_WAITING:
            self._waiting.update(dict.fromkeys(topics))
            self._all_sent.clear()
            self._more.set()

    def listen(self, topic: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake` at every wake-up from now on until the context ends."""
        return self._here.listen(topic, wake)

    @abstractmethod
    def connect(self) -> AbstractAsyncContextManager[Carrier]:
        """Open the carrier; raise whatever keeps it from that."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Carry topics as long as this context lasts; it begins when there is a connection, or at once if there can't be one."""
        tried = asyncio.Event()
        carrying = asyncio.create_task(self._carry(tried))
        try:
            await tried.wait()
            yield
            await self._last_words()
        finally:
            carrying.cancel()
            with suppress(asyncio.CancelledError):
                await carrying

    async def _last_words(self) -> None:
        """Let what is waiting go out, if that takes no time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_sent.wait(), LAST_WORDS_SECONDS)

    async def _carry(self, tried: asyncio.Event) -> None:
        pause_seconds = first = RECONNECT_SECONDS / 50
        while True:
            try:
                async with self.connect() as carrier:
                    self.is_connected = True
                    tried.set()
                    self._here.wake_all()
                    pause_seconds = first
                    await self._both_ways(carrier)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 -- without it, instances look by themselves every few seconds
                self._log.warning("waker.disconnected", problem=f"{type(error).__name__}: {error}".strip())
            self.is_connected = False
            tried.set()
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, RECONNECT_SECONDS)

    async def _both_ways(self, carrier: Carrier) -> None:
        """Send and receive until either fails."""
        ways = [asyncio.create_task(self._send(carrier)), asyncio.create_task(self._receive(carrier))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in done:
                way.result()
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _send(self, carrier: Carrier) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                topics = list(self._waiting)[:MOST_TOPICS_AT_ONCE]
                for topic in topics:
                    del self._waiting[topic]
                await carrier.send(topics)
            self._all_sent.set()

    async def _receive(self, carrier: Carrier) -> None:
        async for topics in carrier.receive():
            self._here.wake(topics)
