"""One container: what was signed as one thing, by one key, for one collaboration, is nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import Malformed, SignatureInvalid, TrustError, pae, parse, serialize, sign, verify
from folkmoot.trust.signed import MAX_BODY_BYTES
from folkmoot.v1.keys_pb2 import KeyKind, PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.unit.trust.scene import GENESIS, signing_key

KINDS = [kind for kind in SignedKind.values() if kind != SignedKind.SIGNED_KIND_UNSPECIFIED]
KEY = signing_key("signer")


def signed(made_as: SignedKind.ValueType = SignedKind.SIGNED_KIND_RECEIPT, **changes: Any) -> Signed:
    made = sign(made_as, b"body", key=KEY, genesis=GENESIS)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_verifies_as_itself(kind):
    assert verify(signed(kind), kind=kind, public_key=KEY.public, genesis=GENESIS) == b"body"


def test_signature_is_over_what_the_contract_says():
    parts = b"folkmoot/v1", b"RECEIPT", GENESIS, b"body"
    assert signed().signature == KEY.sign(pae(*parts))


@pytest.mark.parametrize("made_as", KINDS)
def test_no_kind_passes_for_another(made_as):
    for taken_for in set(KINDS) - {made_as}:
        for thing in (signed(made_as), signed(made_as, kind=taken_for)):
            with pytest.raises(SignatureInvalid):
                verify(thing, kind=taken_for, public_key=KEY.public, genesis=GENESIS)


@pytest.mark.parametrize("genesis", [b"", bytes(32), GENESIS[:-1]])
def test_nothing_passes_in_another_collaboration(genesis):
    with pytest.raises(SignatureInvalid):
        verify(signed(), kind=SignedKind.SIGNED_KIND_RECEIPT, public_key=KEY.public, genesis=genesis)


@pytest.mark.parametrize(
    "changes",
    [
        {"body": b"Body"},
        {"body": b"body\x00"},
        {"body": b""},
        {"body": bytes(MAX_BODY_BYTES + 1)},
        {"key_id": signing_key("other").key_id},
        {"key_id": b""},
        {"signature": b""},
        {"signature": bytes(64)},
        {"signature": bytes(65)},
    ],
)
def test_altered_field_is_noticed(changes):
    with pytest.raises(SignatureInvalid):
        verify(signed(**changes), kind=SignedKind.SIGNED_KIND_RECEIPT, public_key=KEY.public, genesis=GENESIS)


def test_every_altered_byte_is_noticed():
    data = serialize(signed())
    for place in range(len(data)):
        for mask in (0x01, 0x80, 0xFF):
            altered = data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]
            with pytest.raises((Malformed, SignatureInvalid)):
                verify(
                    parse(Signed, altered),
                    kind=SignedKind.SIGNED_KIND_RECEIPT,
                    public_key=KEY.public,
                    genesis=GENESIS,
                )


def test_signature_with_the_order_added_is_refused():
    order = 2**252 + 27742317777372353535851937790883648493
    original = signed()
    scalar = int.from_bytes(original.signature[32:], "little") + order
    malleated = signed(signature=original.signature[:32] + scalar.to_bytes(32, "little"))
    with pytest.raises(SignatureInvalid):
        verify(malleated, kind=SignedKind.SIGNED_KIND_RECEIPT, public_key=KEY.public, genesis=GENESIS)


def test_other_key_with_the_same_bytes_is_refused():
    public = PublicKey(kind=KeyKind.KEY_KIND_RSA, public=KEY.public.public)
    with pytest.raises(SignatureInvalid):
        verify(signed(), kind=SignedKind.SIGNED_KIND_RECEIPT, public_key=public, genesis=GENESIS)


@pytest.mark.parametrize("kind", [SignedKind.SIGNED_KIND_UNSPECIFIED, SignedKind.ValueType(99)])
def test_nothing_is_signed_or_verified_as_an_unknown_kind(kind):
    with pytest.raises(SignatureInvalid):
        sign(kind, b"body", key=KEY)
    with pytest.raises(SignatureInvalid):
        verify(signed(kind=kind), kind=kind, public_key=KEY.public, genesis=GENESIS)


@pytest.mark.parametrize("genesis", [b"g", GENESIS[:-1], GENESIS + b"g"])
def test_nothing_is_signed_for_what_is_no_genesis(genesis):
    with pytest.raises(SignatureInvalid):
        sign(SignedKind.SIGNED_KIND_HEAD, b"body", key=KEY, genesis=genesis)


@pytest.mark.parametrize("body", [b"", bytes(MAX_BODY_BYTES + 1)])
def test_body_of_a_wrong_size_is_not_signed(body):
    with pytest.raises(Malformed):
        sign(SignedKind.SIGNED_KIND_HEAD, body, key=KEY)


@given(st.binary(max_size=150), st.sampled_from(KINDS))
def test_anything_else_is_refused_with_a_reason(data, kind):
    with pytest.raises(TrustError):
        verify(parse(Signed, data), kind=kind, public_key=KEY.public, genesis=GENESIS)
