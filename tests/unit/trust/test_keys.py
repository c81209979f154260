"""Keys that sign, keys that receive, and that none passes for another."""

import tracemalloc

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from folkmoot.trust import EnvelopeRejected, KeyMismatch, Malformed, RsaKey, SignatureInvalid, SigningKey, key_id, wrap
from folkmoot.trust.keys import verify_signature
from folkmoot.v1.keys_pb2 import KeyKind, PublicKey
from tests.unit.trust.scene import rsa_key, seeded, signing_key, x_wing_key

CONTENT_KEY = b"k" * 32
BINDING = b"b" * 32


def rsa_public(bits: int) -> PublicKey:
    key = rsa.generate_private_key(65537, bits).public_key()
    return PublicKey(
        kind=KeyKind.KEY_KIND_RSA, public=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def test_signing_key_is_its_seed():
    key = SigningKey.generate(seeded("seed"))
    assert SigningKey.from_seed(key.seed).key_id == key.key_id
    assert key.seed == seeded("seed")(32)


@pytest.mark.parametrize("seed", [b"", bytes(31), bytes(33)])
def test_seed_of_another_length_is_refused(seed):
    with pytest.raises(KeyMismatch):
        SigningKey.from_seed(seed)


def test_signature_of_another_message_or_key_is_invalid():
    key = signing_key("one")
    verify_signature(key.public, key.sign(b"message"), b"message")
    for public, message in ((key.public, b"Message"), (signing_key("other").public, b"message")):
        with pytest.raises(SignatureInvalid):
            verify_signature(public, key.sign(b"message"), message)


@pytest.mark.parametrize(
    "public",
    [
        PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=bytes(31)),
        PublicKey(kind=KeyKind.KEY_KIND_RSA, public=bytes(32)),
        PublicKey(),
    ],
)
def test_what_is_no_signing_key_verifies_nothing(public):
    with pytest.raises(SignatureInvalid):
        verify_signature(public, bytes(64), b"message")


def test_key_that_is_said_to_be_of_another_kind_verifies_nothing():
    key = signing_key("one")
    relabelled = PublicKey(kind=KeyKind.KEY_KIND_X_WING, public=key.public.public)
    with pytest.raises(SignatureInvalid):
        verify_signature(relabelled, key.sign(b"message"), b"message")


def test_same_bytes_as_another_kind_are_another_key():
    kinds = [kind for kind in KeyKind.values() if kind != KeyKind.KEY_KIND_UNSPECIFIED]
    assert len({key_id(PublicKey(kind=kind, public=bytes(32))) for kind in kinds}) == len(kinds)


def test_key_of_a_later_kind_has_no_id():
    with pytest.raises(Malformed):
        key_id(PublicKey(kind=KeyKind.ValueType(99), public=bytes(32)))


def test_private_keys_do_not_show_in_messages():
    key = signing_key("one")
    assert key.seed.hex() not in repr(key)
    assert repr(key.seed) not in repr(key)


class TestReceivingKeys:
    """What holds for every kind of key that receives."""

    @pytest.fixture(params=["x-wing", "rsa"])
    def key(self, request):
        return x_wing_key("Beta") if request.param == "x-wing" else rsa_key()

    def test_unwraps_what_was_wrapped_for_it(self, key):
        assert key.unwrap(wrap(key.public, CONTENT_KEY, BINDING), BINDING) == CONTENT_KEY

    def test_same_content_key_is_never_wrapped_the_same(self, key):
        assert wrap(key.public, CONTENT_KEY, BINDING) != wrap(key.public, CONTENT_KEY, BINDING)

    def test_wrap_fits_no_other_binding(self, key):
        with pytest.raises(EnvelopeRejected):
            key.unwrap(wrap(key.public, CONTENT_KEY, BINDING), b"c" * 32)

    def test_altered_wrap_is_rejected(self, key):
        wrapped = wrap(key.public, CONTENT_KEY, BINDING)
        for place in (0, len(wrapped) // 2, len(wrapped) - 1):
            with pytest.raises(EnvelopeRejected):
                key.unwrap(wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :], BINDING)

    @pytest.mark.parametrize("change", [lambda wrapped: wrapped[:-1], lambda wrapped: wrapped + b"x", lambda _: b""])
    def test_wrap_of_another_length_is_rejected(self, key, change):
        with pytest.raises(EnvelopeRejected) as refused:
            key.unwrap(change(wrap(key.public, CONTENT_KEY, BINDING)), BINDING)
        assert "bytes" in refused.value.cause_text, "it was tried all the same"

    def test_id_is_that_of_its_public_key(self, key):
        assert key.key_id == key_id(key.public)


def test_wrap_for_one_key_does_not_open_with_another():
    with pytest.raises(EnvelopeRejected):
        x_wing_key("Gamma").unwrap(wrap(x_wing_key("Beta").public, CONTENT_KEY, BINDING), BINDING)


@pytest.mark.parametrize("bits", [1024, 2048, 3064])
def test_rsa_key_that_is_too_weak_is_refused(bits):
    with pytest.raises(Malformed, match=str(bits)):
        wrap(rsa_public(bits), CONTENT_KEY, BINDING)
    with pytest.raises(Malformed, match=str(bits)):
        RsaKey.generate(bits)


def test_rsa_key_written_another_way_is_refused():
    canonical = rsa_key().public.public
    library_form = serialization.load_der_public_key(canonical)
    parameters = bytes.fromhex("300d06092a864886f70d0101010500")
    without_null = canonical.replace(parameters, bytes.fromhex("300b06092a864886f70d010101"))
    without_null = without_null[:2] + (len(without_null) - 4).to_bytes(2, "big") + without_null[4:]
    assert serialization.load_der_public_key(without_null) == library_form, "the library reads it"
    pkcs1 = library_form.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    for altered in (without_null, pkcs1, canonical + b"\x00", canonical[:-1], b""):
        with pytest.raises(Malformed):
            wrap(PublicKey(kind=KeyKind.KEY_KIND_RSA, public=altered), CONTENT_KEY, BINDING)


def test_key_of_another_algorithm_is_not_rsa():
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    public = curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(Malformed):
        wrap(PublicKey(kind=KeyKind.KEY_KIND_RSA, public=public), CONTENT_KEY, BINDING)


@pytest.mark.parametrize(
    "public",
    [
        x_wing_key("Beta").public.public[:-1],
        x_wing_key("Beta").public.public + b"x",
        b"\xff" * 1184 + x_wing_key("Beta").public.public[1184:],  # coefficients that are too large
        x_wing_key("Beta").public.public[:1184] + bytes(32),  # the X25519 point of order 1
    ],
)
def test_x_wing_key_that_nobody_can_hold_is_refused(public):
    with pytest.raises(Malformed):
        wrap(PublicKey(kind=KeyKind.KEY_KIND_X_WING, public=public), CONTENT_KEY, BINDING)


def test_nothing_is_sealed_to_a_key_that_signs():
    with pytest.raises(Malformed):
        wrap(signing_key("one").public, CONTENT_KEY, BINDING)


def test_rsa_key_of_an_even_modulus_is_refused_and_not_a_fault():
    """Such a key has the right form, and whoever seals to it would otherwise meet an error of the library's."""
    public = rsa_key().public
    at = public.public.rindex(b"\x02\x03\x01\x00\x01") - 1  # the modulus ends where the exponent begins
    even = public.public[:at] + bytes([public.public[at] & 0xFE]) + public.public[at + 1 :]
    with pytest.raises(Malformed, match="nothing can be sealed to"):
        wrap(PublicKey(kind=public.kind, public=even), CONTENT_KEY, BINDING)


def test_ids_of_what_pretends_to_be_keys_are_not_kept():
    """Thousands of ids are remembered; with keys of a megabyte each that would fill a server's memory."""
    tracemalloc.start()
    try:
        for number in range(16):
            key_id(PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=bytes([number]) * 1_000_000))
        assert tracemalloc.get_traced_memory()[0] < 4_000_000
    finally:
        tracemalloc.stop()
