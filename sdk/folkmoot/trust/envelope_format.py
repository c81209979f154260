"""Envelope v1 as bytes: where each part lies, which values a context may have, how chunks are encrypted.

    magic | header length | header | body: chunks of 1 MiB | trailer | trailer length

`inspect` reads everything but the body, believes nothing, and is all that somebody without keys can do with an envelope.
`envelope` seals and opens. Formats: envelope.proto; HKDF: RFC 5869; AES-GCM: NIST SP 800-38D.
"""

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import BinaryIO, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from folkmoot.trust.encoding import DIGEST_BYTES, digest, is_uuid, parse, parse_fingerprint
from folkmoot.trust.errors import EnvelopeRejected, FolkmootError, Malformed
from folkmoot.trust.times import nanoseconds
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeHeader, EnvelopeKind, EnvelopeSeal
from folkmoot.v1.signed_pb2 import Signed

MAGIC = b"FOLKENV1"
LENGTH_BYTES = 4
CHUNK_BYTES = 1024 * 1024
TAG_BYTES = 16
MESSAGE_ID_BYTES = 16
COMMITMENT_BYTES = 32
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_TRAILER_BYTES = 1024
MAX_CONTENT_TYPE_LENGTH = 255

_KEY_INFO = b"folkmoot/v1 envelope"
_AES_KEY_BYTES, _NONCE_BYTES = 32, 12
_KINDS = frozenset(EnvelopeKind.values()) - {EnvelopeKind.ENVELOPE_KIND_UNSPECIFIED}
_NUMBERED = (EnvelopeKind.ENVELOPE_KIND_PROGRESS, EnvelopeKind.ENVELOPE_KIND_LOG, EnvelopeKind.ENVELOPE_KIND_MESSAGE)


# ---- where an envelope is read from --------------------------------------------------------------------------------


class Source(Protocol):
    """An envelope's bytes, readable at any place and more than once."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read_at(self, offset: int, length: int) -> bytes:
        """Return the bytes there; fewer only at the end."""


class BytesSource:
    """An envelope in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size_bytes = len(data)

    def read_at(self, offset: int, length: int) -> bytes:
        """See Source."""
        return self._data[offset : offset + length]


class FileSource:
    """An envelope in a file, opened for reading in binary mode; whoever opened it closes it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = Lock()
        self.size_bytes = file.seek(0, 2)

    def read_at(self, offset: int, length: int) -> bytes:
        """See Source. May be called from several threads."""
        with self._position:
            self._file.seek(offset)
            return self._file.read(length)


# ---- what can be read without keys ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inspected:
    """An envelope's parts, parsed and consistent, but not verified: anybody can have written them."""

    context: EnvelopeContext
    header: EnvelopeHeader
    seal: EnvelopeSeal
    trailer: Signed
    body_offset: int

    @property
    def digest(self) -> bytes:
        """The one name of this envelope: SHA-256 of the signed seal."""
        return digest(self.trailer.body)

    @property
    def total_length(self) -> int:
        """Bytes of content."""
        return self.seal.total_length

    @property
    def sealed(self) -> bool:
        """Whether the content is encrypted."""
        return bool(self.header.wraps)

    @property
    def chunk_count(self) -> int:
        """How many chunks the body has; the last one is never absent, even if it is empty."""
        return max(1, -(-self.total_length // CHUNK_BYTES))

    def chunk_span(self, index: int) -> tuple[int, int]:
        """Return offset and length of a chunk, tag included, in the envelope."""
        tag = TAG_BYTES if self.sealed else 0
        content = min(CHUNK_BYTES, self.total_length - index * CHUNK_BYTES)
        return self.body_offset + index * (CHUNK_BYTES + tag), content + tag


def inspect(source: Source) -> Inspected:
    """Parse an envelope without verifying it; raise EnvelopeRejected where the parts don't fit together.

    Reads header and trailer, at most MAX_HEADER_BYTES and MAX_TRAILER_BYTES, never the body.
    """
    with one_error_outward():
        return _inspect(source)


def _inspect(source: Source) -> Inspected:
    prologue = len(MAGIC) + LENGTH_BYTES
    start = read_exactly(source, 0, prologue)
    if start[: len(MAGIC)] != MAGIC:
        raise EnvelopeRejected("it does not begin like an envelope of version 1")
    header_length = _length(start[len(MAGIC) :], MAX_HEADER_BYTES)
    header_bytes = read_exactly(source, prologue, header_length)

    end = source.size_bytes - LENGTH_BYTES
    trailer_length = _length(read_exactly(source, end, LENGTH_BYTES), MAX_TRAILER_BYTES)
    trailer = parse(Signed, read_exactly(source, end - trailer_length, trailer_length))

    header, seal = parse(EnvelopeHeader, header_bytes), parse(EnvelopeSeal, trailer.body)
    inspected = Inspected(parse(EnvelopeContext, header.context), header, seal, trailer, prologue + header_length)
    check_header(inspected.header, inspected.context)
    if seal.header_digest != digest(header_bytes):
        raise EnvelopeRejected("the header is not the one that was signed")
    offset, length = inspected.chunk_span(inspected.chunk_count - 1)
    if offset + length != end - trailer_length:
        raise EnvelopeRejected("the body is longer or shorter than the signed length")
    return inspected


def _length(field: bytes, limit: int) -> int:
    length = int.from_bytes(field, "big")
    if not 0 < length <= limit:
        raise EnvelopeRejected(f"a part claims to have {length} bytes; 1 to {limit} are allowed")
    return length


def read_exactly(source: Source, offset: int, length: int) -> bytes:
    """Return `length` bytes from `offset`, or raise EnvelopeRejected."""
    data = source.read_at(offset, length) if offset >= 0 else b""
    if len(data) != length:
        raise EnvelopeRejected("it is truncated")
    return data


# ---- which values are allowed --------------------------------------------------------------------------------------


def check_header(header: EnvelopeHeader, context: EnvelopeContext) -> None:
    """Raise Malformed unless header and context are well formed and agree, wrap by wrap."""
    check_context(context)
    _require(header.chunk_size == CHUNK_BYTES, "chunk_size")
    _require([wrap.key_id for wrap in header.wraps] == [receiver.key_id for receiver in context.receivers], "wraps")
    _require(len(header.commitment) == (COMMITMENT_BYTES if header.wraps else 0), "commitment")


def check_context(context: EnvelopeContext) -> None:
    """Raise Malformed unless every field has a value that its kind of envelope may have."""
    is_input = context.kind == EnvelopeKind.ENVELOPE_KIND_INPUT
    is_numbered = context.kind in _NUMBERED
    _require(context.kind in _KINDS, "kind")
    _require(len(context.genesis) == DIGEST_BYTES, "genesis")
    _require(len(context.task_digest) == (0 if is_input else DIGEST_BYTES), "task_digest")
    _require(is_uuid(context.task_id), "task_id")
    _require(not context.run_id if is_input else is_uuid(context.run_id), "run_id")
    _require((context.attempt == 0) == is_input, "attempt")
    _require((context.sequence > 0) == is_numbered, "sequence")
    _require(len(context.sender_key_id) == DIGEST_BYTES, "sender_key_id")
    _require(len(context.message_id) == MESSAGE_ID_BYTES, "message_id")
    _require(0 < len(context.content_type) <= MAX_CONTENT_TYPE_LENGTH, "content_type")
    _require(len(context.ledger_hash) == DIGEST_BYTES, "ledger_hash")
    parse_fingerprint(context.sender_organization_id)
    created_at = nanoseconds(context.created_at)
    _require(not context.HasField("expires_at") or nanoseconds(context.expires_at) > created_at, "expires_at")
    _check_receivers(context)


def _check_receivers(context: EnvelopeContext) -> None:
    organizations = {receiver.organization_id for receiver in context.receivers}
    key_ids = {receiver.key_id for receiver in context.receivers}
    _require(len(organizations) == len(key_ids) == len(context.receivers), "receivers (one is there twice)")
    _require(all(len(key_id) == DIGEST_BYTES for key_id in key_ids), "receivers.key_id")
    for organization_id in organizations:
        parse_fingerprint(organization_id)


def _require(condition: bool, field: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise Malformed(f"An envelope has a {field} that is not allowed.")


@contextmanager
def one_error_outward() -> Iterator[None]:
    """Turn every refusal into EnvelopeRejected, so that a sender can't probe which check failed."""
    try:
        yield
    except EnvelopeRejected:
        raise
    except FolkmootError as error:
        raise EnvelopeRejected(error.message) from error


# ---- chunks --------------------------------------------------------------------------------------------------------


class Chunks(Protocol):
    """How a body's chunks are made and read: encrypted or plain."""

    @property
    def commitment(self) -> bytes:
        """What the header says about the content key."""

    def close(self, index: int, content: memoryview, *, last: bool) -> bytes:
        """Return the chunk as it stands in the body."""

    def open(self, index: int, chunk: bytes, *, last: bool) -> bytes:
        """Return the chunk's content; raise EnvelopeRejected unless it is what was closed at this place."""


class SealedChunks:
    """AES-256-GCM; a chunk's place, and whether it is the last, stand in its nonce."""

    def __init__(self, content_key: bytes, context_digest: bytes) -> None:
        length = _AES_KEY_BYTES + _NONCE_BYTES + COMMITMENT_BYTES
        keys = HKDF(hashes.SHA512(), length, salt=context_digest, info=_KEY_INFO).derive(content_key)
        self._aead = AESGCM(keys[:_AES_KEY_BYTES])
        self._base_nonce = int.from_bytes(keys[_AES_KEY_BYTES:-COMMITMENT_BYTES], "big")
        self.commitment = keys[-COMMITMENT_BYTES:]

    def fits(self, commitment: bytes) -> bool:
        """Tell whether a header was made with the same content key; takes the same time either way."""
        return hmac.compare_digest(self.commitment, commitment)

    def close(self, index: int, content: memoryview, *, last: bool) -> bytes:
        """See Chunks."""
        return self._aead.encrypt(self._nonce(index, last=last), content, None)

    def open(self, index: int, chunk: bytes, *, last: bool) -> bytes:
        """See Chunks."""
        try:
            return self._aead.decrypt(self._nonce(index, last=last), chunk, None)
        except InvalidTag as error:
            raise EnvelopeRejected(f"chunk {index} does not decrypt") from error

    def _nonce(self, index: int, *, last: bool) -> bytes:
        return (self._base_nonce ^ (index << 8 | last)).to_bytes(_NONCE_BYTES, "big")


class PlainChunks:
    """No encryption; a chunk is checked against the digest that it had when the signature was verified."""

    commitment = b""

    def __init__(self, chunk_digests: bytes = b"") -> None:
        self._chunk_digests = chunk_digests

    def close(self, index: int, content: memoryview, *, last: bool) -> bytes:  # noqa: ARG002
        """See Chunks."""
        return bytes(content)

    def open(self, index: int, chunk: bytes, *, last: bool) -> bytes:  # noqa: ARG002
        """See Chunks."""
        if digest(chunk) != self._chunk_digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]:
            raise EnvelopeRejected(f"chunk {index} changed after it was verified")
        return chunk


class BodyDigest:
    """SHA-256 over the SHA-256s of the chunks, so that chunks can be hashed side by side and checked alone."""

    def __init__(self) -> None:
        self.chunk_digests = bytearray()

    def add(self, chunk: bytes) -> None:
        """Take the next chunk, tag included."""
        self.chunk_digests += hashlib.sha256(chunk).digest()

    def digest(self) -> bytes:
        """The digest of all chunks so far."""
        return digest(bytes(self.chunk_digests))
