"""Give every target its inputs without measure, in a process that gets no more memory than a reader may need.

`python -m tests.fuzz.within_memory SIZE_BYTES` ends with 0 if all were taken or clearly refused.
"""

import resource
import sys
from pathlib import Path

from tests.fuzz.absurd import absurd, claims
from tests.fuzz.targets import TARGETS

ALLOWED_BYTES = 64 * 1024 * 1024
PER_INPUT_BYTE = 160
"""What parsed messages take, at worst: a field of two bytes becomes an object."""


def main(size_bytes: int) -> None:
    """Read everything; an error that is not a refusal, MemoryError among them, ends the process."""
    taken_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = taken_bytes + ALLOWED_BYTES + PER_INPUT_BYTE * size_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for each in TARGETS.values():
        for seed in each.seeds[:1]:
            for name, data in (*claims(seed), *absurd(seed, size_bytes)):
                try:
                    each.takes(data)
                except Exception as error:
                    error.add_note(f"{each.name}: {name}")
                    raise


if __name__ == "__main__":
    main(int(sys.argv[1]))
