"""Digests, fingerprints, references and ids; messages that are read strictly."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import FingerprintMissing, Malformed, Reference, digest, fingerprint, pae, parse, parse_fingerprint
from folkmoot.trust.encoding import is_uuid, serialize, timestamp, uuid7
from folkmoot.v1.keys_pb2 import Invitation, KeyKind, NodeClaim, PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.unit.trust.scene import NOW, seeded

KEY_ID = hashlib.sha256(b"key").digest()
SIGNED = Signed(kind=SignedKind.SIGNED_KIND_HEAD, body=b"body", key_id=KEY_ID, signature=bytes(64))
PARTS = st.lists(st.binary(max_size=20), max_size=4)


def test_pae_is_the_published_one():
    assert pae() == bytes(8)
    assert pae(b"") == b"\x01" + bytes(15)
    assert pae(b"test", b"") == b"\x02" + bytes(7) + b"\x04" + bytes(7) + b"test" + bytes(8)


@given(PARTS, PARTS)
def test_pae_of_other_parts_is_other_bytes(one, other):
    assert (pae(*one) == pae(*other)) == (one == other)


@given(st.binary(min_size=32, max_size=32))
def test_fingerprint_names_its_bytes(key_id):
    text = fingerprint(key_id)
    assert len(text) == 56
    assert parse_fingerprint(text) == key_id


def test_every_mistyped_character_of_a_fingerprint_is_noticed():
    text = fingerprint(KEY_ID)
    for place in range(len(text)):
        for other in "abcdefghijklmnopqrstuvwxyz234567A10 \n":
            if other != text[place]:
                with pytest.raises(Malformed):
                    parse_fingerprint(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "a" * 55, fingerprint(KEY_ID).upper(), fingerprint(KEY_ID) + "a", "ß" * 56])
def test_what_is_no_fingerprint_is_refused(text):
    with pytest.raises(Malformed):
        parse_fingerprint(text)


@pytest.mark.parametrize("key_id", [b"", bytes(31), bytes(33)])
def test_fingerprint_of_something_else_than_a_digest(key_id):
    with pytest.raises(Malformed):
        fingerprint(key_id)


@pytest.mark.parametrize("name", ["lung", "Lung cancer 2.0", "a", "x" * 63])
def test_reference_survives_its_text(name):
    reference = Reference(name, KEY_ID)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "lung",
        "",
        "lung@",
        f"@{fingerprint(KEY_ID)}",
        f"lung@{fingerprint(KEY_ID)[:-1]}a",
        f" lung@{fingerprint(KEY_ID)}",
    ],
)
def test_collaboration_without_a_right_fingerprint_is_refused(text):
    with pytest.raises(FingerprintMissing):
        Reference.parse(text)


def test_parse_reads_what_serialize_writes():
    assert parse(Signed, serialize(SIGNED)) == SIGNED


UNKNOWN_FIELD = b"\x7a\x01x"


@pytest.mark.parametrize(
    "data",
    [
        serialize(SIGNED) + UNKNOWN_FIELD,
        UNKNOWN_FIELD + serialize(SIGNED),
        serialize(SIGNED) + b"\x00",
        serialize(SIGNED)[:-1],
        serialize(SIGNED) + b"\x08\x09",  # a field twice
        serialize(SIGNED)[2:] + serialize(SIGNED)[:2],  # fields in another order
        b"\x08\x89\x00" + serialize(SIGNED)[2:],  # a number longer than it must be
        b"\x08\x00",  # a default, written down
        b"\xff",
    ],
)
def test_bytes_that_this_release_would_not_write_are_refused(data):
    with pytest.raises(Malformed):
        parse(Signed, data)


def test_unknown_field_inside_a_nested_message_is_refused():
    key = PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=bytes(32))
    nested = serialize(key) + UNKNOWN_FIELD
    data = b"\x08\x01" + b"\x2a" + bytes([len(nested)]) + nested
    assert NodeClaim.FromString(data).public_key.kind == key.kind
    with pytest.raises(Malformed):
        parse(NodeClaim, data)


@pytest.mark.parametrize("version", [0, 2])
def test_other_format_version_is_refused(version):
    with pytest.raises(Malformed, match=f"format {version}"):
        parse(Invitation, serialize(Invitation(version=version)))


@given(st.binary(max_size=200))
def test_parse_of_anything_gives_canonical_messages_or_malformed(data):
    try:
        message = parse(Signed, data)
    except Malformed:
        return
    assert serialize(message) == data


def test_uuid7_is_one_and_carries_the_time():
    made = UUID(uuid7(NOW, seeded("id")))
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(NOW.timestamp() * 1000)


@given(st.lists(st.integers(min_value=0, max_value=10**15), min_size=2, max_size=20))
def test_uuid7_sorts_by_time_to_the_microsecond(microseconds):
    times = sorted({datetime(2020, 1, 1, tzinfo=UTC) + timedelta(microseconds=number) for number in microseconds})
    made = [uuid7(time, seeded(str(time))) for time in times]
    assert made == sorted(made)


@pytest.mark.parametrize(
    "text", ["", "x", "0190163D-8694-739B-AEA5-966C26F8AD91", "{0190163d-8694-739b-aea5-966c26f8ad91}"]
)
def test_only_the_usual_form_is_a_uuid(text):
    assert is_uuid(uuid7(NOW, seeded("id")))
    assert not is_uuid(text)


def test_timestamp_of_another_time_zone_is_the_same_moment():
    east = NOW.astimezone(datetime.now().astimezone().tzinfo)
    assert timestamp(east) == timestamp(NOW)


def test_digest_is_sha256():
    assert digest(b"abc").hex().startswith("ba7816bf")
