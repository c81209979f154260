"""Limit of one more receiver: one wrap of a 32-byte content key, straight from the library.

`x-wing` is HPKE with MLKEM768-X25519 and AES-256-GCM, about 70 us; `rsa` is RSA-4096 with OAEP-SHA-256 and a label,
about 60 us. Key loading and encoding are not part of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, padding, rsa, x25519

from bench.limits.common import Figure, print_figures, repeat, seconds_per_call

Kind = Literal["x-wing", "rsa"]
CONTENT_KEY = os.urandom(32)
BOUND_TO = os.urandom(32)


def measure(kind: Kind, *, for_seconds: float = 0.3, repetitions: int = 5) -> Figure:
    """Microseconds of one wrap."""
    wrap = _x_wing() if kind == "x-wing" else _rsa()
    samples = repeat(repetitions, lambda: seconds_per_call(wrap, for_seconds=for_seconds) * 1e6)
    return Figure(f"receivers ({kind})", "us", samples, {"wrapped_bytes": len(wrap())})


def _x_wing() -> Callable[[], bytes]:
    suite = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    private_key = hpke.MLKEM768X25519PrivateKey(mlkem.MLKEM768PrivateKey.generate(), x25519.X25519PrivateKey.generate())
    public_key = private_key.public_key()
    return lambda: suite.encrypt(CONTENT_KEY, public_key, BOUND_TO)


def _rsa() -> Callable[[], bytes]:
    public_key = rsa.generate_private_key(public_exponent=65537, key_size=4096).public_key()
    scheme = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=BOUND_TO)
    return lambda: public_key.encrypt(CONTENT_KEY, scheme)


if __name__ == "__main__":
    print_figures(measure("x-wing"), measure("rsa"))
