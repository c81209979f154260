"""Messages between sibling runs: per pair in order, none twice, none missing."""

from collections import defaultdict, deque
from typing import Any

from folkmoot.algorithm.errors import MessageGap, NotSerializable
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

    def send(self, organization_id: str, value: object) -> None:
        """Send a value; returns when the node has it in its journal."""
        encoded = encode(value, name="message")
        if len(encoded.content) > MESSAGE_LIMIT_BYTES:
            raise NotSerializable(
                f"the message takes {len(encoded.content):,} bytes, at most {MESSAGE_LIMIT_BYTES:,} are possible: send it in "
                "parts, or return it as a result that a later task depends on",
                reason=reasons.ERROR_REASON_TOO_LARGE,
            )
        sequence = self._sent[organization_id] + 1
        self._proxy.send_message(
            SendMessageRequest(
                organization_id=organization_id,
                sequence=sequence,
                content_type=encoded.content_type,
                content=encoded.content,
            )
        )
        self._sent[organization_id] = sequence

    def receive(self, organization_id: str) -> Any:
        """Wait for the next message of an organization and return its value."""
        if not self._inbox[organization_id]:
            self._fill(organization_id)
        message = self._inbox[organization_id].popleft()
        return decode(message.content_type, message.content)

    def _fill(self, organization_id: str) -> None:
        """Take messages in until there is one of this organization. The call is open only as long as this run waits."""
        messages = self._proxy.receive_messages(self._received)
        try:
            for message in messages:
                self._take(message)
                if message.organization_id == organization_id:
                    return
        finally:
            messages.close()  # type: ignore[attr-defined]  # a generator

    def _take(self, message: ReceiveMessagesResponse) -> None:
        sender, last = message.organization_id, self._received.get(message.organization_id, 0)
        if message.sequence > last + 1:
            raise MessageGap(f"message {last + 1} of {sender} is missing: {message.sequence} came instead")
        if message.sequence == last + 1:
            self._received[sender] = message.sequence
            self._inbox[sender].append(message)
