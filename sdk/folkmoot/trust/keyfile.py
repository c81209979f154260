"""Private keys as files: PEM with PKCS#8 blocks, which openssl writes and reads too; and invitations, armoured alike.

    governance.pem, node.pem   one Ed25519 block
    organization.pem           ML-KEM-768 and X25519, or RSA; and Ed25519: in any order, each once
    an invitation              one FOLKMOOT INVITATION block; secret, since it holds a one-time key

Here are the bytes only: whoever writes them sees to mode 0600. A passphrase is stretched before it protects anything (see
`encrypted_pem`); files that were written with fewer rounds open too. Keys that can't be used raise KeyMismatch, which says what to do.
"""

import base64
import binascii
import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from folkmoot.trust import encrypted_pem
from folkmoot.trust.encoding import parse, serialize
from folkmoot.trust.errors import InvitationInvalid, KeyMismatch, Malformed
from folkmoot.trust.keys import SEED_BYTES, DecryptionKey, RsaKey, SigningKey, XWingKey
from folkmoot.trust.organization import OrganizationKey
from folkmoot.v1.keys_pb2 import InvitationFile

PrivateKey = Ed25519PrivateKey | MLKEM768PrivateKey | X25519PrivateKey | RSAPrivateKey

_NAMES: dict[type[PrivateKey], str] = {
    Ed25519PrivateKey: "Ed25519",
    MLKEM768PrivateKey: "ML-KEM-768",
    X25519PrivateKey: "X25519",
    RSAPrivateKey: "RSA",
}
_BEGINNING = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n")
_DASHES = b"-----"
_LONGEST_BLOCK_BYTES = 16 * 1024  # RSA keys of 16,384 bits take 13 KiB
_PLAIN_LABEL, _ENCRYPTED_LABEL = b"PRIVATE KEY", encrypted_pem.LABEL.encode()
_OTHER_FORM = (
    "not in PKCS#8 form (for ML-KEM: with its seed only, `openssl pkey -provparam ml-kem.output_formats=seed-only`)"
)
_INVITATION_LABEL = b"FOLKMOOT INVITATION"
_LINE_LENGTH = 64


def dump_signing_key(key: SigningKey, passphrase: bytes | None = None) -> bytes:
    """Return a governance or node key as PEM."""
    return _dump(Ed25519PrivateKey.from_private_bytes(key.seed), passphrase)


def load_signing_key(pem: bytes, passphrase: bytes | None = None) -> SigningKey:
    """Return the one Ed25519 key in a file."""
    keys = _load(pem, passphrase)
    signing = keys.pop("Ed25519", None)
    if keys or not isinstance(signing, Ed25519PrivateKey):
        raise KeyMismatch("The file must contain one Ed25519 private key, and nothing else.")
    return SigningKey(signing)


def dump_organization_key(key: OrganizationKey, passphrase: bytes | None = None) -> bytes:
    """Return an organization's encryption and task-signing key as PEM."""
    return b"".join(
        [
            *(_dump(part, passphrase) for part in _encryption_parts(key.encryption)),
            dump_signing_key(key.task_signing, passphrase),
        ]
    )


def load_organization_key(pem: bytes, passphrase: bytes | None = None) -> OrganizationKey:
    """Return the organization key in a file: one Ed25519 key, and one that receives."""
    keys = _load(pem, passphrase)
    match keys:
        case {
            "ML-KEM-768": MLKEM768PrivateKey() as ml_kem,
            "X25519": X25519PrivateKey() as x25519,
            "Ed25519": Ed25519PrivateKey() as signing,
            **rest,
        } if not rest:
            return OrganizationKey(XWingKey(ml_kem, x25519), SigningKey(signing))
        case {"RSA": RSAPrivateKey() as rsa, "Ed25519": Ed25519PrivateKey() as signing, **rest} if not rest:
            return OrganizationKey(_rsa_key(rsa), SigningKey(signing))
    raise KeyMismatch(
        f"The file contains {', '.join(sorted(keys))}; an organization key is Ed25519 with either ML-KEM-768 and X25519, or RSA."
    )


def _encryption_parts(key: DecryptionKey) -> tuple[PrivateKey, ...]:
    match key:
        case XWingKey():
            return key.ml_kem, key.x25519
        case RsaKey():
            return (key.private,)
    raise KeyMismatch("Only X-Wing and RSA keys are kept in files.")


def _rsa_key(private: RSAPrivateKey) -> RsaKey:
    try:
        return RsaKey(private)
    except Malformed as error:
        raise KeyMismatch(error.message) from error


def _dump(key: PrivateKey, passphrase: bytes | None) -> bytes:
    encoding = serialization.Encoding.DER if passphrase else serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return encrypted_pem.encrypt_private_key(private, passphrase) if passphrase else private


def _load(pem: bytes, passphrase: bytes | None) -> dict[str, PrivateKey]:
    keys: dict[str, PrivateKey] = {}
    for label, _, block in pem_blocks(pem):
        if label not in (_PLAIN_LABEL, _ENCRYPTED_LABEL):
            raise KeyMismatch(
                f"A {label.decode()} is not read; make a PKCS#8 file of it with `openssl pkcs8 -topk8 -in FILE -nocrypt`."
            )
        if label == _ENCRYPTED_LABEL and not passphrase:
            raise KeyMismatch("The key is protected by a passphrase, and none was given.")
        key = _load_block(block, passphrase if label == _ENCRYPTED_LABEL else None)
        name = next(name for kind, name in _NAMES.items() if isinstance(key, kind))
        if name in keys:
            raise KeyMismatch(f"There are two {name} keys in the file; keep the one that the ledger shows.")
        keys[name] = key
    if not keys:
        raise KeyMismatch("There is no private key in the file.")
    return keys


def _load_block(block: bytes, passphrase: bytes | None) -> PrivateKey:
    try:
        _check_work(block)
        key = serialization.load_pem_private_key(block, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:
        wrong = "the passphrase is wrong, or " if passphrase else ""
        raise KeyMismatch(f"A private key can't be read: {wrong}it is damaged, or {_OTHER_FORM}.") from error
    if not isinstance(key, PrivateKey):
        raise KeyMismatch(f"A private key is none of {', '.join(_NAMES.values())}.")
    return key


def _check_work(block: bytes) -> None:
    """Refuse a block that would keep whoever opens it busy for minutes or years: no key of ours is like that."""
    if len(block) > _LONGEST_BLOCK_BYTES:
        raise KeyMismatch(f"A private key of {len(block)} bytes is longer than any that is used here.")
    base64_text = b"".join(next(pem_blocks(block)).text.split())
    work = encrypted_pem.work(base64.b64decode(base64_text, validate=True))
    if work > encrypted_pem.MOST_WORK:
        raise KeyMismatch(
            f"The key's passphrase is stretched by {work} rounds; at most {encrypted_pem.MOST_WORK} are done. Protect it "
            "anew: `openssl pkcs8 -topk8 -iter 600000`."
        )


class PemBlock(NamedTuple):
    """A PEM block: its label, what stands between its lines, and all of it."""

    label: bytes
    text: bytes
    whole: bytes


def pem_blocks(pem: bytes) -> Iterator[PemBlock]:
    """Find the blocks of a file. One ends at the next dashes, so that each byte is looked at once; what does not end so is skipped."""
    position = 0
    while beginning := _BEGINNING.search(pem, position):
        label, position = beginning[1], pem.find(_DASHES, beginning.end())
        if position < 0:
            return
        ending = b"-----END " + label + _DASHES
        if pem.startswith(ending, position):
            text, end = pem[beginning.end() : position], position + len(ending)
            yield PemBlock(label, text, pem[beginning.start() : end] + b"\n")
            position = end


# ---- invitations ---------------------------------------------------------------------------------------------------


def dump_invitation(invitation: InvitationFile) -> bytes:
    """Return what `folkmoot node invite` writes."""
    lines = textwrap.wrap(base64.b64encode(serialize(invitation)).decode(), _LINE_LENGTH)
    label = _INVITATION_LABEL.decode()
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def load_invitation(pem: bytes) -> InvitationFile:
    """Read what `folkmoot node join` is given; raise InvitationInvalid. Nothing in it is verified yet."""
    found = [block for block in pem_blocks(pem) if block.label == _INVITATION_LABEL]
    if len(found) != 1:
        raise InvitationInvalid("The file does not contain one invitation.")
    try:
        invitation = parse(InvitationFile, base64.b64decode(b"".join(found[0].text.split()), validate=True))
    except (binascii.Error, Malformed) as error:
        raise InvitationInvalid("The invitation is damaged.") from error
    if len(invitation.seed) != SEED_BYTES:
        raise InvitationInvalid("The invitation's one-time key is damaged.")
    return invitation
