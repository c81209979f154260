"""A second reader of keys: fingerprints, key files, wraps and signatures, without importing anything of folkmoot.

X-Wing (draft-connolly-cfrg-xwing-kem) and HPKE (RFC 9180) are put together here from ML-KEM, X25519, HKDF and AES-GCM, so
that a wrap is checked against the documents and not against the library's own idea of them.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_private_key

from tests.vectors.second_reader_wire import SCHEMA, Refused, fingerprint, pae, read, sha256

SCHEMA["InvitationFile"] = {1: ("invitation", "Signed"), 2: ("seed", "bytes"), 3: ("collaboration", "text")}

SIGNED_KINDS = [
    *("UNSPECIFIED", "TASK_SPEC", "SUBTASK_SPEC", "LEDGER_ENTRY", "JOIN_REQUEST", "INVITATION", "NODE_CLAIM"),
    *("RECEIPT", "APPROVAL", "HEAD", "ENVELOPE", "AUTHENTICATION", "KEY_CLAIM"),
]
KEY_KINDS = ["UNSPECIFIED", "ED25519", "X_WING", "RSA"]


def refuse(reason: str) -> Any:
    raise Refused(reason)


def read_words(fingerprint_text: str, list_text: str) -> str:
    """Return the twelve words of a fingerprint."""
    bits = "".join(f"{byte:08b}" for byte in read_fingerprint(fingerprint_text))
    return " ".join(list_text.split()[int(bits[at : at + 11], 2)] for at in range(0, 132, 11))


# ---- names ---------------------------------------------------------------------------------------------------------


def key_id(kind: str, public: bytes) -> bytes:
    return sha256(pae(b"folkmoot/v1 key", kind.encode(), public))


def read_fingerprint(text: str) -> bytes:
    if not re.fullmatch("[a-z2-7]{56}", text):
        refuse("MALFORMED")
    digest = base64.b32decode(text.upper())[:32]
    return digest if fingerprint(digest) == text else refuse("MALFORMED")


def read_reference(text: str) -> tuple[str, bytes]:
    name, _, named = text.rpartition("@")
    if not re.fullmatch("[A-Za-z0-9]([A-Za-z0-9 ._-]{0,61}[A-Za-z0-9])?", name):
        refuse("FINGERPRINT_MISSING")
    try:
        return name, read_fingerprint(named)
    except Refused:
        return refuse("FINGERPRINT_MISSING")


# ---- signatures ----------------------------------------------------------------------------------------------------


def verified(signed: dict[str, Any], kind: str, public: bytes, genesis: bytes) -> bytes:
    """Return the body of a Signed that an Ed25519 key signed as this kind, for this collaboration."""
    right = signed["kind"] == SIGNED_KINDS.index(kind) and signed["key_id"] == key_id("ED25519", public)
    if not right or not 0 < len(signed["body"]) <= 2**20:
        refuse("SIGNATURE_INVALID")
    try:
        message = pae(b"folkmoot/v1", kind.encode(), genesis, signed["body"])
        Ed25519PublicKey.from_public_bytes(public).verify(signed["signature"], message)
    except (InvalidSignature, ValueError):
        refuse("SIGNATURE_INVALID")
    return signed["body"]


def read_signed(data: bytes, kind: str, public: bytes, genesis: bytes) -> bytes:
    return verified(read("Signed", data, "MALFORMED"), kind, public, genesis)


# ---- public keys that receive --------------------------------------------------------------------------------------


def check_receiving_key(kind: str, public: bytes) -> None:
    """Refuse a key that nothing may be sealed to."""
    checks = {"X_WING": _is_x_wing, "RSA": _is_rsa}
    if kind not in checks or not checks[kind](public):
        refuse("MALFORMED")


def _is_x_wing(public: bytes) -> bool:
    if len(public) != 1184 + 32:
        return False
    coefficients = int.from_bytes(public[:1152], "little")
    if any(coefficients >> 12 * place & 0xFFF >= 3329 for place in range(768)):
        return False
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(public[1184:]))
    except ValueError:
        return False
    return True


def _is_rsa(public: bytes) -> bool:
    try:
        key = load_der_public_key(public)
    except (ValueError, UnsupportedAlgorithm):
        return False
    if not isinstance(key, RSAPublicKey) or not 3072 <= key.key_size <= 16384:
        return False
    numbers = key.public_numbers()
    algorithm = _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d010101")) + _der(0x05, b""))
    bits = _der(0x03, b"\0" + _der(0x30, _integer(numbers.n) + _integer(numbers.e)))
    return numbers.n % 2 == 1 and _der(0x30, algorithm + bits) == public


def _der(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


# ---- private keys --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class XWing:
    ml_kem: MLKEM768PrivateKey
    x25519: X25519PrivateKey
    kind = "X_WING"

    @property
    def public(self) -> bytes:
        return self.ml_kem.public_key().public_bytes_raw() + self.x25519.public_key().public_bytes_raw()

    def decapsulate(self, encapsulated: bytes) -> bytes:
        """X-Wing: SHA3-256 over both secrets, the X25519 share, the X25519 key and a label."""
        lattice, share = encapsulated[:1088], encapsulated[1088:]
        curve = self.x25519.exchange(X25519PublicKey.from_public_bytes(share))
        secrets = self.ml_kem.decapsulate(lattice) + curve
        return hashlib.sha3_256(secrets + share + self.public[1184:] + rb"\.//^" + b"\\").digest()

    def unwrap(self, wrapped: bytes, binding: bytes) -> bytes:
        """HPKE, base mode, one message: KEM 0x647A, HKDF-SHA-256, AES-256-GCM."""
        if len(wrapped) != 1120 + 32 + 16:
            refuse("ENVELOPE_REJECTED")
        suite = b"HPKE" + bytes.fromhex("647a 0001 0002")
        context = b"\0" + _extract(suite, b"", b"psk_id_hash", b"") + _extract(suite, b"", b"info_hash", binding)
        try:
            secret = _extract(suite, self.decapsulate(wrapped[:1120]), b"secret", b"")
            key, nonce = (_expand(suite, secret, name, context, n) for name, n in ((b"key", 32), (b"base_nonce", 12)))
            return AESGCM(key).decrypt(nonce, wrapped[1120:], b"")
        except (InvalidTag, ValueError):
            return refuse("ENVELOPE_REJECTED")


def _extract(suite: bytes, salt: bytes, label: bytes, data: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + data, "sha256")


def _expand(suite: bytes, secret: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(secret, labelled + b"\x01", "sha256")[:length]


@dataclass(frozen=True)
class Rsa:
    private: RSAPrivateKey
    kind = "RSA"

    @property
    def public(self) -> bytes:
        numbers = self.private.public_key().public_numbers()
        algorithm = _der(0x30, _der(0x06, bytes.fromhex("2a864886f70d010101")) + _der(0x05, b""))
        bits = _der(0x03, b"\0" + _der(0x30, _integer(numbers.n) + _integer(numbers.e)))
        return _der(0x30, algorithm + bits)

    def unwrap(self, wrapped: bytes, binding: bytes) -> bytes:
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), binding)
        try:
            return self.private.decrypt(wrapped, oaep)
        except ValueError:
            return refuse("ENVELOPE_REJECTED")


# ---- files ---------------------------------------------------------------------------------------------------------


def _private_keys(pem: str, passphrase: str | None) -> list[Any]:
    blocks = re.findall(
        r"(-----BEGIN ([^\n]*)-----\n(?:(?!-----).)*-----END \2-----)", pem.replace("\r\n", "\n"), re.DOTALL
    )
    keys = []
    for block, label in blocks:
        if label not in ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"):
            refuse("KEY_MISMATCH")
        secret = passphrase.encode() if passphrase and label.startswith("ENCRYPTED") else None
        try:
            keys.append(load_pem_private_key(block.encode() + b"\n", secret))
        except (ValueError, TypeError, UnsupportedAlgorithm):
            refuse("KEY_MISMATCH")
    return keys


def read_signing_key(pem: str, passphrase: str | None = None) -> bytes:
    """Return the public half of the one key in a governance or node key file."""
    match _private_keys(pem, passphrase):
        case [Ed25519PrivateKey() as key]:
            return key.public_key().public_bytes_raw()
    return refuse("KEY_MISMATCH")


def read_organization_key(pem: str, passphrase: str | None = None) -> tuple[XWing | Rsa, bytes]:
    """Return an organization's key that receives, and the public half of the one that signs."""
    kinds = (Ed25519PrivateKey, MLKEM768PrivateKey, X25519PrivateKey, RSAPrivateKey)
    keys = _private_keys(pem, passphrase)
    match sorted(keys, key=lambda key: [isinstance(key, kind) for kind in kinds], reverse=True):
        case [Ed25519PrivateKey() as signing, MLKEM768PrivateKey() as ml_kem, X25519PrivateKey() as x25519]:
            return XWing(ml_kem, x25519), signing.public_key().public_bytes_raw()
        case [Ed25519PrivateKey() as signing, RSAPrivateKey() as rsa] if 3072 <= rsa.key_size <= 16384:
            return Rsa(rsa), signing.public_key().public_bytes_raw()
    return refuse("KEY_MISMATCH")


def read_invitation(text: str) -> dict[str, Any]:
    """Return the InvitationFile in its armour."""
    label = "FOLKMOOT INVITATION"
    found = re.findall(
        f"-----BEGIN {label}-----\n((?:(?!-----).)*)-----END {label}-----", text.replace("\r\n", "\n"), re.DOTALL
    )
    if len(found) != 1:
        refuse("INVITATION_INVALID")
    try:
        data = base64.b64decode(re.sub(r"[ \t\r\n\v\f]", "", found[0]), validate=True)
    except ValueError:
        return refuse("INVITATION_INVALID")
    file = read("InvitationFile", data, "INVITATION_INVALID")
    return file if len(file["seed"]) == 32 else refuse("INVITATION_INVALID")
