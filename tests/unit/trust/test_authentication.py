"""A signature over a nonce is good for one server, one nonce, one collaboration, one key and a few minutes."""

from datetime import timedelta

import pytest

from folkmoot.trust import (
    Malformed,
    SignatureInvalid,
    digest,
    make_authentication,
    read_authentication,
    sign,
    verify_authentication,
)
from folkmoot.v1.signed_pb2 import SignedKind
from tests.builders import NOW, SECOND
from tests.vectors.forge import UNKNOWN_FIELD, base

NONCE, AUTHORITY = bytes(range(32)), digest(b"certificate")
MINUTES = timedelta(minutes=5)


@pytest.fixture
def w():
    return base()


def made(w, **changes):
    wish = {"genesis": w.genesis, "organization_id": w["Alpha"].address, "key": w["Alpha"].nodes["alpha-1"]}
    wish |= {"nonce": NONCE, "server_authority_digest": AUTHORITY, "now": NOW}
    return make_authentication(**(wish | changes))


def verified(w, signed, **changes):
    wish = {"public_key": w["Alpha"].nodes["alpha-1"].public, "organization_id": w["Alpha"].address}
    wish |= {"genesis": w.genesis, "nonce": NONCE, "server_authority_digest": AUTHORITY, "now": NOW}
    return verify_authentication(signed, **(wish | changes))


def test_node_proves_its_key(w):
    signed = made(w)
    claimed = read_authentication(signed)
    assert w.state.node(claimed.node_id).name == "alpha-1"
    assert verified(w, signed) == claimed


@pytest.mark.parametrize("now", [NOW - MINUTES, NOW + MINUTES])
def test_clocks_may_be_five_minutes_apart(w, now):
    verified(w, made(w), now=now)


@pytest.mark.parametrize("now", [NOW - MINUTES - SECOND, NOW + MINUTES + SECOND])
def test_old_or_future_signature(w, now):
    with pytest.raises(SignatureInvalid, match="5 minutes apart"):
        verified(w, made(w), now=now)


def test_server_in_the_middle_has_another_authority(w):
    with pytest.raises(SignatureInvalid, match="another certificate authority"):
        verified(w, made(w, server_authority_digest=digest(b"middle")))


def test_signature_without_tls_is_not_for_a_server_with_tls(w):
    with pytest.raises(SignatureInvalid, match="another certificate authority"):
        verified(w, made(w, server_authority_digest=b""))


def test_nonce_of_another_call(w):
    with pytest.raises(SignatureInvalid, match="another nonce"):
        verified(w, made(w, nonce=bytes(32)))


def test_key_of_another_node(w):
    with pytest.raises(SignatureInvalid, match="another key"):
        verified(w, made(w, key=w["Beta"].nodes["beta-1"]))


def test_node_of_another_organization_name(w):
    with pytest.raises(SignatureInvalid, match="another collaboration, organization or node"):
        verified(w, made(w, organization_id=w["Beta"].address))


def test_signature_for_another_collaboration(w):
    with pytest.raises(SignatureInvalid, match="not that of the key"):
        verified(w, made(w, genesis=bytes(32)))


def test_something_else_that_the_node_signed(w):
    key, body = w["Alpha"].nodes["alpha-1"], made(w).body
    with pytest.raises(SignatureInvalid, match="kind"):
        verified(w, sign(SignedKind.SIGNED_KIND_HEAD, body, key=key, genesis=w.genesis))


def test_unknown_field(w):
    key, body = w["Alpha"].nodes["alpha-1"], made(w).body + UNKNOWN_FIELD
    with pytest.raises(Malformed):
        verified(w, sign(SignedKind.SIGNED_KIND_AUTHENTICATION, body, key=key, genesis=w.genesis))
