"""How far a session has told its node of deliveries, and how far the node says that it has journaled them."""

from dataclasses import dataclass, field

from folkmoot.server.nodes.link_errors import violation

WINDOW = 1000
"""Most deliveries under way that the node has not acknowledged."""


@dataclass
class Window:
    """What is under way between what was acknowledged and what was sent."""

    acknowledged: int = 0
    resyncing: bool = False
    """Whether the node still has to learn that it lost its journal, or the server lost rows."""
    sent: int = field(init=False)
    most_sent: int = field(init=False)
    """Up to which delivery this session may have told its node."""

    def __post_init__(self) -> None:
        """Begin behind what the node has."""
        self.sent = self.most_sent = self.acknowledged

    @property
    def room(self) -> int:
        """How many deliveries may be sent now."""
        return 0 if self.resyncing else max(0, WINDOW - (self.sent - self.acknowledged))

    def sent_up_to(self, sequence: int) -> None:
        """Note what was sent."""
        self.sent = sequence
        self.most_sent = max(self.most_sent, sequence)

    def rewind(self) -> None:
        """Send again what was not acknowledged."""
        self.sent = self.acknowledged

    def resynced(self, acknowledged: int) -> bool:
        """Tell whether the node has read the Resync just now. What it says before counts for nothing."""
        if not self.resyncing or acknowledged != self.acknowledged:
            return False
        self.resyncing = False
        return True

    def is_news(self, acknowledged: int) -> bool:
        """Whether it moves this session on; raise PROTOCOL_VIOLATION for what was never sent."""
        if self.resyncing:
            return False
        if acknowledged > self.sent:
            raise violation(f"Delivery {acknowledged} was acknowledged, and {self.sent} is the newest that was sent")
        return acknowledged > self.acknowledged
