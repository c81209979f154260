"""What others do to an envelope on its way, and what somebody does who may read it, or even holds its sender's key."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import BytesSource, EnvelopeRejected, digest, inspect, open_envelope, serialize, sign
from folkmoot.trust.envelope_format import CHUNK_BYTES, MAX_HEADER_BYTES, MAX_TRAILER_BYTES, SealedChunks
from folkmoot.trust.keys import wrap
from folkmoot.v1.envelope_pb2 import EnvelopeWrap
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.signed_pb2 import SignedKind
from tests.unit.trust.alterations import Parts, altered, every_field_altered
from tests.unit.trust.scene import GENESIS, Scene, expected_of, result_context, rsa_key, seeded, signing_key, x_wing_key

CONTENT = bytes(CHUNK_BYTES) + b"\x01" * CHUNK_BYTES + b"the end"


@pytest.fixture(params=["sealed", "plain"])
def scene(request):
    return Scene(plain=request.param == "plain")


def rejected(scene: Scene, envelope: bytes, **expected) -> str:
    """Open and return the local cause of the rejection."""
    with pytest.raises(EnvelopeRejected) as refused:
        scene.open(envelope, **expected).content()
    return refused.value.cause_text


# ---- on the way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_altered_byte_is_noticed(scene, mask):
    envelope = scene.seal(b"content").envelope
    for place in range(len(envelope)):
        rejected(scene, envelope[:place] + bytes([envelope[place] ^ mask]) + envelope[place + 1 :])


def test_every_truncation_is_noticed(scene):
    envelope = scene.seal(b"content").envelope
    for length in range(len(envelope)):
        rejected(scene, envelope[:length])
        rejected(scene, envelope[len(envelope) - length :])


def test_every_missing_or_doubled_byte_is_noticed(scene):
    envelope = scene.seal(b"content").envelope
    for place in range(0, len(envelope), 7):
        rejected(scene, envelope[:place] + envelope[place + 1 :])
        rejected(scene, envelope[:place] + envelope[place : place + 1] + envelope[place:])


@pytest.mark.parametrize("extra", [b"\x00", b"x" * 100, bytes(CHUNK_BYTES)])
def test_bytes_before_or_behind_are_noticed(scene, extra):
    envelope = scene.seal(b"content").envelope
    rejected(scene, extra + envelope)
    rejected(scene, envelope + extra)


@pytest.mark.parametrize(
    "order",
    [(0, 1), (0, 2), (2,), (0,), (), (1, 0, 2), (0, 2, 1), (2, 1, 0), (0, 1, 1, 2), (0, 1, 2, 2), (0, 0, 1, 2)],
    ids=str,
)
@pytest.mark.parametrize("resigned", [False, True], ids=["on the way", "by the sender's key"])
def test_chunks_that_are_missing_doubled_or_reordered_are_noticed(order, resigned):
    scene = Scene()
    parts = Parts.of(scene.seal(CONTENT).envelope)
    changed = replace(parts, chunks=tuple(parts.chunks[index] for index in order))
    if resigned:
        total_length = max(0, sum(len(chunk) - 16 for chunk in changed.chunks))
        changed = changed.resigned(scene.sender, total_length=total_length)
    rejected(scene, changed.join())


def test_reordered_chunks_of_a_plain_envelope_are_noticed():
    scene = Scene(plain=True)
    one, two, three = (parts := Parts.of(scene.seal(CONTENT).envelope)).chunks
    rejected(scene, replace(parts, chunks=(two, one, three)).join())


@pytest.mark.parametrize("total_length", [0, 6, 8, CHUNK_BYTES, 2**64 - 1])
def test_signed_length_that_is_not_the_body_s_is_noticed(scene, total_length):
    parts = Parts.of(scene.seal(b"content").envelope)
    rejected(scene, parts.resigned(scene.sender, total_length=total_length).join())


def test_empty_last_chunk_after_full_ones_is_noticed():
    scene = Scene()
    parts = Parts.of(scene.seal(bytes(CHUNK_BYTES)).envelope)
    empty = Parts.of(scene.seal(b"").envelope).chunks[0]
    rejected(scene, replace(parts, chunks=(*parts.chunks, empty)).resigned(scene.sender).join())


@pytest.mark.parametrize("part", ["header", "context", "seal", "trailer"])
def test_every_altered_field_is_noticed(scene, part):
    parts = Parts.of(scene.seal().envelope)
    fields = 0
    for name, changed in every_field_altered(getattr(parts, part)):
        fields += 1
        match part:
            case "header":
                envelope = replace(parts, header=changed)
            case "context":
                envelope = parts.with_context(changed)
            case "seal":
                envelope = replace(parts, trailer=altered(parts.trailer, body=serialize(changed)))
            case _:
                envelope = replace(parts, trailer=changed)
        assert rejected(scene, envelope.join()), name
    assert fields >= len(getattr(parts, part).DESCRIPTOR.fields) - 2, "fields were left out"


def test_every_field_of_the_context_is_bound_into_the_keys():
    scene = Scene()
    parts = Parts.of(scene.seal().envelope)
    for name, context in every_field_altered(parts.context):
        moved = parts.with_context(context).resigned(scene.sender).join()
        elsewhere = replace(scene, context=context)
        assert rejected(elsewhere, moved, genesis=context.genesis), name


def test_sender_key_in_the_context_is_the_one_that_signed():
    scene = Scene(plain=True)
    claimed = parts_with_sender(Parts.of(scene.seal().envelope), signing_key("somebody else").key_id)
    assert "sender's key" in rejected(scene, claimed.resigned(scene.sender).join())


def test_header_spliced_from_another_envelope_is_noticed(scene):
    one = Parts.of(scene.seal(b"one").envelope)
    other = Parts.of(replace(scene, context=result_context(ledger_sequence=8)).seal(b"two").envelope)
    spliced = replace(one, header=other.header, context=other.context)
    rejected(scene, spliced.join())
    rejected(scene, replace(one, trailer=other.trailer).join())
    rejected(scene, replace(one, chunks=other.chunks).join())
    if not scene.plain:
        rejected(scene, spliced.resigned(scene.sender).join())


def test_every_other_signed_kind_is_no_trailer(scene):
    parts = Parts.of(scene.seal().envelope)
    for kind in SignedKind.values():
        if kind in (SignedKind.SIGNED_KIND_UNSPECIFIED, SignedKind.SIGNED_KIND_ENVELOPE):
            continue
        trailer = sign(kind, serialize(parts.seal), key=scene.sender, genesis=GENESIS)
        rejected(scene, replace(parts, trailer=trailer).join())
        rejected(scene, replace(parts, trailer=altered(trailer, kind=SignedKind.SIGNED_KIND_ENVELOPE)).join())


def test_trailer_signed_for_another_collaboration_is_noticed(scene):
    parts = Parts.of(scene.seal().envelope)
    for genesis in (b"", bytes(32)):
        trailer = sign(SignedKind.SIGNED_KIND_ENVELOPE, serialize(parts.seal), key=scene.sender, genesis=genesis)
        rejected(scene, replace(parts, trailer=trailer).join())


@pytest.mark.parametrize("where", ["header", "context", "trailer", "seal"])
def test_unknown_field_is_refused_even_if_it_is_signed(scene, where):
    unknown = b"\xfa\x07\x01x"
    parts = Parts.of(scene.seal().envelope)
    header, seal = serialize(parts.header), serialize(parts.seal)
    if where == "context":
        header = serialize(altered(parts.header, context=parts.header.context + unknown))
    elif where == "header":
        header += unknown
    seal = serialize(altered(parts.seal, header_digest=digest(header))) + (unknown if where == "seal" else b"")
    trailer = serialize(sign(SignedKind.SIGNED_KIND_ENVELOPE, seal, key=scene.sender, genesis=GENESIS))
    trailer += unknown if where == "trailer" else b""
    lengths = [len(part).to_bytes(4, "big") for part in (header, trailer)]
    cause = rejected(scene, b"".join([b"FOLKENV1", lengths[0], header, *parts.chunks, trailer, lengths[1]]))
    assert "canonical" in cause


# ---- by another receiver, who knows the content key ----------------------------------------------------------------


def content_key_of(parts: Parts) -> tuple[bytes, bytes]:
    binding = digest(parts.header.context)
    return x_wing_key("Beta").unwrap(parts.header.wraps[0].wrapped_key, binding), binding


def forged_body(parts: Parts, content: bytes) -> Parts:
    """Encrypt other content under the same header, as every receiver can."""
    chunk = SealedChunks(*content_key_of(parts)).close(0, memoryview(content), last=True)
    return replace(parts, chunks=(chunk,), seal=altered(parts.seal, total_length=len(content)))


def test_other_content_from_another_receiver_is_rejected():
    scene, forger = Scene(), signing_key("node of Beta")
    forged = forged_body(Parts.of(scene.seal(b"true").envelope), b"fake")
    rejected(scene, forged.join())
    rejected(scene, forged.resigned(forger).join())
    passed_off = forged.resigned(forger)
    trailer = altered(passed_off.trailer, key_id=scene.sender.key_id)
    rejected(scene, replace(passed_off, trailer=trailer).join())
    claimed = parts_with_sender(forged, forger.key_id)
    rejected(scene, claimed.resigned(forger).join())


def parts_with_sender(parts: Parts, key_id: bytes) -> Parts:
    return parts.with_context(altered(parts.context, sender_key_id=key_id))


def test_result_resealed_by_another_receiver_under_its_own_name_is_not_the_sender_s():
    scene = Scene()
    resealed = replace(scene, sender=signing_key("node of Beta")).seal(b"fake").envelope
    rejected(scene, resealed)


def test_receivers_can_not_be_given_different_content():
    """The commitment: a content key that wasn't committed to opens nothing, even if its wrap is in order."""
    scene = Scene()
    parts = Parts.of(scene.seal().envelope)
    other_key = seeded("another content key")(32)
    wraps = list(parts.header.wraps)
    wraps[0].wrapped_key = wrap(x_wing_key("Beta").public, other_key, digest(parts.header.context))
    changed = parts.with_header()
    changed.header.wraps[0].CopyFrom(wraps[0])
    chunk = SealedChunks(other_key, digest(parts.header.context)).close(0, memoryview(b"only you"), last=True)
    changed = replace(changed, chunks=(chunk,), seal=altered(parts.seal, total_length=8))
    assert "commits" in rejected(scene, changed.resigned(scene.sender).join())


def test_content_key_of_another_length_is_rejected():
    scene = Scene()
    changed = Parts.of(scene.seal().envelope).with_header()
    binding, short = digest(changed.header.context), bytes(31)
    chunks = SealedChunks(short, binding)
    changed.header.wraps[1].wrapped_key = wrap(rsa_key().public, short, binding)
    changed.header.commitment = chunks.commitment
    changed = replace(changed, chunks=(chunks.close(0, memoryview(b"content"), last=True),))
    with pytest.raises(EnvelopeRejected):
        scene.open(changed.resigned(scene.sender).join(), keys=[rsa_key()])


# ---- forms that the sender's key could sign ------------------------------------------------------------------------


def test_wraps_must_be_the_receivers_one_by_one():
    scene = Scene()
    parts = Parts.of(scene.seal().envelope)
    beta, gamma = parts.header.wraps
    for wraps in ([beta], [gamma, beta], [beta, beta], [beta, gamma, gamma], []):
        changed = parts.with_header()
        del changed.header.wraps[:]
        changed.header.wraps.extend(wraps)
        rejected(scene, changed.resigned(scene.sender).join())


def test_doubled_receiver_is_refused():
    scene = Scene()
    parts = Parts.of(scene.seal().envelope)
    context = altered(parts.context)
    context.receivers.append(context.receivers[0])
    changed = parts.with_context(context)
    changed.header.wraps.append(changed.header.wraps[0])
    assert "twice" in rejected(scene, changed.resigned(scene.sender).join())


def test_wrap_of_a_later_kind_is_skipped():
    scene = Scene()
    parts = Parts.of(scene.seal().envelope)
    changed = parts.with_header()
    changed.header.wraps[1].CopyFrom(
        EnvelopeWrap(key_id=parts.header.wraps[1].key_id, kind=KeyKind.ValueType(99), wrapped_key=b"of the future")
    )
    assert scene.open(changed.resigned(scene.sender).join()).content() == b"content"


@pytest.mark.parametrize("kind", [KeyKind.ValueType(99), KeyKind.KEY_KIND_RSA, KeyKind.KEY_KIND_UNSPECIFIED])
def test_own_wrap_of_another_kind_than_the_key_opens_nothing(kind):
    scene = Scene()
    changed = Parts.of(scene.seal().envelope).with_header()
    changed.header.wraps[0].kind = kind
    rejected(scene, changed.resigned(scene.sender).join())


@pytest.mark.parametrize(
    "changes",
    [{"chunk_size": size} for size in (0, 1, CHUNK_BYTES - 1, CHUNK_BYTES + 1, 2**32 - 1)]
    + [{"version": version} for version in (0, 2)]
    + [{"commitment": commitment} for commitment in (b"", bytes(31), bytes(33))],
    ids=str,
)
def test_header_of_another_shape_is_refused(scene, changes):
    if scene.plain and changes == {"commitment": b""}:
        changes = {"commitment": bytes(32)}
    parts = Parts.of(scene.seal().envelope).with_header(**changes)
    rejected(scene, parts.resigned(scene.sender).join())


@pytest.mark.parametrize("length", [0, MAX_HEADER_BYTES + 1, 2**32 - 1])
def test_header_of_an_unreasonable_length_is_not_even_read(length):
    class Counting(BytesSource):
        read_bytes = 0

        def read_at(self, offset, length):
            self.read_bytes += length
            return super().read_at(offset, length)

    envelope = Scene().seal().envelope
    source = Counting(envelope[:8] + length.to_bytes(4, "big") + envelope[12:])
    with pytest.raises(EnvelopeRejected):
        inspect(source)
    assert source.read_bytes < 100


@pytest.mark.parametrize("length", [0, MAX_TRAILER_BYTES + 1, 2**32 - 1])
def test_trailer_of_an_unreasonable_length_is_refused(length):
    envelope = Scene().seal().envelope
    rejected(Scene(), envelope[:-4] + length.to_bytes(4, "big"))


# ---- after it was verified -----------------------------------------------------------------------------------------


class Changing(BytesSource):
    """A file that somebody changes between the two passes."""

    def change(self, data: bytes) -> None:
        self._data = data


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 1), (0, 0, 2)], ids=str)
def test_source_that_changes_between_the_passes_is_noticed(scene, order):
    parts = Parts.of(envelope := scene.seal(CONTENT).envelope)
    source = Changing(envelope)
    opened = open_envelope(
        source,
        genesis=GENESIS,
        expected=expected_of(scene.context),
        sender=lambda _: scene.sender.public,
        keys=None if scene.plain else {x_wing_key("Beta").key_id: x_wing_key("Beta")},
    )
    source.change(replace(parts, chunks=tuple(parts.chunks[index] for index in order)).join())
    with pytest.raises(EnvelopeRejected):
        opened.content()
    source.change(b"")
    with pytest.raises(EnvelopeRejected):
        opened.content()
    source.change(envelope)
    assert opened.content() == CONTENT


# ---- anything ------------------------------------------------------------------------------------------------------

SMALL = {plain: Scene(plain=plain).seal(b"content").envelope for plain in (False, True)}


@given(st.binary(max_size=300), st.booleans())
def test_anything_at_all_is_rejected(data, plain):
    rejected(Scene(plain=plain), data)
    rejected(Scene(plain=plain), b"FOLKENV1" + data)


@given(
    plain=st.booleans(),
    start=st.integers(min_value=0, max_value=4000),
    length=st.integers(min_value=0, max_value=60),
    inserted=st.binary(max_size=60),
)
def test_anything_in_the_place_of_a_part_is_rejected(plain, start, length, inserted):
    envelope = SMALL[plain]
    start %= len(envelope)
    changed = envelope[:start] + inserted + envelope[start + length :]
    if changed != envelope:
        rejected(Scene(plain=plain), changed)
