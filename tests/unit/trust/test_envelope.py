"""Envelopes that are right open, for whom they are meant, and nowhere else."""

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    BytesSource,
    EnvelopeRejected,
    FileSource,
    Malformed,
    OrganizationNotFound,
    Receiver,
    inspect,
    open_envelope,
    seal,
    seal_bytes,
    timestamp,
)
from folkmoot.trust.envelope_format import CHUNK_BYTES, TAG_BYTES
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from tests.unit.trust.scene import (
    GENESIS,
    NOW,
    Scene,
    address,
    expected_of,
    identifier,
    input_context,
    result_context,
    rsa_key,
    seeded,
    signing_key,
    x_wing_key,
)

SIZES = [0, 1, 100, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 2 * CHUNK_BYTES + 5]


def content_of(size: int) -> bytes:
    return hashlib.shake_256(b"content").digest(size)


@pytest.fixture(params=["sealed", "plain"])
def scene(request):
    return Scene(plain=request.param == "plain")


# ---- what must work ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_content_of_any_size_comes_out_as_it_went_in(scene, size):
    content = content_of(size)
    sealed = scene.seal(content)
    opened = scene.open(sealed.envelope)
    assert opened.content() == content
    assert (opened.digest, opened.total_length) == (sealed.digest, size)


@pytest.mark.parametrize("key", ["x-wing", "rsa"])
def test_every_receiver_opens_with_its_own_kind_of_key(key):
    keys = [x_wing_key("Beta") if key == "x-wing" else rsa_key()]
    assert Scene().open(Scene().seal().envelope, keys=keys).content() == b"content"


def test_older_keys_beside_the_right_one_do_no_harm():
    keys = [x_wing_key("older"), x_wing_key("Beta"), x_wing_key("other")]
    assert Scene().open(Scene().seal().envelope, keys=keys).content() == b"content"


@pytest.mark.parametrize(
    "context",
    [
        input_context(),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_FAILURE),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_PROGRESS, sequence=1),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_LOG, sequence=2**64 - 1),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE, sequence=3, attempt=2),
    ],
)
def test_every_kind_of_envelope_opens_where_it_belongs(context):
    scene = Scene(context)
    assert scene.open(scene.seal().envelope).content() == b"content"


@given(pieces=st.lists(st.binary(max_size=50), max_size=8))
def test_pieces_that_content_comes_in_do_not_matter(pieces):
    scene = Scene()
    once = scene.seal(b"".join(pieces)).envelope
    arguments: dict[str, Any] = {"receivers": None, "key": scene.sender, "context": scene.context}
    streamed = b"".join(seal(pieces, **arguments, random=seeded("x")))
    assert streamed == seal_bytes(b"".join(pieces), **arguments, random=seeded("x")).envelope
    assert scene.open(once).content() == b"".join(pieces)


def test_large_pieces_are_cut_at_the_same_places():
    content = content_of(2 * CHUNK_BYTES + 5)
    arguments: dict[str, Any] = {"receivers": None, "key": Scene().sender, "context": Scene().context}
    pieces = [content[:5], content[5 : CHUNK_BYTES + 9], b"", content[CHUNK_BYTES + 9 :]]
    streamed = b"".join(seal(pieces, **arguments, random=seeded("x")))
    assert streamed == seal_bytes(content, **arguments, random=seeded("x")).envelope


def test_name_and_size_are_known_once_all_is_taken():
    scene = Scene()
    sealing = seal([b"content"], context=scene.context, receivers=None, key=scene.sender, random=seeded("x"))
    next(sealing)
    with pytest.raises(ValueError, match="last piece"):
        _ = sealing.digest
    first = sealing.size_bytes
    rest = b"".join(sealing)
    assert sealing.size_bytes == first + len(rest)
    assert len(sealing.digest) == 32


@pytest.mark.parametrize("offset", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_content_can_be_read_from_any_place(scene, offset):
    content = content_of(2 * CHUNK_BYTES)
    opened = scene.open(scene.seal(content).envelope)
    assert b"".join(opened.read(offset)) == content[offset:]
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in opened.read(offset))


@pytest.mark.parametrize("offset", [-1, 8])
def test_place_outside_of_the_content_is_refused(offset):
    opened = Scene().open(Scene().seal(b"content").envelope)
    with pytest.raises(ValueError, match="outside"):
        next(opened.read(offset))


def test_envelope_in_a_file_opens_alike(tmp_path):
    scene, content = Scene(), content_of(CHUNK_BYTES + 5)
    path = tmp_path / "envelope"
    path.write_bytes(scene.seal(content).envelope)
    with path.open("rb") as file:
        opened = open_envelope(
            FileSource(file),
            genesis=GENESIS,
            expected=expected_of(scene.context),
            sender=lambda context: scene.sender.public,
            keys={x_wing_key("Beta").key_id: x_wing_key("Beta")},
        )
        two_readers = zip(opened.read(), opened.read(), strict=True)
        assert all(one == other for one, other in two_readers)
        assert opened.content() == content


def test_plaintext_is_nowhere_in_a_sealed_envelope():
    secret = b"the patient's name"
    assert secret not in Scene().seal(secret).envelope
    assert secret in Scene(plain=True).seal(secret).envelope


def test_content_key_and_message_id_are_fresh_randomness():
    scene, random = Scene(), seeded("envelope")
    inspected = inspect(BytesSource(scene.seal().envelope))
    message_id, content_key = random(16), random(32)
    binding = hashlib.sha256(inspected.header.context).digest()
    assert inspected.context.message_id == message_id
    assert x_wing_key("Beta").unwrap(inspected.header.wraps[0].wrapped_key, binding) == content_key


def test_one_more_receiver_costs_a_wrap_and_no_copy():
    scene, content = Scene(), content_of(CHUNK_BYTES)
    beta, gamma = scene.receivers or []
    sizes = [
        len(seal_bytes(content, context=scene.context, receivers=to, key=scene.sender, random=seeded("x")).envelope)
        for to in ([beta], [beta, gamma])
    ]
    assert sizes[1] - sizes[0] < 600


def test_inspection_tells_what_the_envelope_says_without_keys(scene):
    sealed = scene.seal(b"content")
    inspected = inspect(BytesSource(sealed.envelope))
    assert (inspected.digest, inspected.total_length, inspected.sealed) == (sealed.digest, 7, not scene.plain)
    assert inspected.context.task_id == scene.context.task_id
    assert len(inspected.context.message_id) == 16


def test_chunk_and_tag_are_all_that_is_added_to_the_content():
    content = content_of(2 * CHUNK_BYTES)
    inspected = inspect(BytesSource(Scene().seal(content).envelope))
    assert [inspected.chunk_span(index)[1] for index in range(inspected.chunk_count)] == [CHUNK_BYTES + TAG_BYTES] * 2


# ---- whom it is not for --------------------------------------------------------------------------------------------


def test_who_is_no_receiver_cannot_open():
    with pytest.raises(EnvelopeRejected) as refused:
        Scene().open(Scene().seal().envelope, keys=[x_wing_key("Delta")])
    assert "other keys" in refused.value.cause_text


def test_no_key_at_all_opens_nothing():
    with pytest.raises(EnvelopeRejected):
        Scene().open(Scene().seal().envelope, keys=[])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", EnvelopeKind.ENVELOPE_KIND_FAILURE),
        ("task_id", identifier("another task")),
        ("task_digest", bytes(32)),
        ("run_id", identifier("another run")),
        ("attempt", 2),
        ("sequence", 1),
        ("sender_organization_id", address("Beta")),
        ("digest", bytes(32)),
    ],
)
def test_envelope_from_another_place_is_rejected(scene, field, value):
    with pytest.raises(EnvelopeRejected) as refused:
        scene.open(scene.seal().envelope, **{field: value})
    assert field in refused.value.cause_text or "another envelope" in refused.value.cause_text


def test_envelope_of_another_collaboration_is_rejected(scene):
    with pytest.raises(EnvelopeRejected):
        scene.open(scene.seal().envelope, genesis=bytes(32))


@pytest.mark.parametrize(
    "made_as",
    [input_context(), result_context(), result_context(kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE, sequence=1)],
)
@pytest.mark.parametrize(
    "taken_for",
    [input_context(), result_context(), result_context(kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE, sequence=1)],
)
def test_no_direction_passes_for_another(made_as, taken_for):
    envelope = Scene(made_as).seal().envelope
    if made_as != taken_for:
        with pytest.raises(EnvelopeRejected):
            Scene(taken_for).open(envelope)


def test_expected_digest_admits_exactly_that_envelope(scene):
    sealed = scene.seal()
    assert scene.open(sealed.envelope, digest=sealed.digest).content() == b"content"


def test_other_sender_than_the_ledger_shows_is_rejected(scene):
    with pytest.raises(EnvelopeRejected):
        scene.open(scene.seal().envelope, sender=signing_key("somebody else").public)


def test_sender_that_the_ledger_does_not_know_is_rejected_without_saying_so():
    scene = Scene()

    def unknown(context):
        raise OrganizationNotFound("There is no such member.")

    with pytest.raises(EnvelopeRejected) as refused:
        open_envelope(
            BytesSource(scene.seal().envelope),
            genesis=GENESIS,
            expected=expected_of(scene.context),
            sender=unknown,
            keys={},
        )
    assert "member" in refused.value.cause_text
    assert "member" not in str(refused.value)


def test_expired_envelope_is_rejected_from_that_moment_on(scene):
    context = result_context()
    context.expires_at.CopyFrom(timestamp(NOW + timedelta(days=1)))
    scene = Scene(context, plain=scene.plain)
    envelope = scene.seal().envelope
    last_moment = NOW + timedelta(days=1) - timedelta(microseconds=1)
    assert scene.open(envelope, now=last_moment).content() == b"content"
    assert scene.open(envelope, now=None).content() == b"content"
    with pytest.raises(EnvelopeRejected):
        scene.open(envelope, now=NOW + timedelta(days=1))


def test_plain_envelope_is_rejected_where_payloads_are_sealed():
    with pytest.raises(EnvelopeRejected):
        Scene().open(Scene(plain=True).seal().envelope)


def test_sealed_envelope_is_rejected_where_payloads_are_plain():
    with pytest.raises(EnvelopeRejected):
        Scene(plain=True).open(Scene().seal().envelope)


# ---- what is not sealed in the first place -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "receivers",
    [
        [],
        [Receiver(address("Beta"), x_wing_key("Beta").public)] * 2,
        [Receiver(address("Beta"), x_wing_key("Beta").public), Receiver(address("Beta"), rsa_key().public)],
        [Receiver(address("Beta"), rsa_key().public), Receiver(address("Gamma"), rsa_key().public)],
        [Receiver(address("Beta"), signing_key("Beta").public)],
        [Receiver("Beta", x_wing_key("Beta").public)],
    ],
    ids=["none", "twice", "organization twice", "key twice", "signing key", "name for an address"],
)
def test_receivers_that_no_reader_would_accept_are_refused(receivers):
    with pytest.raises(Malformed):
        seal_bytes(b"", context=result_context(), receivers=receivers, key=signing_key("x"), random=seeded("x"))


@pytest.mark.parametrize(
    "context",
    [
        result_context(genesis=b""),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_UNSPECIFIED),
        result_context(kind=99),
        result_context(task_digest=b""),
        input_context(task_digest=bytes(32)),
        result_context(task_id="task 1"),
        result_context(run_id=""),
        input_context(run_id=identifier("run")),
        result_context(attempt=0),
        input_context(attempt=1),
        result_context(sequence=1),
        result_context(kind=EnvelopeKind.ENVELOPE_KIND_MESSAGE),
        result_context(sender_organization_id="Alpha"),
        result_context(content_type=""),
        result_context(content_type="x" * 256),
        result_context(ledger_hash=b""),
    ],
)
def test_context_that_no_reader_would_accept_is_refused(context):
    with pytest.raises(Malformed):
        Scene(context).seal()


@pytest.mark.parametrize("fields", [("created_at",), ("created_at", "expires_at")])
def test_time_that_is_missing_or_out_of_order_is_refused(fields):
    context = result_context()
    context.expires_at.CopyFrom(timestamp(NOW - timedelta(seconds=1)))
    for field in fields:
        context.ClearField(field)
    with pytest.raises(Malformed):
        Scene(context).seal()


def test_more_receivers_than_a_header_holds_are_refused(monkeypatch):
    scene = Scene()
    header_length = int.from_bytes(scene.seal().envelope[8:12], "big")
    monkeypatch.setattr("folkmoot.trust.envelope.MAX_HEADER_BYTES", header_length)
    assert scene.seal().envelope
    monkeypatch.setattr("folkmoot.trust.envelope.MAX_HEADER_BYTES", header_length - 1)
    with pytest.raises(Malformed):
        scene.seal()


@given(st.data())
def test_random_reads_of_random_sizes_agree(data):
    size = data.draw(st.sampled_from(SIZES))
    content = content_of(size)
    opened = Scene().open(Scene().seal(content).envelope)
    offset = data.draw(st.integers(min_value=0, max_value=size))
    assert b"".join(opened.read(offset)) == content[offset:]
