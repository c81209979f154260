"""What has come for one run: all of it is in the journal, and what came lately is kept open here, so that it is opened once.

Promises: nothing is at hand here that is not journaled; where something may stand in the journal only, `lacks` says so. After a restart
that is everything.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import count, takewhile

from folkmoot.v1.link_pb2 import PeerMessage
from folkmoot.v1.proxy_service_pb2 import SendMessageRequest

MOST_OPENED = 256
"""Messages that are kept open in memory until the algorithm asks for them."""

OPENED_BYTES = 16 * 1024
"""The largest of them."""


class Inbox:
    """Messages of siblings, by the run that sends and by number."""

    def __init__(self) -> None:
        self._opened: defaultdict[str, dict[int, SendMessageRequest]] = defaultdict(dict)
        self._had: defaultdict[str, int] = defaultdict(int)
        self.is_whole = False
        """Whether all that the journal has, and the algorithm has not had, was put here since it was last looked at."""

    def put(self, message: PeerMessage, content: SendMessageRequest | None) -> None:
        """A message has been journaled; what it says, if it was opened."""
        if message.sequence <= self._had[message.from_run_id]:
            return
        is_small = len(message.envelope) <= OPENED_BYTES
        if content is not None and is_small and sum(map(len, self._opened.values())) < MOST_OPENED:
            self._opened[message.from_run_id][message.sequence] = content
        else:
            self.is_whole = False

    def opened(self, from_run_id: str, sequence: int) -> SendMessageRequest | None:
        """What a message says, if it is open here."""
        return self._opened[from_run_id].get(sequence)

    def at_hand(self, received: Mapping[str, int]) -> list[tuple[str, int, SendMessageRequest]]:
        """Messages that are open here and come next behind what was received: the run that sends, the number, what it says."""
        return [
            (from_run_id, sequence, self._opened[from_run_id][sequence])
            for from_run_id, last in received.items()
            for sequence in takewhile(self._opened[from_run_id].__contains__, count(last + 1))
        ]

    def lacks(self, received: Mapping[str, int]) -> bool:
        """Whether the journal may have something behind what was received that is not at hand; also if numbers are missing."""
        is_behind = any(last < self._had[from_run_id] for from_run_id, last in received.items())
        return is_behind or not self.is_whole or any(self._opened.values())

    def had(self, from_run_id: str, sequence: int) -> None:
        """The algorithm has had a message, and those before it."""
        self._had[from_run_id] = max(self._had[from_run_id], sequence)
        opened = self._opened[from_run_id]
        for number in [each for each in opened if each <= sequence]:
            del opened[number]
