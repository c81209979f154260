"""One container for everything that a key signs, one function that signs and one that verifies.

A signature covers what the body is (its kind), the collaboration it is for (its genesis) and the body's bytes as they
were received. Nothing that is signed as one kind passes as another, or in another collaboration.
"""

from folkmoot.trust.encoding import DIGEST_BYTES, pae
from folkmoot.trust.errors import Malformed, SignatureInvalid
from folkmoot.trust.keys import SigningKey, key_id, verify_signature
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.signed_pb2 import Signed, SignedKind

MAX_BODY_BYTES = 1024 * 1024

_LABEL = b"folkmoot/v1"
_KIND_NAMES = {
    value.number: value.name.removeprefix("SIGNED_KIND_").encode()
    for value in SignedKind.DESCRIPTOR.values
    if value.number != SignedKind.SIGNED_KIND_UNSPECIFIED
}


def sign(kind: SignedKind.ValueType, body: bytes, *, key: SigningKey, genesis: bytes = b"") -> Signed:
    """Sign a serialized message; `genesis` stays empty for what belongs to no collaboration (yet)."""
    if not 0 < len(body) <= MAX_BODY_BYTES:
        raise Malformed(f"A body of {len(body)} bytes can't be signed; 1 to {MAX_BODY_BYTES} are allowed.")
    return Signed(kind=kind, body=body, key_id=key.key_id, signature=key.sign(_message(kind, genesis, body)))


def verify(signed: Signed, *, kind: SignedKind.ValueType, public_key: PublicKey, genesis: bytes = b"") -> bytes:
    """Return the body; raise SignatureInvalid unless that key signed it as that kind for that collaboration."""
    if signed.kind != kind:
        raise SignatureInvalid(f"Signed as kind {signed.kind}, where kind {kind} is expected.")
    if not 0 < len(signed.body) <= MAX_BODY_BYTES:
        raise SignatureInvalid(f"The body has {len(signed.body)} bytes; 1 to {MAX_BODY_BYTES} are allowed.")
    if signed.key_id != key_id(public_key):
        raise SignatureInvalid("Signed by another key than the expected one.")
    verify_signature(public_key, signed.signature, _message(kind, genesis, signed.body))
    return signed.body


def _message(kind: SignedKind.ValueType, genesis: bytes, body: bytes) -> bytes:
    if kind not in _KIND_NAMES:
        raise SignatureInvalid(f"Nothing is signed as kind {kind}.")
    if len(genesis) not in (0, DIGEST_BYTES):
        raise SignatureInvalid(f"A genesis has {DIGEST_BYTES} bytes, not {len(genesis)}.")
    return pae(_LABEL, _KIND_NAMES[kind], genesis, body)
