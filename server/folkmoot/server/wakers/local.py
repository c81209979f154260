"""Wake-ups within one process: all that a server with a database of its own needs.

Where others share the database, whoever waits must look by himself.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


class LocalWaker:
    """A waker that keeps its listeners in memory."""

    is_connected = True

    def __init__(self, poll_seconds: float | None = None) -> None:
        self.poll_seconds = poll_seconds
        self._listeners: dict[str, dict[object, Callable[[], None]]] = {}

    def wake(self, topics: Iterable[str]) -> None:
        """Wake all who listen to any of the topics."""
        for topic in topics:
            for wake in tuple(self._listeners.get(topic, {}).values()):
                wake()

    @contextmanager
    def listen(self, topic: str, wake: Callable[[], None]) -> Iterator[None]:
        """Call `wake` at every wake-up from now on until the context ends."""
        me = object()
        self._listeners.setdefault(topic, {})[me] = wake
        try:
            yield
        finally:
            del self._listeners[topic][me]
            if not self._listeners[topic]:
                del self._listeners[topic]

    def wake_all(self) -> None:
        """Wake all who listen to anything: nobody knows what there was to hear meanwhile."""
        self.wake(tuple(self._listeners))
