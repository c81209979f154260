"""Give every target its inputs without measure, in a process that gets no more memory than a reader may need.

`python -m tests.fuzz.within_memory SIZE_BYTES` ends with 0 if all were taken or clearly refused.
"""

import itertools
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.absurd import absurd, claims
from tests.fuzz.targets import TARGETS, Target

ALLOWED_BYTES = 32 * 1024 * 1024
PER_INPUT_BYTE = 100
"""What parsed messages take, at worst: a field of two bytes becomes an object."""


def main(size_bytes: int) -> None:
    """Read everything; an error that is not a refusal, MemoryError among them, ends the process."""
    for _ in _inputs(size_bytes):
        pass  # what it takes to make them is not a reader's
    limit = _most_taken_bytes() + ALLOWED_BYTES + PER_INPUT_BYTE * size_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for each, name, data in _inputs(size_bytes):
        try:
            each.takes(data)
        except Exception as error:
            error.add_note(f"{each.name}: {name}")
            raise


def _inputs(size_bytes: int) -> Iterator[tuple[Target, str, bytes]]:
    for each in TARGETS.values():
        for name, data in itertools.chain(claims(each.seeds[0]), absurd(each.seeds[0], size_bytes)):
            yield each, name, data


def _most_taken_bytes() -> int:
    """Return the most address space that this process has had so far."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]))
