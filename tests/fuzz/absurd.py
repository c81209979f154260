"""Inputs without measure: one thing repeated, nested or claimed until they are as long as asked for.

`absurd(seed, size_bytes)` names each and gives the same ones for every size, so that what a reader needs for one size can be
compared with what it needs for another.
"""

from collections.abc import Iterator

from tests.fuzz.mutation import BYTES, Field, join, nested, number, split

LONGEST_CLAIM = 2**63 - 1


def absurd(seed: bytes, size_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and inputs of about this size, made of an input that is right."""
    for name, piece in (("zeros", b"\0"), ("dashes", b"-"), ("digits", b"1"), ("letters", b"a"), ("spaces", b" ")):
        yield name, piece * size_bytes
        yield f"right and {name}", seed + piece * size_bytes
    yield "right, over and over", seed * (size_bytes // len(seed) + 1)
    for line in set(seed.splitlines()[:1]):
        yield "first line, over and over", (line + b"\n") * (size_bytes // (len(line) + 1) + 1)
    yield "messages in messages", nested(size_bytes // 5)
    yield "empty fields", b"\x0a\x00" * (size_bytes // 2)
    yield "unknown fields", seed + b"\xf8\x7f\x01" * (size_bytes // 3)
    for name, fields in _grown(split(seed), size_bytes, ""):
        yield name, join(fields)


def _grown(fields: tuple[Field, ...], size_bytes: int, path: str) -> Iterator[tuple[str, tuple[Field, ...]]]:
    """Yield the message with one field grown, at whatever depth; of fields that repeat, the first."""
    seen: set[int] = set()
    for index, field in enumerate(fields):
        if field.number in seen:
            continue
        seen.add(field.number)
        name, before, after = f"{path}{field.number}", fields[:index], fields[index + 1 :]
        times = size_bytes // (len(field.value) + 2) + 1
        yield f"{name} repeated", (*before, *[field] * times, *after)
        if field.wire_type != BYTES:
            continue
        numbered = [field._replace(value=field.value[:-4] + each.to_bytes(4, "big")) for each in range(times)]
        yield f"{name} repeated, each another", (*before, *numbered, *after)
        yield f"{name} long", (*before, field._replace(value=field.value + b"a" * size_bytes), *after)
        yield f"{name} short and many", (*before, *[field._replace(value=b"")] * (size_bytes // 2), *after)
        for inner_name, inner in _grown(field.inner, size_bytes, f"{name}."):
            yield inner_name, (*before, field._replace(value=join(inner)), *after)


def claims(seed: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield names and inputs that say they are far longer than they are."""
    yield "length of all", number(1 << 3 | BYTES) + number(LONGEST_CLAIM) + seed
    for at in range(0, min(len(seed), 64), 4):
        yield f"lengths at {at}", seed[:at] + b"\xff" * 4 + seed[at + 4 :]
    fields = split(seed)
    for index, field in enumerate(fields):
        if field.wire_type == BYTES:
            cut = number(field.number << 3 | BYTES) + number(2**31 - 1) + field.value
            yield f"length of {field.number}", join(fields[:index]) + cut + join(fields[index + 1 :])
