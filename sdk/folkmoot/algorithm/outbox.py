"""Sends messages beside the algorithm that makes them: what has been made while the node took those before leaves together.

    with Outbox(send) as outbox:
        for request in requests: outbox.put(request)

Promises: nothing waits for what is made after it; order stays; the block ends when everything is sent, or raises what `send` raised,
and then nothing is sent behind that.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from folkmoot.algorithm.proxy import MESSAGES_AT_ONCE
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest


class Outbox:
    """Messages on their way to `send`, which is called in a thread of its own, with as many as there are."""

    def __init__(self, send: Callable[[Sequence[SendMessageRequest]], None]) -> None:
        self._send = send
        self._made: queue.Queue[SendMessageRequest | None] = queue.Queue(MESSAGES_AT_ONCE)
        self._thread = threading.Thread(target=self._work, name="messages", daemon=True)
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def put(self, request: SendMessageRequest) -> None:
        """Send a message after those before it, as soon as these are few; raise what went wrong with them."""
        self._made.put(request)
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._made.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _work(self) -> None:
        while (first := self._made.get()) is not None:
            together, ends = [first], False
            while len(together) < MESSAGES_AT_ONCE and not ends and not self._made.empty():
                request = self._made.get()
                if request is None:
                    ends = True
                else:
                    together.append(request)
            self._try(together)
            if ends:
                return

    def _try(self, requests: Sequence[SendMessageRequest]) -> None:
        """Send messages, unless those before could not be."""
        if self._error is not None:
            return
        try:
            self._send(requests)
        except BaseException as error:  # noqa: BLE001 - whoever puts raises it
            self._error = error
