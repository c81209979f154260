"""Envelopes: content sealed once for any number of organizations, signed by its sender, bound to its place.

    sealing = seal(pieces, context=context, receivers=receivers, key=node_key, random=os.urandom)
    for piece in sealing: file.write(piece)
    ... sealing.digest, sealing.size_bytes

    opened = open_envelope(FileSource(file), genesis=genesis, expected=expected, sender=sender, keys=keys)
    for piece in opened.read(): ...

Both directions take a few MiB of memory whatever the content's size. Opening makes two passes: the first verifies the
sender's signature over every byte and all that the envelope is bound to, and only then does the second decrypt. Whoever
can open an envelope knows its content key, so what it says is believed for its signature, never for its encryption.

Of what refuses an envelope, the outside learns only EnvelopeRejected; its `cause_text` is for the local log.
"""

import hmac
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust.encoding import Random, digest, serialize
from folkmoot.trust.envelope_arriving import ArrivingBody
from folkmoot.trust.envelope_format import (
    CHUNK_BYTES,
    LENGTH_BYTES,
    MAGIC,
    MAX_HEADER_BYTES,
    MESSAGE_ID_BYTES,
    BodyDigest,
    Chunks,
    Inspected,
    PlainChunks,
    SealedChunks,
    Source,
    check_header,
    inspect,
    one_error_outward,
    read_exactly,
)
from folkmoot.trust.errors import EnvelopeRejected, Malformed, SealedToOtherKeys
from folkmoot.trust.keys import CONTENT_KEY_BYTES, DecryptionKey, SigningKey, key_id, wrap
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.times import nanoseconds, nanoseconds_at
from folkmoot.v1.envelope_pb2 import (
    EnvelopeContext,
    EnvelopeHeader,
    EnvelopeKind,
    EnvelopeReceiver,
    EnvelopeSeal,
    EnvelopeWrap,
)
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import SignedKind

_HASHED_BESIDE = 3
"""So many chunks may wait to be hashed, in a thread of their own, while the next ones are encrypted and taken."""

# ---- sealing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Receiver:
    """An organization that can open an envelope, and the key that it is sealed to."""

    organization_id: str
    public_key: PublicKey


@dataclass(frozen=True)
class Sealed:
    """A whole envelope in memory, and its name."""

    envelope: bytes
    digest: bytes


def seal(
    content: Iterable[bytes],
    *,
    context: EnvelopeContext,
    receivers: Sequence[Receiver] | None,
    key: SigningKey,
    random: Random,
) -> "Sealing":
    """Seal content, given in pieces of any size, to the receivers; None makes a plain envelope, signed but readable.

    `context` says what the envelope is bound to; sender_key_id, message_id and receivers are filled in here. Raises
    Malformed for a context or a receiver that no reader would accept.
    """
    bound = EnvelopeContext()
    bound.CopyFrom(context)
    bound.sender_key_id = key.key_id
    bound.message_id = random(MESSAGE_ID_BYTES)
    del bound.receivers[:]
    if receivers is not None and not receivers:
        raise Malformed("An envelope without receivers can't be opened by anybody.")
    bound.receivers.extend(
        EnvelopeReceiver(organization_id=receiver.organization_id, key_id=key_id(receiver.public_key))
        for receiver in receivers or ()
    )
    header = EnvelopeHeader(version=1, context=serialize(bound), chunk_size=CHUNK_BYTES)
    chunks: Chunks = PlainChunks()
    if receivers:
        binding, content_key = digest(header.context), random(CONTENT_KEY_BYTES)
        chunks = SealedChunks(content_key, binding)
        header.commitment = chunks.commitment
        header.wraps.extend(_wrap(receiver.public_key, content_key, binding) for receiver in receivers)
    check_header(header, bound)
    return Sealing(content, header=serialize(header), genesis=bound.genesis, chunks=chunks, key=key)


def seal_bytes(
    content: bytes,
    *,
    context: EnvelopeContext,
    receivers: Sequence[Receiver] | None,
    key: SigningKey,
    random: Random,
) -> Sealed:
    """Seal content that is small enough to be kept in memory; see `seal`."""
    sealing = seal((content,), context=context, receivers=receivers, key=key, random=random)
    return Sealed(b"".join(sealing), sealing.digest)


def _wrap(public: PublicKey, content_key: bytes, binding: bytes) -> EnvelopeWrap:
    return EnvelopeWrap(key_id=key_id(public), kind=public.kind, wrapped_key=wrap(public, content_key, binding))


class Sealing(Iterator[bytes]):
    """An envelope in the making: iterate over its bytes, in pieces of at most some MiB; then it has a name and a size."""

    def __init__(
        self, content: Iterable[bytes], *, header: bytes, genesis: bytes, chunks: Chunks, key: SigningKey
    ) -> None:
        if len(header) > MAX_HEADER_BYTES:
            raise Malformed(f"The header has {len(header)} bytes; {MAX_HEADER_BYTES} are allowed.")
        self.size_bytes = 0
        self._digest = b""
        self._pieces = self._make(content, header, genesis, chunks, key)

    def __next__(self) -> bytes:
        piece = next(self._pieces)
        self.size_bytes += len(piece)
        return piece

    @property
    def digest(self) -> bytes:
        """The one name of this envelope, once all of it has been taken."""
        if not self._digest:
            raise ValueError("an envelope has no name before its last piece is taken")
        return self._digest

    def _make(
        self, content: Iterable[bytes], header: bytes, genesis: bytes, chunks: Chunks, key: SigningKey
    ) -> Iterator[bytes]:
        yield MAGIC + len(header).to_bytes(LENGTH_BYTES, "big") + header
        body, total_length = BodyDigest(), 0
        # It has no thread until it is asked for one: what is small enough needs none.
        with ThreadPoolExecutor(1, thread_name_prefix="sealing") as beside:
            hashing: deque[Future[None]] = deque()
            for index, (plain, last) in enumerate(_in_chunks(content)):
                chunk = chunks.close(index, plain, last=last)
                total_length += len(plain)
                while len(hashing) > (0 if last else _HASHED_BESIDE):
                    hashing.popleft().result()
                if last:
                    body.add(chunk)
                else:
                    hashing.append(beside.submit(body.add, chunk))
                yield chunk
        seal = EnvelopeSeal(header_digest=digest(header), body_digest=body.digest(), total_length=total_length)
        signed = sign(SignedKind.SIGNED_KIND_ENVELOPE, serialize(seal), key=key, genesis=genesis)
        trailer = serialize(signed)
        self._digest = digest(signed.body)
        yield trailer + len(trailer).to_bytes(LENGTH_BYTES, "big")


def _in_chunks(content: Iterable[bytes]) -> Iterator[tuple[memoryview, bool]]:
    """Cut content into chunks, each with whether it is the last; a chunk is valid until the next one is taken."""
    buffer = memoryview(bytearray(CHUNK_BYTES))
    filled = 0
    for piece in content:
        rest = memoryview(piece)
        while rest:
            if filled == CHUNK_BYTES:
                yield buffer, False
                filled = 0
            taken = min(len(rest), CHUNK_BYTES - filled)
            buffer[filled : filled + taken] = rest[:taken]
            filled += taken
            rest = rest[taken:]
    yield buffer[:filled], True


# ---- opening -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The place that an envelope must be bound to. An input belongs to a task, everything else to an attempt of a run."""

    kind: EnvelopeKind.ValueType
    task_id: str
    sender_organization_id: str
    digest: bytes | None = None
    task_digest: bytes = b""
    run_id: str = ""
    attempt: int = 0
    sequence: int = 0


def open_envelope(
    source: Source,
    *,
    genesis: bytes,
    expected: Expected,
    sender: Callable[[EnvelopeContext], PublicKey],
    keys: Mapping[bytes, DecryptionKey] | None,
    now: datetime | None = None,
    inspected: Inspected | None = None,
    arrived: ArrivingBody | None = None,
) -> "Opened":
    """Verify all of an envelope, and find its content key; raise EnvelopeRejected unless every check passes.

    `sender` returns the public key, from the verified ledger, that may sign for the (not yet believed) context.
    `keys` are the private keys by id; None, in a collaboration without encryption, accepts plain envelopes and nothing
    else. `now` refuses what has expired; None reads it all the same. `inspected` is what `inspect` gave for the source, if
    it was asked before; `arrived` has taken every byte of the source as it was written.
    """
    with one_error_outward():
        inspected = inspected or inspect(source)
        if inspected.sealed != (keys is not None):
            raise EnvelopeRejected(f"it is {'sealed' if inspected.sealed else 'plain'}, the collaboration is not")
        _check_place(inspected, genesis, expected, now)
        _check_signature(inspected, sender(inspected.context))
        body = _check_body(source, inspected, arrived.chunk_digests if arrived else ())
        chunks = PlainChunks(bytes(body.chunk_digests)) if keys is None else _find_chunks(inspected, keys)
        return Opened(source, inspected, chunks)


def _check_place(inspected: Inspected, genesis: bytes, expected: Expected, now: datetime | None) -> None:
    context = inspected.context
    if context.genesis != genesis:
        raise EnvelopeRejected("it belongs to another collaboration")
    for field in ("kind", "task_id", "task_digest", "run_id", "attempt", "sequence", "sender_organization_id"):
        if getattr(context, field) != getattr(expected, field):
            raise EnvelopeRejected(f"it has another {field} than expected")
    if expected.digest is not None and inspected.digest != expected.digest:
        raise EnvelopeRejected("it is another envelope than the expected one")
    if now is not None and context.HasField("expires_at") and nanoseconds(context.expires_at) <= nanoseconds_at(now):
        raise EnvelopeRejected("it has expired")


def _check_signature(inspected: Inspected, public: PublicKey) -> None:
    if key_id(public) != inspected.context.sender_key_id:
        raise EnvelopeRejected("its sender's key is not the one that the ledger shows")
    kind, genesis = SignedKind.SIGNED_KIND_ENVELOPE, inspected.context.genesis
    verify(inspected.trailer, kind=kind, public_key=public, genesis=genesis)


def _check_body(source: Source, inspected: Inspected, arrived: Sequence[bytes]) -> BodyDigest:
    body = BodyDigest()
    for index in range(inspected.chunk_count):
        if index < len(arrived) and index < inspected.chunk_count - 1:
            body.chunk_digests += arrived[index]
        else:
            body.add(read_exactly(source, *inspected.chunk_span(index)))
    if not hmac.compare_digest(body.digest(), inspected.seal.body_digest):
        raise EnvelopeRejected("the body is not the one that was signed")
    return body


def _find_chunks(inspected: Inspected, keys: Mapping[bytes, DecryptionKey]) -> SealedChunks:
    binding = digest(inspected.header.context)
    for wrapped in inspected.header.wraps:
        key = keys.get(wrapped.key_id)
        if key is None or key.public.kind != wrapped.kind:
            continue
        content_key = key.unwrap(wrapped.wrapped_key, binding)
        if len(content_key) != CONTENT_KEY_BYTES:
            raise EnvelopeRejected(f"a content key of {len(content_key)} bytes")
        chunks = SealedChunks(content_key, binding)
        if not chunks.fits(inspected.header.commitment):
            raise EnvelopeRejected("the content key is not the one that the header commits to")
        return chunks
    raise SealedToOtherKeys("it is sealed to other keys than ours")


class Opened:
    """An envelope whose every byte is verified. Content can be read from any place, more than once."""

    def __init__(self, source: Source, inspected: Inspected, chunks: Chunks) -> None:
        self._source, self._inspected, self._chunks = source, inspected, chunks
        self.context = inspected.context
        self.digest = inspected.digest
        self.total_length = inspected.total_length

    def read(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the content from there to its end, in pieces of at most 1 MiB.

        Raises EnvelopeRejected if the source no longer holds what was verified.
        """
        if not 0 <= offset <= self.total_length:
            raise ValueError(f"offset {offset} lies outside of {self.total_length} bytes of content")
        first, skipped = divmod(offset, CHUNK_BYTES)
        for index in range(first, self._inspected.chunk_count):
            piece = self._read_chunk(index)[skipped:]
            skipped = 0
            if piece:
                yield piece

    def content(self) -> bytes:
        """Return all of the content; for what is known to be small."""
        return b"".join(self.read())

    def _read_chunk(self, index: int) -> bytes:
        chunk = read_exactly(self._source, *self._inspected.chunk_span(index))
        return self._chunks.open(index, chunk, last=index == self._inspected.chunk_count - 1)
