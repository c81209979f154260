"""Limit of seal and of open: SHA-256 over the same bytes, one thread.

AES-256-GCM runs several times faster than SHA-256 where the processor has vector AES, so the hash is the ceiling of
both directions. About 2,000 MB/s per core where the processor has SHA instructions, 400 to 500 without.
"""

from __future__ import annotations

import argparse
import hashlib
import os

from bench.limits.common import MEBIBYTE, Figure, print_figures, repeat, seconds

CHUNK_BYTES = MEBIBYTE
_WINDOW_BYTES = 64 * MEBIBYTE


def measure(*, size_bytes: int = 100_000_000, repetitions: int = 5) -> Figure:
    """MB/s (10^6 bytes) of SHA-256 over `size_bytes` in chunks of 1 MiB.

    The bytes are random and wider than any cache: a window of 64 MiB, passed over as often as needed.
    """
    window = memoryview(os.urandom(min(size_bytes, _WINDOW_BYTES)))

    def digest() -> None:
        hasher = hashlib.sha256()
        left = size_bytes
        while left:
            part = window[:left]
            for start in range(0, len(part), CHUNK_BYTES):
                hasher.update(part[start : start + CHUNK_BYTES])
            left -= len(part)
        hasher.digest()

    rates = repeat(repetitions, lambda: size_bytes / 1e6 / seconds(digest))
    return Figure("seal and open", "MB/s", rates, {"size_bytes": size_bytes})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-bytes", type=int, default=100_000_000)
    print_figures(measure(size_bytes=parser.parse_args().size_bytes))
