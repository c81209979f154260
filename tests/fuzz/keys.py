"""Targets: names, public keys, wraps, key files and invitation files."""

import base64
import json

from folkmoot.trust import (
    Reference,
    dump_invitation,
    fingerprint_words,
    load_invitation,
    load_organization_key,
    load_signing_key,
    parse,
    parse_fingerprint,
    read_invitation,
    serialize,
    sign,
    verify_invitation,
    wrap,
)
from folkmoot.v1.keys_pb2 import InvitationFile, KeyKind, PublicKey
from folkmoot.v1.signed_pb2 import SignedKind
from tests.builders import NOW
from tests.fuzz.target import accepted, target, text
from tests.vectors import second_reader_keys as second
from tests.vectors.forge import base
from tests.vectors.keys_signed_envelope import FOLDER

CASES = json.loads(FOLDER.joinpath("keys.json").read_text())["cases"]
WRAPS = json.loads(FOLDER.joinpath("keys.json").read_text())["wrapping_keys"]
PASSPHRASE = b"correct-horse"
BINDING = bytes.fromhex(next(case["binding"] for case in CASES if case["what"] == "wrap"))
WORLD = base()
INVITATION = WORLD.invite("Alpha", "invited")


def wrapped_for(key: str) -> bytes:
    return base64.b64decode(next(case["wrapped"] for case in CASES if case.get("key") == key))


def receiving_key(kind: str) -> PublicKey:
    public = next(case["public"] for case in CASES if case["what"] == "receiving key" and case["kind"] == kind)
    return PublicKey(kind=KeyKind.Value(f"KEY_KIND_{kind}"), public=base64.b64decode(public))


def der_of(pem: bytes) -> bytes:
    """Return the first block of a file."""
    return base64.b64decode(b"".join(pem.split(b"-----")[2].split()))


def armoured(der: bytes, label: str = "PRIVATE KEY") -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode()


SIGNING_FILES = accepted(CASES, "signing key file", "pem")
ORGANIZATION_FILES = accepted(CASES, "organization key file", "pem")


@target("fingerprint", *accepted(CASES, "fingerprint", "text"), second=lambda data: second.read_fingerprint(text(data)))
def _fingerprint(data: bytes) -> object:
    return parse_fingerprint(text(data)), fingerprint_words(text(data))


@target("reference", *accepted(CASES, "reference", "text"), second=lambda data: second.read_reference(text(data)))
def _reference(data: bytes) -> object:
    return Reference.parse(text(data))


@target("public key", *[serialize(receiving_key(kind)) for kind in ("X_WING", "RSA")])
def _public_key(data: bytes) -> object:
    return wrap(parse(PublicKey, data), bytes(32), b"")


@target("RSA key", receiving_key("RSA").public, second=lambda data: second.check_receiving_key("RSA", data))
def _rsa_key(data: bytes) -> object:
    return wrap(PublicKey(kind=KeyKind.KEY_KIND_RSA, public=data), bytes(32), b"")


@target("X-Wing key", receiving_key("X_WING").public, second=lambda data: second.check_receiving_key("X_WING", data))
def _x_wing_key(data: bytes) -> object:
    return wrap(PublicKey(kind=KeyKind.KEY_KIND_X_WING, public=data), bytes(32), b"")


X_WING = load_organization_key(WRAPS["X-Wing"].encode()).encryption
RSA = load_organization_key(WRAPS["RSA"].encode()).encryption


@target("X-Wing wrap", wrapped_for("X-Wing"))
def _x_wing_wrap(data: bytes) -> object:
    return X_WING.unwrap(data, BINDING)


@target("RSA wrap", wrapped_for("RSA"))
def _rsa_wrap(data: bytes) -> object:
    return RSA.unwrap(data, BINDING)


@target("signing key file", *SIGNING_FILES)
def _signing_key_file(data: bytes) -> object:
    return load_signing_key(data, PASSPHRASE)


@target("organization key file", *ORGANIZATION_FILES[:-1])
def _organization_key_file(data: bytes) -> object:
    return load_organization_key(data, PASSPHRASE)


@target("private key", *[der_of(pem) for pem in SIGNING_FILES[:1]])
def _private_key(data: bytes) -> object:
    return load_signing_key(armoured(data), PASSPHRASE)


@target("protected private key", *[der_of(pem) for pem in SIGNING_FILES if pem.startswith(b"-----BEGIN ENC")])
def _protected_private_key(data: bytes) -> object:
    return load_signing_key(armoured(data, "ENCRYPTED PRIVATE KEY"), PASSPHRASE)


@target("invitation file", dump_invitation(INVITATION), second=lambda data: second.read_invitation(text(data)))
def _invitation_file(data: bytes) -> object:
    return load_invitation(data)


@target("invitation in its armour", serialize(INVITATION))
def _invitation(data: bytes) -> object:
    file = load_invitation(armoured(data, "FOLKMOOT INVITATION"))
    return read_invitation(file), verify_invitation(file.invitation, WORLD.state, now=NOW)


@target("signed invitation", INVITATION.invitation.body)
def _signed_invitation(data: bytes) -> object:
    key = WORLD["Alpha"].governance_key
    signed = sign(SignedKind.SIGNED_KIND_INVITATION, data, key=key, genesis=WORLD.genesis)
    file = InvitationFile(invitation=signed, seed=INVITATION.seed, collaboration=INVITATION.collaboration)
    return read_invitation(file), verify_invitation(file.invitation, WORLD.state, now=NOW)
