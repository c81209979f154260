"""Targets: envelopes as they come, and as a member makes them who signs whatever he likes."""

import base64
import json

from folkmoot.trust import BytesSource, Expected, digest, load_organization_key, open_envelope, serialize, sign
from folkmoot.trust.envelope_format import MAGIC
from folkmoot.v1.envelope_pb2 import EnvelopeHeader, EnvelopeKind, EnvelopeSeal
from folkmoot.v1.signed_pb2 import SignedKind
from tests.fuzz.target import target
from tests.unit.trust.alterations import Parts
from tests.unit.trust.scene import signing_key
from tests.vectors import second_reader_envelope
from tests.vectors.keys_signed_envelope import FOLDER
from tests.vectors.second_reader_keys import read_organization_key

DOCUMENT = json.loads(FOLDER.joinpath("envelope.json").read_text())
SENDER = signing_key("node of Alpha")
GENESIS = bytes.fromhex(DOCUMENT["cases"][0]["genesis"])
PLACE = dict(DOCUMENT["places"]["result"])
PLACE["task_digest"] = bytes.fromhex(PLACE["task_digest"])
EXPECTED = Expected(**{**PLACE, "kind": EnvelopeKind.ENVELOPE_KIND_RESULT})
BETA = load_organization_key(DOCUMENT["keys"]["Beta"].encode()).encryption
SECOND_BETA = read_organization_key(DOCUMENT["keys"]["Beta"])[0]
SEALED, PLAIN = (base64.b64decode(DOCUMENT["envelopes"][name]) for name in ("two receivers", "plain"))
PARTS = Parts.of(SEALED)


def open_sealed(envelope: bytes, *, encrypted: bool = True) -> object:
    keys = {BETA.key_id: BETA} if encrypted else None
    opened = open_envelope(
        BytesSource(envelope), genesis=GENESIS, expected=EXPECTED, sender=lambda _: SENDER.public, keys=keys
    )
    return opened.content()


def second_open(envelope: bytes, *, encrypted: bool = True) -> object:
    return second_reader_envelope.open_envelope(
        envelope,
        genesis=GENESIS,
        place=PLACE,
        sender_public=SENDER.public.public,
        keys=[SECOND_BETA] if encrypted else None,
        now_nanoseconds=None,
    )


def with_header(header: bytes) -> bytes:
    """Return the envelope with another header, signed properly."""
    seal = serialize(_seal(header))
    return _joined(header, seal)


def with_context(context: bytes) -> bytes:
    """Return the envelope with another context, signed properly."""
    header = EnvelopeHeader()
    header.CopyFrom(PARTS.header)
    header.context = context
    return with_header(serialize(header))


def with_seal(seal: bytes) -> bytes:
    """Return the envelope with another seal, signed properly; nobody can sign nothing."""
    return _joined(serialize(PARTS.header), seal or b"\0")


def _seal(header: bytes) -> EnvelopeSeal:
    seal = EnvelopeSeal()
    seal.CopyFrom(PARTS.seal)
    seal.header_digest = digest(header)
    return seal


def _joined(header: bytes, seal: bytes) -> bytes:
    trailer = serialize(sign(SignedKind.SIGNED_KIND_ENVELOPE, seal, key=SENDER, genesis=GENESIS))
    lengths = [len(part).to_bytes(4, "big") for part in (header, trailer)]
    return b"".join([MAGIC, lengths[0], header, *PARTS.chunks, trailer, lengths[1]])


@target("envelope", SEALED, second=second_open)
def _envelope(data: bytes) -> object:
    return open_sealed(data)


@target("plain envelope", PLAIN, second=lambda data: second_open(data, encrypted=False))
def _plain_envelope(data: bytes) -> object:
    return open_sealed(data, encrypted=False)


@target("header", serialize(PARTS.header), second=lambda data: second_open(with_header(data)))
def _header(data: bytes) -> object:
    return open_sealed(with_header(data))


@target("context", serialize(PARTS.context), second=lambda data: second_open(with_context(data)))
def _context(data: bytes) -> object:
    return open_sealed(with_context(data))


@target("seal", serialize(PARTS.seal), second=lambda data: second_open(with_seal(data)))
def _seal_of_envelope(data: bytes) -> object:
    return open_sealed(with_seal(data))
