"""What a node offers, in its own words: the data, and how much of it and of the machine a run gets. Told by the server, signed by nobody.

What a run really gets is decided when it comes, by the policy's rule that lets it in; `tasks.check` asks for that.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from folkmoot.client.limits import Limits, approval_text, release_text, size_text, word
from folkmoot.v1.link_pb2 import Availability, PolicySummary, VotedList
from folkmoot.v1.task_pb2 import Isolation


@dataclass(frozen=True)
class Offer:
    """The policy of a node, as far as it tells it."""

    labels: tuple[str, ...]
    """Data that it offers."""
    slots: int
    """Runs that compute at a time."""
    isolation: str
    """How algorithms are kept apart, such as "container"; empty: it does not say."""
    limits: Limits
    """What a run may use at most, and uses if it asks for nothing."""
    resource_classes: tuple[Limits, ...]
    """What runs may use that ask for a class by its name."""
    result_bytes: int
    """The largest result; 0: it does not say."""
    minimum_rows: int
    """The fewest rows that a read may give; 0: any."""
    approval: str
    """When a person is asked before a run starts, unless a rule says otherwise: "never", "first use", "every run"."""
    release: str
    """Whether results leave by themselves, unless a rule says otherwise: "automatic", or "held" until a person has looked at them."""
    opening_hours: tuple[str, ...]
    """When runs start; none: always."""
    runs_per_day: int
    """Runs that an organization may have per day; 0: any number."""
    bytes_out_per_day: int
    """Bytes that may leave for an organization per day; 0: any number."""
    voted_list_required: bool
    """Whether algorithms must be on the list that the members vote on."""

    @classmethod
    def of(cls, told: PolicySummary) -> "Offer":
        """The contract's message as ours."""
        return cls(
            labels=tuple(told.labels),
            slots=told.slots,
            isolation=word(Isolation.DESCRIPTOR, told.isolation, "ISOLATION_"),
            limits=Limits.of(told.limits),
            resource_classes=tuple(Limits.of(each) for each in told.resource_classes),
            result_bytes=told.result_bytes,
            minimum_rows=told.minimum_rows,
            approval=approval_text(told.approval),
            release=release_text(told.release),
            opening_hours=tuple(told.opening_hours),
            runs_per_day=told.runs_per_day,
            bytes_out_per_day=told.bytes_out_per_day,
            voted_list_required=told.voted_list == VotedList.VOTED_LIST_REQUIRED,
        )

    def lines(self) -> Iterator[tuple[str, str]]:
        """The offer as names and values, in words; what it does not say is left out."""
        yield "data", ", ".join(self.labels) or "none"
        yield "runs at a time", str(self.slots)
        for limits in (self.limits, *self.resource_classes):
            if str(limits):
                yield f"class {limits.resource_class}" if limits.resource_class else "a run gets", limits.amounts
        if self.result_bytes:
            yield "largest result", size_text(self.result_bytes)
        yield "rows per read", f"at least {self.minimum_rows}" if self.minimum_rows else "any number"
        yield "approval", f"a person is asked: {self.approval}"
        yield "results", "a person looks at each before it leaves" if self.release == "held" else "leave by themselves"
        yield "opening hours", "; ".join(self.opening_hours) or "always"
        if self.runs_per_day:
            yield "runs per day", f"{self.runs_per_day} of each organization"
        if self.bytes_out_per_day:
            yield "out per day", f"{size_text(self.bytes_out_per_day)} for each organization"
        if self.voted_list_required:
            yield "algorithms", "those that the members have voted for"
        if self.isolation:
            yield "isolation", self.isolation


def availability_text(value: int) -> str:
    """Whether a node takes new work: "open", "paused" (it accepts runs and starts none), "draining" (it is about to go)."""
    return word(Availability.DESCRIPTOR, value, "AVAILABILITY_") or "open"
