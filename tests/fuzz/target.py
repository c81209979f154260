"""What is fuzzed: a table of everything that reads bytes from outside, by name.

A target is a function of bytes that returns, or raises a FolkmootError; beside it stand some bytes that it reads:

    @target("reference", b"lung@...")
    def _reference(data: bytes) -> object:
        return Reference.parse(text(data))

Whoever is to be feared has keys of his own, so what is signed is given as a bare body, and the target signs it. `second` is
the independent reader of the vectors where it can judge the same bytes: it tells whether it takes them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from folkmoot.trust import FolkmootError
from tests.vectors.second_reader_wire import Refused

Read = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader, bytes that it takes, and a second reader of the same."""

    name: str
    seeds: tuple[bytes, ...]
    read: Read
    second: Read | None = None

    def takes(self, data: bytes) -> bool:
        """Tell whether the bytes are accepted. Whatever is raised but a typed refusal is a fault, and passes through."""
        try:
            self.read(data)
        except FolkmootError as error:
            if not error.reason or not error.message:
                raise AssertionError(f"a refusal without reason or message: {error!r}") from error
            return False
        return True

    def second_takes(self, data: bytes) -> bool:
        """Tell whether the second reader accepts the bytes; what can't even be signed, it never gets to see."""
        assert self.second
        try:
            self.second(data)
        except (Refused, FolkmootError):
            return False
        return True


TARGETS: dict[str, Target] = {}


def target(name: str, *seeds: bytes, second: Read | None = None) -> Callable[[Read], Read]:
    """Enter a reader into the table."""

    def enter(read: Read) -> Read:
        assert name not in TARGETS
        TARGETS[name] = Target(name, seeds, read, second)
        return read

    return enter


def text(data: bytes) -> str:
    """Return bytes as text that stands for them one to one, and is ASCII where they are."""
    return data.decode("ascii", "surrogateescape")


def accepted(cases: Iterable[dict[str, str]], what: str, field: str) -> tuple[bytes, ...]:
    """Return what the vectors have of a kind and accept."""
    return tuple(case[field].encode() for case in cases if case.get("what") == what and case["verdict"] == "accepted")
