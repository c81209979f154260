"""What a node gives a run, and what its policy says beforehand, as people read it. All of it is the node's word, told by the server."""

from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.descriptor import EnumDescriptor

from folkmoot.v1.link_pb2 import ApprovalMode, ReleaseMode
from folkmoot.v1.task_pb2 import Resources

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024
_MILLIS = 1000


@dataclass(frozen=True)
class Limits:
    """What a run may use; zero and None: it does not say."""

    memory_bytes: int
    cpu_millis: int
    """Thousandths of a processor."""
    run_time: timedelta | None
    resource_class: str = ""

    @classmethod
    def of(cls, told: Resources) -> "Limits":
        """The contract's message as ours."""
        return cls(told.memory_bytes, told.cpu_millis, _run_time(told), told.resource_class)

    @property
    def amounts(self) -> str:
        """How much of what, in words; empty if it says nothing."""
        memory = f"{size_text(self.memory_bytes)} of memory" if self.memory_bytes else ""
        processors = f"{self.cpu_millis / _MILLIS:g} processor{'' if self.cpu_millis == _MILLIS else 's'}"
        running = f"{time_text(self.run_time)} of running time" if self.run_time else ""
        return ", ".join(filter(None, (memory, processors if self.cpu_millis else "", running)))

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.resource_class, self.amounts)))


def _run_time(told: Resources) -> timedelta | None:
    try:
        return told.run_time.ToTimedelta() if told.HasField("run_time") else None
    except (OverflowError, ValueError):  # A time that no calendar has, is none.
        return None


def size_text(size_bytes: int) -> str:
    """A size in the unit that suits it."""
    size, unit = float(size_bytes), 0
    while size >= _STEP and unit < len(_UNITS) - 1:
        size, unit = size / _STEP, unit + 1
    return f"{size:.4g} {_UNITS[unit]}"


def time_text(duration: timedelta) -> str:
    """A duration in words: of days, hours, minutes and seconds those that are there."""
    seconds = int(duration.total_seconds())
    days, seconds = divmod(seconds, 86400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or f"{duration.total_seconds():g} s"


def approval_text(mode: int) -> str:
    """When a person is asked: "never", "first use", "every run"; "never" too for nodes that can't ask anybody."""
    return word(ApprovalMode.DESCRIPTOR, mode, "APPROVAL_MODE_") or "never"


def release_text(mode: int) -> str:
    """Whether results leave by themselves: "automatic" or "held"; "automatic" too for nodes that can't hold them."""
    return word(ReleaseMode.DESCRIPTOR, mode, "RELEASE_MODE_") or "automatic"


def word(kind: EnumDescriptor, value: int, prefix: str) -> str:
    """An enum's value in words; empty for none, and for one of a later release."""
    known = kind.values_by_number.get(value) if value else None
    return known.name.removeprefix(prefix).lower().replace("_", " ") if known else ""
