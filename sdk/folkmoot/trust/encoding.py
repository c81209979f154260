"""Bytes and texts that everything else is built from: digests, fingerprints, ids, times, and messages read strictly.

The same input gives the same bytes in every release. What is read here is either exactly what this release would have
written, or refused as `Malformed`: two readers never understand the same bytes differently.
"""

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Self, TypeVar
from uuid import UUID

from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust.errors import FingerprintMissing, Malformed

DIGEST_BYTES = 32
FORMAT_VERSION = 1
FINGERPRINT_PATTERN = re.compile(r"[a-z2-7]{56}")
NAME_PATTERN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,61}[A-Za-z0-9])?")

_FINGERPRINT_LABEL = b"folkmoot/v1 fingerprint"
_CHECKSUM_BYTES = 3
_UUID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

M = TypeVar("M", bound=Message)
Random = Callable[[int], bytes]


def pae(*parts: bytes) -> bytes:
    """Join parts so that no two lists of parts give the same bytes: their number, then each with its length, le64.

    Pre-authentication encoding, as in PASETO.
    """
    lengths_and_parts = (field for part in parts for field in (len(part).to_bytes(8, "little"), part))
    return b"".join((len(parts).to_bytes(8, "little"), *lengths_and_parts))


def digest(data: bytes) -> bytes:
    """Return SHA-256(data): 32 bytes, the name of a signed body."""
    return hashlib.sha256(data).digest()


@lru_cache(maxsize=4096)  # of few keys, over and over
def fingerprint(key_id: bytes) -> str:
    """Return the text form of 32 bytes: 56 characters of lower-case base32, a checksum of 24 bits included."""
    if len(key_id) != DIGEST_BYTES:
        raise Malformed(f"A fingerprint is of {DIGEST_BYTES} bytes, not of {len(key_id)}.")
    return base64.b32encode(key_id + _checksum(key_id)).decode().lower()


@lru_cache(maxsize=4096)
def parse_fingerprint(text: str) -> bytes:
    """Return the 32 bytes that a fingerprint names; raise Malformed when it is mistyped."""
    if not FINGERPRINT_PATTERN.fullmatch(text):
        raise Malformed(f"{text[:80]!r} is not a fingerprint, which is 56 characters of a to z and 2 to 7.")
    raw = base64.b32decode(text.upper())
    key_id, checksum = raw[:DIGEST_BYTES], raw[DIGEST_BYTES:]
    if checksum != _checksum(key_id):
        raise Malformed(f"The fingerprint {text} is mistyped: its checksum is wrong.")
    return key_id


def _checksum(key_id: bytes) -> bytes:
    return digest(_FINGERPRINT_LABEL + key_id)[:_CHECKSUM_BYTES]


@dataclass(frozen=True)
class Reference:
    """A collaboration as people name it: name@fingerprint, the fingerprint being that of its genesis (32 bytes)."""

    name: str
    genesis: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read name@fingerprint; raise FingerprintMissing when there is no fingerprint, or a mistyped one."""
        name, separator, fingerprint_text = text.rpartition("@")
        if not separator:
            raise FingerprintMissing(f"The collaboration {text[:80]!r} is named without a fingerprint.")
        if not NAME_PATTERN.fullmatch(name):
            raise FingerprintMissing(f"{name[:80]!r} is not a collaboration's name.")
        try:
            return cls(name, parse_fingerprint(fingerprint_text))
        except Malformed as error:
            raise FingerprintMissing(error.message) from error

    def __str__(self) -> str:
        return f"{self.name}@{fingerprint(self.genesis)}"


def parse(message_type: type[M], data: bytes) -> M:
    """Read a message that is exactly what this release would write.

    Raises Malformed for what does not parse, unknown fields, any encoding but the canonical one (fields in order, each
    once, no defaults, nothing behind the end), and a `version`, where the message has one, other than 1.
    """
    message = message_type()
    name = message_type.DESCRIPTOR.name
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise Malformed(f"A {name} does not parse.") from error
    version = getattr(message, "version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise Malformed(f"A {name} has format {version}; this release reads {FORMAT_VERSION}.")
    message.DiscardUnknownFields()
    if serialize(message) != data:
        raise Malformed(f"A {name} has unknown fields or is not in canonical form.")
    return message


def serialize(message: Message) -> bytes:
    """Return a message's canonical bytes, the only ones that `parse` reads."""
    return message.SerializeToString(deterministic=True)


def uuid7(now: datetime, random: Random) -> str:
    """Return a UUIDv7 (RFC 9562, method 3: the fraction of the millisecond follows it), which sorts by time."""
    microseconds = (now - _EPOCH) // timedelta(microseconds=1)
    milliseconds, rest = divmod(microseconds, 1000)
    fraction = rest * 4096 // 1000
    tail = int.from_bytes(random(8), "big") & (1 << 62) - 1
    return str(UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | tail))


def is_uuid(text: str) -> bool:
    """Tell whether the text is a UUID in its usual form, lower case with hyphens."""
    return _UUID_PATTERN.fullmatch(text) is not None


def timestamp(moment: datetime) -> Timestamp:
    """Return a time (UTC, aware) as messages carry it."""
    result = Timestamp()
    result.FromDatetime(moment.astimezone(UTC))
    return result
