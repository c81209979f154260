"""Limit of verifying a ledger or a task: Ed25519 verification of as many signatures, over messages of the same lengths, with keys loaded.

About 16,500 a second (60 us each) where the processor is not busy otherwise.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bench.limits.common import Figure, print_figures, repeat, seconds

KEYS = 16
"""Different signers, taking turns."""


def measure(name: str, *, lengths: Sequence[int], repetitions: int = 5) -> Figure:
    """Milliseconds of verifying a signature over a message of each of these lengths, one after the other."""
    verify = verifying(lengths)
    return Figure(name, "ms", repeat(repetitions, lambda: seconds(verify) * 1e3), {"signatures": len(lengths)})


def verifying(lengths: Sequence[int]) -> Callable[[], None]:
    """Return what is measured: for something so short that it is done often, and in turns with what it is compared with."""
    signers = [Ed25519PrivateKey.generate() for _ in range(KEYS)]
    work = [_signed(signers[index % KEYS], os.urandom(length)) for index, length in enumerate(lengths)]

    def verify() -> None:
        for public_key, signature, message in work:
            public_key.verify(signature, message)

    return verify


def _signed(signer: Ed25519PrivateKey, message: bytes) -> tuple[Ed25519PublicKey, bytes, bytes]:
    return signer.public_key(), signer.sign(message), message


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signatures", type=int, default=10_000)
    parser.add_argument("--length", type=int, default=400)
    options = parser.parse_args()
    print_figures(measure("ledger", lengths=[options.length] * options.signatures))
