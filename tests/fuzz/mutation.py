"""Bytes altered as somebody would who knows how they are built: protobuf fields, lengths, numbers, blocks of text.

`mutate` takes any bytes apart as protobuf, as deep as they go, and changes a place or two: fields twice, left out, in another
order, unknown, of another type; numbers and lengths that are too long or too large; texts and blobs bent. What is not
protobuf is altered byte by byte. The same `random` gives the same bytes.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32 = range(6)
NUMBERS = (0, 1, 2, 127, 128, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63 - 1, 2**63, 2**64 - 1)
BLOBS = (
    b"",
    b"\0",
    b"\xff",
    bytes(16),
    bytes(31),
    bytes(32),
    bytes(33),
    b"\xff" * 32,
    "\u00e9".encode() * 64,
    b"a" * 300,
)
MOST_BYTES = 256 * 1024
DEEPEST = 8


class Field(NamedTuple):
    """One field: what stands before its value, and the value; `inner`, if that is a message itself."""

    number: int
    wire_type: int
    value: bytes
    inner: "tuple[Field, ...]" = ()


def mutate(data: bytes, random: Random) -> bytes:
    """Return the bytes with one to three changes."""
    for _ in range(random.choice((1, 1, 2, 3))):
        fields = split(data)
        data = join(_changed(fields, random)) if fields and random.random() < 0.8 else _bent(data, random)
    return data[:MOST_BYTES]


def split(data: bytes, depth: int = 0) -> tuple[Field, ...]:
    """Return the fields of a message; none, if the bytes are not one."""
    fields: list[Field] = []
    at = 0
    while at < len(data):
        try:
            tag, start = _read_number(data, at)
            at, value = _value(data, start, tag & 7)
        except (IndexError, ValueError):
            return ()
        if not 0 < tag >> 3 < 2**29:
            return ()
        inner = split(value, depth + 1) if tag & 7 == BYTES and depth < DEEPEST else ()
        fields.append(Field(tag >> 3, tag & 7, value, inner))
    return tuple(fields)


def join(fields: Sequence[Field]) -> bytes:
    """Return the fields as bytes."""
    return b"".join(
        number(each.number << 3 | each.wire_type)
        + (number(len(each.value)) if each.wire_type == BYTES else b"")
        + each.value
        for each in fields
    )


def number(value: int, padding: int = 0) -> bytes:
    """Return a varint, longer than it must be by some bytes."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    if padding:
        result[-1] |= 0x80
        result += b"\x80" * (padding - 1) + b"\0"
    return bytes(result)


def nested(depth: int, field_number: int = 1) -> bytes:
    """Return a message in a message in a message."""
    result = b""
    for _ in range(depth):
        result = number(field_number << 3 | BYTES) + number(len(result)) + result
    return result


# ---- changes of fields ---------------------------------------------------------------------------------------------


def _changed(fields: tuple[Field, ...], random: Random) -> tuple[Field, ...]:
    """Change one field, or what is inside of it."""
    index = random.randrange(len(fields))
    field = fields[index]
    if field.inner and random.random() < 0.7:
        inner = _changed(field.inner, random)
        return (*fields[:index], field._replace(value=join(inner), inner=inner), *fields[index + 1 :])
    return random.choice(_CHANGES)(fields, index, random)


def _twice(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    return (*fields[:index], *[fields[index]] * random.choice((2, 2, 2, 500)), *fields[index + 1 :])


def _left_out(fields: tuple[Field, ...], index: int, _random: Random) -> tuple[Field, ...]:
    return fields[:index] + fields[index + 1 :]


def _moved(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    rest = fields[:index] + fields[index + 1 :]
    to = random.randrange(len(fields))
    return (*rest[:to], fields[index], *rest[to:])


def _renumbered(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    other = fields[index]._replace(number=random.choice((1, 2, 3, 15, 16, 2047, 2**29 - 1)))
    return (*fields[:index], other, *fields[index + 1 :])


def _retyped(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    other = fields[index]._replace(wire_type=random.choice((VARINT, FIXED64, BYTES, GROUP, GROUP_END, FIXED32, 6, 7)))
    return (*fields[:index], other, *fields[index + 1 :])


def _revalued(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    field = fields[index]
    match field.wire_type:
        case 0:  # VARINT
            value = number(random.choice((*NUMBERS, random.getrandbits(8))), random.choice((0, 0, 1, 8)))
        case 2:  # BYTES
            value = random.choice((*BLOBS, random.choice(fields).value, nested(200), field.value * 2))
            value = random.choice((value, _bent(field.value, random)))
        case _:
            value = random.randbytes(len(field.value))
    return (*fields[:index], field._replace(value=value, inner=()), *fields[index + 1 :])


def _grown(fields: tuple[Field, ...], index: int, random: Random) -> tuple[Field, ...]:
    unknown = Field(random.choice((100, 2047, fields[index].number + 1)), VARINT, number(random.choice(NUMBERS)))
    return (*fields[:index], unknown, *fields[index:])


_CHANGES: tuple[Callable[[tuple[Field, ...], int, Random], tuple[Field, ...]], ...] = (
    _twice,
    _left_out,
    _moved,
    _renumbered,
    _retyped,
    _revalued,
    _revalued,
    _revalued,
    _grown,
)


# ---- changes of bytes ----------------------------------------------------------------------------------------------


def _bent(data: bytes, random: Random) -> bytes:
    if not data:
        return random.choice(BLOBS)
    at = random.randrange(len(data))
    match random.randrange(6):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + 1 + random.randrange(8) :]
        case 3:
            return data[:at] + random.randbytes(random.choice((1, 1, 4))) + data[at:]
        case 4:
            return data[:at] + data[at // 2 : at] + data[at:]
        case _:
            return data[:at] + random.choice(BLOBS) + data[at + 1 :]


# ---- reading -------------------------------------------------------------------------------------------------------


def _read_number(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("too long")


def _value(data: bytes, at: int, wire_type: int) -> tuple[int, bytes]:
    """Return where a value ends, and its bytes."""
    match wire_type:
        case 0:
            end = _read_number(data, at)[1]
        case 1 | 5:
            end = at + (8 if wire_type == FIXED64 else 4)
        case 2:
            length, at = _read_number(data, at)
            end = at + length
        case _:
            raise ValueError("groups are not read")
    if end > len(data):
        raise ValueError("cut off")
    return end, data[at:end]
