"""Proof files as bytes: where each part lies, found without believing or keeping any of it.

    "FOLKPRF1" | Proof in canonical form (proof.proto)

Everything in a Proof below its version is a field with a length, so a file is walked part by part: memory is that of one part,
time that of the file, whatever the lengths in it say. What can't be walked is named by the byte at which it goes wrong.
"""

from dataclasses import dataclass
from typing import NamedTuple

from folkmoot.trust.encoding import FORMAT_VERSION, M, parse
from folkmoot.trust.errors import Malformed, ProofInvalid
from folkmoot.trust.signed import MAX_BODY_BYTES
from folkmoot.trust.task import MAX_CHAIN
from folkmoot.v1.signed_pb2 import Signed

MAGIC = b"FOLKPRF1"
MAX_PROOF_BYTES = 256 * 1024 * 1024
MAX_PARTS = 200_000
"""Signed things in one file: what bounds the time that a hostile one can take."""

_VERSION_FIELD = bytes((0x08, FORMAT_VERSION))
_COLLABORATION, _ENTRY, _TASK = 2, 3, 4
_CHAIN, _RECEIPT, _APPROVAL = 1, 2, 3
_SPEC = 1
_WITH_LENGTH = 2  # the wire type
_LENGTH_BYTES = 4  # of a varint: enough for MAX_PROOF_BYTES
_MAX_SIGNED_BYTES = MAX_BODY_BYTES + 1024
_MAX_TEXT_BYTES = 1024


class Span(NamedTuple):
    """Where a part lies in a file."""

    begin: int
    end: int

    def of(self, data: bytes) -> bytes:
        """Return the part's bytes."""
        return data[self.begin : self.end]


@dataclass(frozen=True)
class TaskParts:
    """Where the parts of a task lie."""

    specs: tuple[Span, ...]
    receipts: tuple[Span, ...]
    approvals: tuple[Span, ...]

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.specs) + len(self.receipts) + len(self.approvals)


@dataclass(frozen=True)
class ProofParts:
    """Where the parts of a proof lie. Nothing is read yet but the collaboration that it says it is of."""

    collaboration: str
    entries: tuple[Span, ...]
    tasks: tuple[Span, ...]


def proof_invalid(part: str, why: str) -> ProofInvalid:
    """Return the error that names a part."""
    return ProofInvalid(f"The proof is not valid: {part}: {why.rstrip('.')}.", metadata={"part": part})


def bad_structure(offset: int, why: str) -> ProofInvalid:
    """Return the error that names a byte."""
    return proof_invalid(f"structure at byte {offset}", why)


def find_parts(data: bytes) -> ProofParts:
    """Return where the parts of a proof lie; raise ProofInvalid where it is not made as proofs are."""
    if len(data) > MAX_PROOF_BYTES:
        raise bad_structure(MAX_PROOF_BYTES, f"a proof has at most {MAX_PROOF_BYTES:,} bytes, this one {len(data):,}")
    if not data.startswith(MAGIC):
        raise bad_structure(0, "a proof file begins with FOLKPRF1")
    begin = len(MAGIC) + len(_VERSION_FIELD)
    if data[len(MAGIC) : begin] != _VERSION_FIELD:
        raise bad_structure(len(MAGIC), f"this release reads proofs of format {FORMAT_VERSION}")
    found = _fields(data, Span(begin, len(data)), (_COLLABORATION, _ENTRY, _TASK))
    if not found[_ENTRY] or not found[_TASK]:
        raise bad_structure(len(data), "a proof has a ledger and at least one task")
    return ProofParts(_text(data, found[_COLLABORATION], begin), tuple(found[_ENTRY]), tuple(found[_TASK]))


def find_task_parts(data: bytes, span: Span) -> TaskParts:
    """Return where the parts of a task lie; raise ProofInvalid as `find_parts` does."""
    found = _fields(data, span, (_CHAIN, _RECEIPT, _APPROVAL))
    if len(found[_CHAIN]) != 1:
        raise bad_structure(span.begin, "a task has exactly one chain")
    specs = _fields(data, found[_CHAIN][0], (_SPEC,))[_SPEC]
    if not 1 <= len(specs) <= MAX_CHAIN:
        raise bad_structure(found[_CHAIN][0].begin, f"a chain has 1 to {MAX_CHAIN} specs")
    return TaskParts(tuple(specs), tuple(found[_RECEIPT]), tuple(found[_APPROVAL]))


def read_signed(data: bytes, span: Span, part: str) -> Signed:
    """Return something signed, not verified; raise ProofInvalid, naming the part, where its form is wrong."""
    if span.end - span.begin > _MAX_SIGNED_BYTES:
        raise bad_structure(span.begin, f"nothing signed has more than {_MAX_SIGNED_BYTES:,} bytes")
    return read_message(Signed, span.of(data), part)


def read_message(message_type: type[M], data: bytes, part: str) -> M:
    """Return a message; raise ProofInvalid, naming the part, where its form is wrong."""
    try:
        return parse(message_type, data)
    except Malformed as error:
        raise proof_invalid(f"{part}: form", error.message) from error


def _text(data: bytes, spans: list[Span], expected_at: int) -> str:
    """Return the collaboration's name, which is there exactly once."""
    if len(spans) != 1 or not 0 < spans[0].end - spans[0].begin <= _MAX_TEXT_BYTES:
        raise bad_structure(expected_at, "a proof names its collaboration")
    try:
        return spans[0].of(data).decode()
    except UnicodeDecodeError as error:
        raise bad_structure(spans[0].begin, "the collaboration's name is no text") from error


def _fields(data: bytes, within: Span, numbers: tuple[int, ...]) -> dict[int, list[Span]]:
    """Return the fields of a message that has no others than these, all with a length, in ascending order."""
    found: dict[int, list[Span]] = {number: [] for number in numbers}
    at, last, count = within.begin, 0, 0
    while at < within.end:
        number, wire_type = data[at] >> 3, data[at] & 7
        if wire_type != _WITH_LENGTH or number not in found or number < last:
            raise bad_structure(at, "no part of a proof begins like this here")
        length, begin = _length(data, at + 1, within.end)
        if begin + length > within.end:
            raise bad_structure(at, f"a part of {length:,} bytes ends outside of what it belongs to")
        count += 1
        if count > MAX_PARTS:
            raise bad_structure(at, f"a proof has at most {MAX_PARTS:,} parts")
        found[number].append(Span(begin, begin + length))
        at, last = begin + length, number
    return found


def _length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return a length (a varint as short as it can be) and where it ends."""
    value = 0
    for index in range(min(_LENGTH_BYTES, end - at)):
        byte = data[at + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index > 0:
                break
            return value, at + index + 1
    raise bad_structure(at, "no part has this length")
