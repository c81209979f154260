"""Messages between sibling runs: per pair in order, none twice, none missing."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from folkmoot.algorithm.errors import MessageGap, NotSerializable
from folkmoot.algorithm.outbox import Outbox
from folkmoot.algorithm.proxy import Proxy
from folkmoot.algorithm.values import decode, encode
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.proxy_service_pb2 import ReceiveMessagesResponse, SendMessageRequest

MESSAGE_LIMIT_BYTES = 256_000


class Messages:
    """This run's messages, to and from each sibling by its organization's address."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._sent: defaultdict[str, int] = defaultdict(int)
        self._received: dict[str, int] = {}
        self._inbox: defaultdict[str, deque[ReceiveMessagesResponse]] = defaultdict(deque)

    def send(self, organization_ids: Sequence[str], value: object) -> None:
        """Send a value to each of the siblings; returns when the node has all of them in its journal."""
        self._send(self._numbered(organization_ids, [value]))

    def send_many(self, organization_ids: Sequence[str], values: Iterable[object]) -> None:
        """Send values to each of the siblings: the first ones leave while the next ones are made, and many at once if they are fast."""
        with Outbox(self._send) as outbox:
            for request in self._numbered(organization_ids, values):
                outbox.put(request)

    def _send(self, requests: Iterable[SendMessageRequest]) -> None:
        for journaled in self._proxy.send_messages(list(requests)):
            self._sent[journaled.organization_id] = journaled.sequence

    def _numbered(self, organization_ids: Sequence[str], values: Iterable[object]) -> Iterator[SendMessageRequest]:
        first = {each: self._sent[each] + 1 for each in organization_ids}
        for index, value in enumerate(values):
            encoded = encode(value, name="message")
            if len(encoded.content) > MESSAGE_LIMIT_BYTES:
                raise NotSerializable(
                    f"the message takes {len(encoded.content):,} bytes, at most {MESSAGE_LIMIT_BYTES:,} are possible: send it "
                    "in parts, or return it as a result that a later task depends on",
                    reason=reasons.ERROR_REASON_TOO_LARGE,
                )
            for organization_id, sequence in first.items():
                yield SendMessageRequest(
                    organization_id=organization_id,
                    sequence=sequence + index,
                    content_type=encoded.content_type,
                    content=encoded.content,
                )

    def receive(self, organization_id: str) -> Any:
        """Wait for the next message of an organization and return its value."""
        while not self._inbox[organization_id]:
            self._fill()
        message = self._inbox[organization_id].popleft()
        return decode(message.content_type, message.content)

    def receive_any(self) -> tuple[str, Any]:
        """Wait for the next message of whichever sibling; return the sender's address and the value."""
        while not (waiting := [each for each, inbox in self._inbox.items() if inbox]):
            self._fill()
        return waiting[0], self.receive(waiting[0])

    def _fill(self) -> None:
        """Take in what there is, and wait for something if there is nothing. The call is open only as long as this run waits."""
        for message in self._proxy.take_messages(self._received):
            self._take(message)

    def _take(self, message: ReceiveMessagesResponse) -> None:
        sender, last = message.organization_id, self._received.get(message.organization_id, 0)
        if message.sequence > last + 1:
            raise MessageGap(f"message {last + 1} of {sender} is missing: {message.sequence} came instead")
        if message.sequence == last + 1:
            self._received[sender] = message.sequence
            self._inbox[sender].append(message)
