"""Ways to alter an envelope: by somebody on its way, or by somebody who holds the sender's key and makes it fit again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from folkmoot.trust import BytesSource, SigningKey, digest, inspect, serialize, sign
from folkmoot.trust.envelope_format import MAGIC
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeHeader, EnvelopeSeal
from folkmoot.v1.signed_pb2 import Signed, SignedKind

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Parts:
    """An envelope taken apart, to be put together otherwise."""

    header: EnvelopeHeader
    context: EnvelopeContext
    chunks: tuple[bytes, ...]
    seal: EnvelopeSeal
    trailer: Signed

    @classmethod
    def of(cls, envelope: bytes) -> Self:
        inspected = inspect(BytesSource(envelope))
        spans = [inspected.chunk_span(index) for index in range(inspected.chunk_count)]
        return cls(
            inspected.header,
            inspected.context,
            tuple(envelope[offset : offset + length] for offset, length in spans),
            inspected.seal,
            inspected.trailer,
        )

    def join(self) -> bytes:
        """Put the parts together as they are."""
        header, trailer = serialize(self.header), serialize(self.trailer)
        lengths = [len(part).to_bytes(4, "big") for part in (header, trailer)]
        return b"".join([MAGIC, lengths[0], header, *self.chunks, trailer, lengths[1]])

    def with_header(self, **changes: Any) -> Self:
        return replace(self, header=altered(self.header, **changes))

    def with_context(self, context: EnvelopeContext) -> Self:
        """Put another context into the header, and nothing else."""
        return replace(self, context=context, header=altered(self.header, context=serialize(context)))

    def resigned(self, key: SigningKey, **seal_changes: Any) -> Self:
        """Sign anew what the parts are now, as somebody with a key can."""
        seal = EnvelopeSeal(
            header_digest=digest(serialize(self.header)),
            body_digest=digest(b"".join(map(digest, self.chunks))),
            total_length=self.seal.total_length,
        )
        seal = altered(seal, **seal_changes)
        kind = SignedKind.SIGNED_KIND_ENVELOPE
        return replace(self, seal=seal, trailer=sign(kind, serialize(seal), key=key, genesis=self.context.genesis))


def altered(message: M, **changes: Any) -> M:
    """Return a copy with some fields changed."""
    copy = type(message)()
    copy.CopyFrom(message)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def every_field_altered(message: M) -> Iterator[tuple[str, M]]:
    """Yield a copy for each field, at whatever depth, in which only that field has another value."""
    for field in message.DESCRIPTOR.fields:
        copy = altered(message)
        if field.is_repeated:
            items = getattr(message, field.name)
            for index, item in enumerate(items):
                for name, other in every_field_altered(item):
                    copy = altered(message)
                    getattr(copy, field.name)[index].CopyFrom(other)
                    yield f"{field.name}[{index}].{name}", copy
            if items:
                copy = altered(message)
                del getattr(copy, field.name)[-1]
                yield f"{field.name} without the last", copy
        elif field.message_type:
            getattr(copy, field.name).seconds += 1
            yield field.name, copy
        else:
            setattr(copy, field.name, _other_value(getattr(message, field.name)))
            yield field.name, copy


def _other_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else bytes(32)
    if isinstance(value, str):
        return value[:-1] + ("a" if value[-1] != "a" else "b") if value else "a"
    return value + 1
