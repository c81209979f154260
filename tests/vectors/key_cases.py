"""keys.json: names of keys, keys that receive, wraps, key files and invitations; what is one, and what only looks like it."""

import base64
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from folkmoot.trust import (
    DecryptionKey,
    OrganizationKey,
    Reference,
    dump_invitation,
    dump_organization_key,
    dump_signing_key,
    fingerprint,
    fingerprint_words,
    key_id,
    load_organization_key,
    load_signing_key,
    sign,
    wrap,
)
from folkmoot.v1.keys_pb2 import InvitationFile, KeyKind, PublicKey
from folkmoot.v1.signed_pb2 import SignedKind
from tests.unit.trust.scene import GENESIS, seeded, signing_key, x_wing_key

FOLDER = Path(__file__).parent
PASSPHRASE = "correct-horse"
CONTENT_KEY, BINDING = hashlib.sha256(b"content key").digest(), hashlib.sha256(b"context").digest()
DER, SPKI = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo


def document() -> dict[str, Any]:
    """Return keys.json."""
    parts = (names(), receiving_keys(), wraps(), signing_key_files(), organization_key_files(), invitations())
    return {"wrapping_keys": wrapping_keys(), "cases": [case for part in parts for case in part]}


def accepted(what: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"what": what, "name": name, "verdict": "accepted", "reason": "", **fields}


def refused(what: str, name: str, reason: str, **fields: Any) -> dict[str, Any]:
    return {"what": what, "name": name, "verdict": "refused", "reason": reason, **fields}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def openssl_pem(name: str = "openssl.pem") -> str:
    """Return what openssl alone has made: an RSA, an X25519 and an Ed25519 block, or a protected Ed25519 block."""
    return FOLDER.joinpath(name).read_text()


@cache
def openssl_organization_key() -> OrganizationKey:
    """Return an organization key, RSA and Ed25519, that openssl has made."""
    rsa_block, _, ed25519_block = blocks(openssl_pem())
    return load_organization_key((rsa_block + ed25519_block).encode())


def blocks(pem: str) -> list[str]:
    end = "-----END PRIVATE KEY-----\n"
    return [block + end for block in pem.split(end)[:-1]]


# ---- names ---------------------------------------------------------------------------------------------------------


def names() -> Iterator[dict[str, Any]]:
    digests = {"zeros": bytes(32), "ones": b"\xff" * 32, "a digest": GENESIS}
    for name, digest in digests.items():
        text = fingerprint(digest)
        yield accepted("fingerprint", name, text=text, digest=digest.hex(), words=fingerprint_words(text))
    text = fingerprint(GENESIS)
    other_checksum = fingerprint(bytes(32))[-5:]
    for name, wrong in {
        "in capitals": text.upper(),
        "cut off": text[:-1],
        "one character more": text + "a",
        "one character mistyped": ("b" if text[0] == "a" else "a") + text[1:],
        "two characters exchanged": text[1] + text[0] + text[2:],
        "checksum of another one": text[:-5] + other_checksum,
        "with a character that base32 lacks": "1" + text[1:],
        "empty": "",
    }.items():
        yield refused("fingerprint", name, "MALFORMED", text=wrong)

    for name in ("lung", "Lung cancer 2.0", "x" * 63, "a"):
        reference = Reference(name, GENESIS)
        yield accepted("reference", name[:20], text=str(reference), collaboration=name, genesis=GENESIS.hex())
    for name, wrong in {
        "without a fingerprint": "lung",
        "with an empty fingerprint": "lung@",
        "without a name": f"@{text}",
        "with a mistyped fingerprint": f"lung@{other_checksum}{text[5:]}",
        "with a name that begins with a space": f" lung@{text}",
        "with a name that is too long": f"{'x' * 64}@{text}",
        "with a name of other letters": f"läng@{text}",
    }.items():
        yield refused("reference", name, "FINGERPRINT_MISSING", text=wrong)

    for kind in ("ED25519", "X_WING", "RSA"):
        public = PublicKey(kind=KeyKind.Value(f"KEY_KIND_{kind}"), public=b"same bytes")
        yield accepted("key id", f"of kind {kind}", kind=kind, public=b64(public.public), key_id=key_id(public).hex())


# ---- public keys ---------------------------------------------------------------------------------------------------


def receiving_keys() -> Iterator[dict[str, Any]]:
    x_wing, strong = x_wing_key("Beta").public.public, openssl_organization_key().encryption.public.public
    curve_identity, curve_order_8 = (
        bytes(32),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    )
    for name, kind, public in (
        ("X-Wing", "X_WING", x_wing),
        ("RSA of 3072 bits, made by openssl", "RSA", strong),
    ):
        yield accepted("receiving key", name, kind=kind, public=b64(public))
    library_form = serialization.load_der_public_key(strong)
    weak = rsa.generate_private_key(65537, 2048).public_key().public_bytes(DER, SPKI)
    for name, kind, public in (
        ("X-Wing, cut off", "X_WING", x_wing[:-1]),
        ("X-Wing and a byte", "X_WING", x_wing + b"\0"),
        ("X-Wing whose halves are exchanged", "X_WING", x_wing[1184:] + x_wing[:1184]),
        ("X-Wing with coefficients that are too large", "X_WING", b"\xff" * 1184 + x_wing[1184:]),
        ("X-Wing with the curve's identity", "X_WING", x_wing[:1184] + curve_identity),
        ("X-Wing with a point of small order", "X_WING", x_wing[:1184] + curve_order_8),
        ("ML-KEM alone", "X_WING", x_wing[:1184]),
        ("RSA of 2048 bits", "RSA", weak),
        ("RSA, without the algorithm's parameters", "RSA", without_null(strong)),
        ("RSA in PKCS#1 form", "RSA", library_form.public_bytes(DER, serialization.PublicFormat.PKCS1)),
        ("RSA and a byte", "RSA", strong + b"\0"),
        ("RSA said to be X-Wing", "X_WING", strong),
        ("X-Wing said to be RSA", "RSA", x_wing),
        ("Ed25519", "ED25519", signing_key("Beta").public.public),
    ):
        yield refused("receiving key", name, "MALFORMED", kind=kind, public=b64(public))


def without_null(spki: bytes) -> bytes:
    """Leave out the NULL of an RSA key's algorithm, which many parsers don't miss."""
    parameters = bytes.fromhex("300d06092a864886f70d0101010500")
    changed = spki.replace(parameters, bytes.fromhex("300b06092a864886f70d010101"))
    return changed[:2] + (len(changed) - 4).to_bytes(2, "big") + changed[4:]


def wrapping_keys() -> dict[str, str]:
    """Return the private keys that wraps are for, as organization keys in PEM."""
    keys: dict[str, DecryptionKey] = {
        "X-Wing": x_wing_key("Beta"),
        "another X-Wing": x_wing_key("Gamma"),
        "RSA": openssl_organization_key().encryption,
    }
    signing = signing_key("Beta")
    return {name: dump_organization_key(OrganizationKey(key, signing)).decode() for name, key in keys.items()}


def wraps() -> Iterator[dict[str, Any]]:
    for name, pem in wrapping_keys().items():
        public = load_organization_key(pem.encode()).encryption.public
        wrapped = wrap(public, CONTENT_KEY, BINDING)
        given = {"key": name, "wrapped": b64(wrapped), "binding": BINDING.hex()}
        yield accepted("wrap", name, **given, content_key=CONTENT_KEY.hex())
        if name == "another X-Wing":
            yield refused("wrap", "X-Wing, for another key", "ENVELOPE_REJECTED", **given | {"key": "X-Wing"})
            continue
        for changed_name, changed in (
            ("first byte altered", bytes([wrapped[0] ^ 1]) + wrapped[1:]),
            ("last byte altered", wrapped[:-1] + bytes([wrapped[-1] ^ 1])),
            ("cut off", wrapped[:-1]),
            ("and a byte", wrapped + b"\0"),
            ("empty", b""),
        ):
            fields = given | {"wrapped": b64(changed)}
            yield refused("wrap", f"{name}, {changed_name}", "ENVELOPE_REJECTED", **fields)
        fields = given | {"binding": bytes(32).hex()}
        yield refused("wrap", f"{name}, with another binding", "ENVELOPE_REJECTED", **fields)


# ---- files ---------------------------------------------------------------------------------------------------------


def signing_key_files() -> Iterator[dict[str, Any]]:
    what, key = "signing key file", signing_key("Alpha")
    ours, by_openssl = dump_signing_key(key).decode(), blocks(openssl_pem())[2]
    protected = openssl_pem("openssl-passphrase.pem")
    for name, pem, passphrase in (
        ("ours", ours, ""),
        ("ours, with a passphrase", dump_signing_key(key, PASSPHRASE.encode()).decode(), PASSPHRASE),
        ("made by openssl", by_openssl, ""),
        ("made by openssl, with a passphrase", protected, PASSPHRASE),
        ("with text around it", f"made by us\n\n{ours}\nthe end", ""),
        ("with line ends of Windows", ours.replace("\n", "\r\n"), ""),
    ):
        public = load_signing_key(pem.encode(), passphrase.encode()).public.public
        yield accepted(what, name, pem=pem, passphrase=passphrase, public=public.hex())
    for name, pem, passphrase in (
        ("empty", "", ""),
        ("two keys", ours + by_openssl, ""),
        ("X25519", blocks(openssl_pem())[1], ""),
        ("organization key", dump_organization_key(openssl_organization_key()).decode(), ""),
        ("wrong passphrase", protected, "battery-staple"),
        ("passphrase missing", protected, ""),
        ("damaged", ours.replace("MC4", "MC5"), ""),
        ("not PKCS#8", ours.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"), ""),
    ):
        yield refused(what, name, "KEY_MISMATCH", pem=pem, passphrase=passphrase)


def organization_key_files() -> Iterator[dict[str, Any]]:
    what, x_wing = "organization key file", OrganizationKey(x_wing_key("Alpha"), signing_key("Alpha"))
    ours = dump_organization_key(x_wing).decode()
    ml_kem, x25519, ed25519 = blocks(ours)
    rsa_block, openssl_x25519, openssl_ed25519 = blocks(openssl_pem())
    weak = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for name, pem, passphrase in (
        ("X-Wing", ours, ""),
        ("X-Wing, with a passphrase", dump_organization_key(x_wing, PASSPHRASE.encode()).decode(), PASSPHRASE),
        ("X-Wing, in another order", ed25519 + x25519 + ml_kem, ""),
        ("X-Wing, partly made by openssl", ml_kem + openssl_x25519 + openssl_ed25519, ""),
        ("RSA, made by openssl", rsa_block + openssl_ed25519, ""),
    ):
        loaded = load_organization_key(pem.encode(), passphrase.encode())
        yield accepted(
            what,
            name,
            pem=pem,
            passphrase=passphrase,
            kind=KeyKind.Name(loaded.encryption.public.kind).removeprefix("KEY_KIND_"),
            key_id=loaded.encryption.key_id.hex(),
            task_signing=loaded.task_signing.public.public.hex(),
        )
    for name, pem in (
        ("nothing that signs", ml_kem + x25519),
        ("nothing that receives", ed25519),
        ("ML-KEM without X25519", ml_kem + ed25519),
        ("X25519 without ML-KEM", x25519 + ed25519),
        ("X-Wing and RSA", ours + rsa_block),
        ("two keys that sign", ours + openssl_ed25519),
        ("RSA of 2048 bits", weak.decode() + ed25519),
        ("empty", ""),
    ):
        yield refused(what, name, "KEY_MISMATCH", pem=pem, passphrase="")


def invitations() -> Iterator[dict[str, Any]]:
    what, key = "invitation file", signing_key("Alpha")
    file = InvitationFile(
        invitation=sign(SignedKind.SIGNED_KIND_INVITATION, b"body", key=key, genesis=GENESIS),
        seed=seeded("one-time key")(32),
        collaboration=str(Reference("lung", GENESIS)),
    )
    ours = dump_invitation(file).decode()
    for name, text in (
        ("ours", ours),
        ("in a mail", f"Dear all,\r\n\r\n{ours.replace(chr(10), chr(13) + chr(10))}\r\nBye"),
    ):
        yield accepted(what, name, text=text, seed=file.seed.hex(), collaboration=file.collaboration)
    short = InvitationFile(invitation=file.invitation, seed=b"short", collaboration=file.collaboration)
    for name, text in (
        ("two", ours + ours),
        ("cut off", ours[:-40]),
        ("a character missing", ours[:60] + ours[61:]),
        ("with a character that base64 lacks", ours[:60] + "!" + ours[61:]),
        ("under another label", ours.replace("FOLKMOOT INVITATION", "PRIVATE KEY")),
        ("with a seed that is too short", dump_invitation(short).decode()),
        ("empty", ""),
    ):
        yield refused(what, name, "INVITATION_INVALID", text=text)
