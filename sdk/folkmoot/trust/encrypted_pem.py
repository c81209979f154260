"""Private keys under a passphrase: PKCS#8's encrypted form with PBES2 (RFC 8018), which openssl and `cryptography` read.

The library writes this form with 2,048 rounds of PBKDF2 and offers no other number for PKCS#8; here are ROUNDS of them, so that each
guess at a passphrase costs a thief what it should. The primitives are the library's; what is put together here is the container.
Salt and initialization vector are drawn from the operating system, as the library does.
"""

import base64
import math
import os
import textwrap
from collections.abc import Iterator
from typing import Final

from cryptography.hazmat.primitives import hashes, padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

LABEL: Final = "ENCRYPTED PRIVATE KEY"
ROUNDS: Final = 600_000
"""What OWASP asks for PBKDF2 with HMAC-SHA-256 (Password Storage Cheat Sheet, 2023)."""
MOST_WORK: Final = 5_000_000
"""What a file may ask of who opens it: rounds of PBKDF2, or scrypt's N * r * p (of 128 bytes each)."""

_SALT_BYTES, _KEY_BYTES, _BLOCK_BYTES = 16, 32, 16
_LINE_LENGTH = 64

_INTEGER, _OCTET_STRING, _NULL, _OBJECT_IDENTIFIER, _SEQUENCE = 0x02, 0x04, 0x05, 0x06, 0x30
_PBES2 = bytes.fromhex("2a864886f70d01050d")
_PBKDF2 = bytes.fromhex("2a864886f70d01050c")
_HMAC_SHA_256 = bytes.fromhex("2a864886f70d0209")
_AES_256_CBC = bytes.fromhex("60864801650304012a")


def encrypt_private_key(private_key: bytes, passphrase: bytes) -> bytes:
    """Return a private key (DER, PKCS#8) as PEM that only the passphrase opens."""
    salt, vector = os.urandom(_SALT_BYTES), os.urandom(_BLOCK_BYTES)
    key = PBKDF2HMAC(hashes.SHA256(), _KEY_BYTES, salt, ROUNDS).derive(passphrase)
    pad, cipher = (
        padding.PKCS7(_BLOCK_BYTES * 8).padder(),
        Cipher(algorithms.AES256(key), modes.CBC(vector)).encryptor(),
    )
    sealed = cipher.update(pad.update(private_key) + pad.finalize()) + cipher.finalize()
    function = _sequence(
        _tagged(_OBJECT_IDENTIFIER, _PBKDF2),
        _sequence(
            _tagged(_OCTET_STRING, salt),
            _tagged(_INTEGER, ROUNDS.to_bytes(3, "big")),
            _sequence(_tagged(_OBJECT_IDENTIFIER, _HMAC_SHA_256), _tagged(_NULL, b"")),
        ),
    )
    scheme = _sequence(_tagged(_OBJECT_IDENTIFIER, _AES_256_CBC), _tagged(_OCTET_STRING, vector))
    algorithm = _sequence(_tagged(_OBJECT_IDENTIFIER, _PBES2), _sequence(function, scheme))
    return _pem(_sequence(algorithm, _tagged(_OCTET_STRING, sealed)))


def work(protected_key: bytes, levels: int = 6) -> int:
    """Return what opening a protected key (DER) costs: the product of the numbers beside its salt; 0 if it has none.

    PBKDF2 and its forerunners keep their rounds there, scrypt its N, r and p. Who opens a file looks first: it may ask for years.
    """
    most = 0
    for tag, content in _values(protected_key):
        if tag == _SEQUENCE and levels:
            inside = list(_values(content))
            numbers = [int.from_bytes(value, "big") for kind, value in inside if kind == _INTEGER]
            is_salted = bool(inside) and inside[0][0] == _OCTET_STRING
            most = max(most, math.prod(numbers) if is_salted and numbers else 0, work(content, levels - 1))
    return most


def _values(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tags and contents of the values in a row; what is cut off or not DER ends it."""
    at = 0
    while len(der) >= at + 2:
        tag, length, at = der[at], der[at + 1], at + 2
        if length >= 0x80:
            written = length & 0x7F
            length, at = int.from_bytes(der[at : at + written], "big"), at + written
        yield tag, der[at : at + length]
        at += length


def _sequence(*parts: bytes) -> bytes:
    return _tagged(_SEQUENCE, b"".join(parts))


def _tagged(tag: int, content: bytes) -> bytes:
    """Return a value in DER: its tag, its length in the shortest form, its content."""
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    written = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(written))) + written + content


def _pem(der: bytes) -> bytes:
    lines = textwrap.wrap(base64.b64encode(der).decode(), _LINE_LENGTH)
    return "\n".join([f"-----BEGIN {LABEL}-----", *lines, f"-----END {LABEL}-----", ""]).encode()
