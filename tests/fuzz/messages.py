"""Messages of any type, filled at random from the contract's descriptors: right ids, wrong ones, and what no field expects."""

import base64
import json
from dataclasses import dataclass
from random import Random
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from folkmoot.v1 import options_pb2 as options
from tests.fuzz.mutation import BLOBS, NUMBERS, mutate

DEEPEST = 6
TEXTS = (
    *(
        "",
        "a",
        "Alpha",
        "\0",
        "a\0b",
        "\u00e9" * 40,
        "\U0001f600",
        "a" * 64,
        "a" * 5000,
        "%",
        "_",
        "'; DROP TABLE users; --",
    ),
    *(
        "../../etc/passwd",
        "https://example.org",
        "-1",
        "1e999",
        "null",
        "{}",
        "[]",
        "2026-13-45T99:99:99Z",
        "\n",
        " ",
        "Root",
    ),
)


def _token(content: Any) -> str:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


LISTS = ("users", "tasks", "events", "runs", "organizations", "nodes", "requests", "roles", "rules", "attempts")
PAGE_KEYS: tuple[Any, ...] = (-1, 0, 2**63 - 1, 2**63, "", "zz", "00" * 32, None, 1.5, [])
PAGE_TOKENS = (
    *(_token([name, key]) for name in LISTS for key in PAGE_KEYS),
    *(
        _token(raw)
        for raw in (b"[" * 700, b'{"":' * 150, b"\xff\xfe", b'["tasks",1e999]', b'["users","\\ud800"]', b"NaN")
    ),
    *("=", "====", "a", "\u00e9"),
)


@dataclass(frozen=True)
class Known:
    """Values that mean something to the server under test."""

    uuids: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    digests: tuple[bytes, ...] = ()
    messages: tuple[Message, ...] = ()


def filled(descriptor: Descriptor, known: Known, random: Random, depth: int = 0) -> Message:
    """Return a message of that type; what is known may stand in it whole."""
    whole = [each for each in known.messages if each.DESCRIPTOR is descriptor]
    if whole and random.random() < 0.5:
        return random.choice(whole)
    message, share = GetMessageClass(descriptor)(), random.choice((0.5, 0.9, 1, 1))
    for field in descriptor.fields:
        if depth < DEEPEST and random.random() < share:
            _fill(message, field, known, random, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, known: Known, random: Random, depth: int) -> None:
    if field.message_type:
        times = random.choice((0, 1, 1, 2, 5)) if field.is_repeated else 1
        for _ in range(times):
            value = filled(field.message_type, known, random, depth + 1)
            target = getattr(message, field.name)
            (target.add() if field.is_repeated else target).CopyFrom(value)
            if not field.is_repeated:
                target.SetInParent()
    elif field.is_repeated:
        getattr(message, field.name).extend(_value(field, known, random) for _ in range(random.choice((0, 1, 2, 3))))
    else:
        setattr(message, field.name, _value(field, known, random))


def _value(field: FieldDescriptor, known: Known, random: Random) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if field.enum_type:
        return random.choice((*field.enum_type.values_by_number, 99, -1))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.choice((*known.digests * 5, *BLOBS, random.randbytes(32)))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _text(field, known, random)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return random.choice((0.0, -1.0, 1e308, float("inf"), float("nan")))
    bits = 32 if field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    number = random.choice(NUMBERS) % (1 << bits)
    return number - (1 << bits) if signed and number >> (bits - 1) else number


def _text(field: FieldDescriptor, known: Known, random: Random) -> str:
    if field.name == "page_token" and random.random() < 0.7:
        return random.choice(PAGE_TOKENS)
    form = field.GetOptions().Extensions[options.rule].format
    right = {
        options.FORMAT_UUID: known.uuids,
        options.FORMAT_FINGERPRINT: known.fingerprints,
        options.FORMAT_NAME: known.names,
    }.get(form, (*known.uuids, *known.fingerprints, *known.names))
    if right and random.random() < 0.85:
        return random.choice(right)
    return random.choice(TEXTS)


def request_bytes(descriptor: Descriptor, known: Known, random: Random) -> bytes:
    """Return a request as it goes over the wire: most of them filled, some of them altered thereafter."""
    data = filled(descriptor, known, random).SerializeToString()
    return data if random.random() < 0.7 else mutate(data, random)
