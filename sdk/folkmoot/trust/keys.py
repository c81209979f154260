"""Keys: one kind that signs (Ed25519), two that receive (X-Wing and RSA).

A public key is the contract's PublicKey; its id is a digest of kind and bytes, so that no key passes for one of another
kind. `SigningKey`, `XWingKey` and `RsaKey` hold private keys; nothing here writes them anywhere (see `keyfile`).

Randomness: signing and X-Wing keys are made from the `random` that is passed in. RSA keys and wraps are not: the
library draws what they need from the operating system.
"""

from functools import cached_property, lru_cache
from typing import Final, Protocol, Self

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from folkmoot.trust.encoding import Random, digest, fingerprint, pae
from folkmoot.trust.errors import EnvelopeRejected, KeyMismatch, Malformed, SignatureInvalid
from folkmoot.v1.keys_pb2 import KeyKind, PublicKey

SEED_BYTES = 32
CONTENT_KEY_BYTES = 32
ML_KEM_SEED_BYTES = 64
RSA_MIN_BITS, RSA_DEFAULT_BITS, RSA_MAX_BITS = 3072, 4096, 16384

_KEY_LABEL = b"folkmoot/v1 key"
_ML_KEM_PUBLIC_BYTES = 1184
_X25519_BYTES = 32
_LONGEST_KEPT_BYTES = 2200  # any key that anybody uses; what pretends to be a longer one is not worth the memory
_X_WING_WRAPPED_BYTES = 1120 + CONTENT_KEY_BYTES + 16
_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def key_id(public: PublicKey) -> bytes:
    """Return the key's id: 32 bytes over kind and public bytes. Raises Malformed for a kind that is not known."""
    is_kept = len(public.public) <= _LONGEST_KEPT_BYTES
    return _kept_key_id(public.kind, public.public) if is_kept else _key_id(public.kind, public.public)


@lru_cache(maxsize=4096)  # asked of the same few keys with everything that they sign
def _kept_key_id(kind: KeyKind.ValueType, public: bytes) -> bytes:
    return _key_id(kind, public)


def _key_id(kind: KeyKind.ValueType, public: bytes) -> bytes:
    try:
        name = KeyKind.Name(kind).removeprefix("KEY_KIND_")
    except ValueError as error:
        raise Malformed(f"Keys of kind {kind} are not known.") from error
    return digest(pae(_KEY_LABEL, name.encode(), public))


class SigningKey:
    """An Ed25519 private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=private.public_key().public_bytes_raw())
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls, random: Random) -> Self:
        """Make a new key."""
        return cls.from_seed(random(SEED_BYTES))

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """Return the key of a seed of 32 bytes (RFC 8032)."""
        if len(seed) != SEED_BYTES:
            raise KeyMismatch(f"A signing key's seed is {SEED_BYTES} bytes long, not {len(seed)}.")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The 32 bytes that the key is made from; secret."""
        return self._private.private_bytes_raw()

    @cached_property
    def fingerprint(self) -> str:
        """The text form of the key's id."""
        return fingerprint(self.key_id)

    def sign(self, message: bytes) -> bytes:
        """Return a signature of 64 bytes. Signed things go through `signed.sign`, which says what they are."""
        return self._private.sign(message)


def verify_signature(public: PublicKey, signature: bytes, message: bytes) -> None:
    """Raise SignatureInvalid unless the Ed25519 key signed exactly this message."""
    if public.kind != KeyKind.KEY_KIND_ED25519:
        raise SignatureInvalid("The signing key is not an Ed25519 key.")
    try:
        _load_ed25519(public.public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureInvalid("The signature is not that of the key over these bytes.") from error


@lru_cache(maxsize=4096)
def _load_ed25519(public: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(public)


class DecryptionKey(Protocol):
    """A private key that receives: opens content keys which were wrapped for it."""

    @property
    def public(self) -> PublicKey:
        """The public key."""

    @property
    def key_id(self) -> bytes:
        """The public key's id."""

    def unwrap(self, wrapped: bytes, binding: bytes) -> bytes:
        """Return the content key; raise EnvelopeRejected unless it was wrapped for this key with this binding."""


class XWingKey:
    """X-Wing (ML-KEM-768 and X25519 together) under HPKE: what is recorded today stays closed to a quantum computer."""

    def __init__(self, ml_kem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self.ml_kem, self.x25519 = ml_kem, x25519
        self._private = MLKEM768X25519PrivateKey(ml_kem, x25519)
        public = ml_kem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.public = PublicKey(kind=KeyKind.KEY_KIND_X_WING, public=public)
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls, random: Random) -> Self:
        """Make a new key."""
        return cls.from_seeds(random(ML_KEM_SEED_BYTES), random(SEED_BYTES))

    @classmethod
    def from_seeds(cls, ml_kem: bytes, x25519: bytes) -> Self:
        """Return the key of an ML-KEM seed (d and z, 64 bytes, FIPS 203) and an X25519 private key (32 bytes)."""
        try:
            return cls(MLKEM768PrivateKey.from_seed_bytes(ml_kem), X25519PrivateKey.from_private_bytes(x25519))
        except UnsupportedAlgorithm as error:
            raise KeyMismatch(
                "The installed cryptography library has no ML-KEM: install its official wheel."
            ) from error

    def unwrap(self, wrapped: bytes, binding: bytes) -> bytes:
        """See DecryptionKey."""
        if len(wrapped) != _X_WING_WRAPPED_BYTES:
            raise EnvelopeRejected(f"an X-Wing wrap of {len(wrapped)} bytes")
        try:
            return _SUITE.decrypt(wrapped, self._private, info=binding)
        except (InvalidTag, ValueError) as error:
            raise EnvelopeRejected("the content key was not wrapped for this X-Wing key and context") from error


class RsaKey:
    """RSA-OAEP with SHA-256, for rules or hardware that ask for it; 3,072 bits at least."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        _check_rsa_bits(private.key_size)
        self.private = private
        public = private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.public = PublicKey(kind=KeyKind.KEY_KIND_RSA, public=public)
        self.key_id = key_id(self.public)

    @classmethod
    def generate(cls, bits: int = RSA_DEFAULT_BITS) -> Self:
        """Make a new key, from randomness that the library draws itself."""
        _check_rsa_bits(bits)
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=bits))

    def unwrap(self, wrapped: bytes, binding: bytes) -> bytes:
        """See DecryptionKey."""
        if len(wrapped) != (self.private.key_size + 7) // 8:
            raise EnvelopeRejected(f"an RSA wrap of {len(wrapped)} bytes")
        try:
            return self.private.decrypt(wrapped, _oaep(binding))
        except ValueError as error:
            raise EnvelopeRejected("the content key was not wrapped for this RSA key and context") from error


def wrap(public: PublicKey, content_key: bytes, binding: bytes) -> bytes:
    """Return a content key that only the holder of the key can unwrap, and only with the same binding.

    The library draws the randomness of a wrap itself: the same call never gives the same bytes. Raises Malformed for a
    key that cannot receive.
    """
    receiver = load_encryption_key(public)
    try:
        if isinstance(receiver, rsa.RSAPublicKey):
            return receiver.encrypt(content_key, _oaep(binding))
        return _SUITE.encrypt(content_key, receiver, info=binding)
    except ValueError as error:
        raise Malformed("The key is one that nothing can be sealed to.") from error


def load_encryption_key(public: PublicKey) -> rsa.RSAPublicKey | MLKEM768X25519PublicKey:
    """Return the library's form of a key that receives; raise Malformed for any other, or one too weak."""
    if public.kind == KeyKind.KEY_KIND_X_WING:
        return _load_x_wing(public.public)
    if public.kind == KeyKind.KEY_KIND_RSA:
        return _load_rsa(public.public)
    raise Malformed("The key is not of a kind that receives.")


@lru_cache(maxsize=1024)
def _load_x_wing(public: bytes) -> MLKEM768X25519PublicKey:
    if len(public) != _ML_KEM_PUBLIC_BYTES + _X25519_BYTES:
        raise Malformed(f"An X-Wing key is {_ML_KEM_PUBLIC_BYTES + _X25519_BYTES} bytes long, not {len(public)}.")
    try:
        ml_kem = MLKEM768PublicKey.from_public_bytes(public[:_ML_KEM_PUBLIC_BYTES])
    except ValueError as error:
        raise Malformed("The ML-KEM half of an X-Wing key is not a key.") from error
    return MLKEM768X25519PublicKey(ml_kem, X25519PublicKey.from_public_bytes(public[_ML_KEM_PUBLIC_BYTES:]))


def _load_rsa(public: bytes) -> rsa.RSAPublicKey:
    try:
        key = serialization.load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("An RSA key is not a DER SubjectPublicKeyInfo.") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise Malformed("A key that is said to be RSA is of another kind.")
    # One key has one id: any other encoding of it would be the same key under a second name.
    if key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo) != public:
        raise Malformed("An RSA key is not encoded canonically.")
    _check_rsa_bits(key.key_size)
    return key


def _check_rsa_bits(bits: int) -> None:
    if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
        raise Malformed(f"An RSA key has {bits} bits; {RSA_MIN_BITS} to {RSA_MAX_BITS} are allowed.")


def _oaep(label: bytes) -> padding.OAEP:
    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), label)
