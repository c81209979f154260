"""Signatures of images: one that cosign itself made, those that we make, and everything that is none."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.registry import ImageSignature, load_signer_key, signers_of
from folkmoot.registry.signatures import load_secret_signer_key, make_signature, signature_tag

# Made by `cosign sign --key` of a busybox image; published by the kubewarden project (Apache-2.0) for tests of its verifier.
COSIGN_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELKhD7F5OKy77Z582Y6h0u1J3GNA+
kvUsh4eKpd1lwkDAzfFDs7yXEExsEkPPuiQJBelDT68n7PDIWB/QEY7mrA==
-----END PUBLIC KEY-----"""
COSIGN_DIGEST = "sha256:f3cfc9d0dbf931d3db4685ec659b7ac68e2a578219da4aae65427886e649b06b"
COSIGN_SIGNATURE = ImageSignature(
    b'{"critical":{"identity":{"docker-reference":"registry-testing.svc.lan/busybox"},'
    b'"image":{"docker-manifest-digest":"' + COSIGN_DIGEST.encode() + b'"},'
    b'"type":"cosign container image signature"},"optional":null}',
    base64.b64decode(
        "MEYCIQDWWxPQa3XFUsPbyTY+n+bZu/6Pwhg5WwyYDQtEfQho9wIhAPkKW7eub8b7BX+YbbRac8TwwIrK5KxvdtQ6NuoD+ivW"
    ),
)
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
SECRETS: dict[str, Any] = {
    "ECDSA P-256": ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65537, 2048),
}
KEYS = {name: key.public_key() for name, key in SECRETS.items()}


def pem(key: Any) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_signature_of_cosign_itself_is_understood():
    key = load_signer_key(COSIGN_KEY)
    assert COSIGN_SIGNATURE.proves(COSIGN_DIGEST, key)
    assert not COSIGN_SIGNATURE.proves(OTHER, key)


def test_we_write_what_cosign_writes():
    ours = make_signature("registry-testing.svc.lan/busybox", COSIGN_DIGEST, SECRETS["ECDSA P-256"])
    assert ours.payload == COSIGN_SIGNATURE.payload
    assert signature_tag(DIGEST) == f"sha256-{'1' * 64}.sig"


@pytest.mark.parametrize("kind", SECRETS)
def test_only_who_signed_is_a_signer(kind: str):
    signature = make_signature("registry.example.org/a/b", DIGEST, SECRETS[kind])
    assert signers_of(DIGEST, [signature], KEYS) == {kind}
    assert signers_of(OTHER, [signature], KEYS) == frozenset()
    assert signers_of(DIGEST, [], KEYS) == frozenset()


@pytest.mark.parametrize("kind", SECRETS)
@given(flip=st.integers(0, 10_000))
def test_no_bit_can_be_changed(kind: str, flip: int):
    made = make_signature("registry.example.org/a/b", DIGEST, SECRETS[kind])
    whole = bytearray(made.payload + made.signature)
    whole[flip // 8 % len(whole)] ^= 1 << flip % 8
    altered = ImageSignature(bytes(whole[: len(made.payload)]), bytes(whole[len(made.payload) :]))
    assert not altered.proves(DIGEST, KEYS[kind])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no JSON",
        b"[]",
        b"{}",
        b"[" * 100_000,
        json.dumps({"critical": None}).encode(),
        json.dumps({"critical": {"type": "cosign container image signature", "image": []}}).encode(),
        json.dumps({"critical": {"type": "atomic", "image": {"docker-manifest-digest": DIGEST}}}).encode(),
    ],
)
def test_what_is_signed_must_be_a_signature_of_an_image(payload: bytes):
    """The signer's key may sign other things, too."""
    key = SECRETS["Ed25519"]
    assert not ImageSignature(payload, key.sign(payload)).proves(DIGEST, key.public_key())


@given(payload=st.binary(max_size=200), signature=st.binary(max_size=100))
def test_nothing_made_up_proves_anything(payload: bytes, signature: bytes):
    assert signers_of(DIGEST, [ImageSignature(payload, signature)], KEYS) == frozenset()


@pytest.mark.parametrize("kind", SECRETS)
def test_public_keys_are_read(kind: str):
    assert load_signer_key(pem(KEYS[kind])) == KEYS[kind]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "no public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (pem(rsa.generate_private_key(65537, 1024).public_key()), "2048"),
        (pem(ec.generate_private_key(ec.SECP521R1()).public_key()), "P-256"),
    ],
    ids=["empty", "garbage", "short RSA", "other curve"],
)
def test_key_that_can_be_no_signers_is_said(content: bytes, problem: str):
    with pytest.raises(ValueError, match=problem):
        load_signer_key(content)


def test_secret_keys_are_read_with_their_passphrase():
    key = SECRETS["ECDSA P-256"]
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    assert load_secret_signer_key(plain, None).public_key() == key.public_key()
    assert load_secret_signer_key(sealed, b"word").public_key() == key.public_key()
    for content, passphrase in ((sealed, b"other"), (sealed, None), (b"", None)):
        with pytest.raises(ValueError, match="key"):
            load_secret_signer_key(content, passphrase)
