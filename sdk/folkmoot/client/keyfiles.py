"""An organization's key files: made once, reused ever after, never overwritten.

`governance.pem` signs ledger entries and invitations; `organization.pem` opens payloads and signs tasks. Both have mode 0600.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    DecryptionKey,
    KeyMismatch,
    OrganizationKey,
    RsaKey,
    SigningKey,
    XWingKey,
    dump_organization_key,
    dump_signing_key,
    fingerprint,
    load_organization_key,
    load_signing_key,
)

GOVERNANCE_FILE = "governance.pem"
ORGANIZATION_FILE = "organization.pem"


class EncryptionKind(StrEnum):
    """Kinds of encryption keys."""

    X_WING = "x-wing"
    RSA = "rsa"


@dataclass(frozen=True)
class KeyFile:
    """A key file, described."""

    path: Path
    fingerprint: str
    created: bool
    """Whether it was made now."""
    replaced: Path | None = None
    """Where the key that was there before is kept."""


def create_key_files(
    directory: Path,
    *,
    kind: EncryptionKind = EncryptionKind.X_WING,
    passphrase: str | None = None,
    force: bool = False,
) -> tuple[KeyFile, KeyFile]:
    """Make governance and organization key, or reuse those that are there; `force` makes new ones and keeps the old beside.

    Raises KeyMismatch for a file that is there and can't be read.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = passphrase.encode() if passphrase else None
    governance, organization = directory / GOVERNANCE_FILE, directory / ORGANIZATION_FILE
    if not force and governance.exists():
        first = KeyFile(governance, read_governance_key(governance, passphrase).fingerprint, created=False)
    else:
        key = SigningKey.generate(os.urandom)
        first = _write(governance, dump_signing_key(key, secret), key.fingerprint)
    if not force and organization.exists():
        second = KeyFile(
            organization, organization_fingerprint(read_organization_key(organization, passphrase)), created=False
        )
    else:
        encryption: DecryptionKey = (
            XWingKey.generate(os.urandom) if kind is EncryptionKind.X_WING else RsaKey.generate()
        )
        own = OrganizationKey(encryption, SigningKey.generate(os.urandom))
        second = _write(organization, dump_organization_key(own, secret), organization_fingerprint(own))
    return first, second


def organization_fingerprint(key: OrganizationKey) -> str:
    """The fingerprint that member lists show: that of the encryption key."""
    return fingerprint(key.encryption.key_id)


def read_organization_key(path: Path, passphrase: str | None = None) -> OrganizationKey:
    """Read an organization's key file. Raises KeyMismatch, naming the file."""
    return load_organization_key(*_read(path, passphrase))


def read_governance_key(path: Path, passphrase: str | None = None) -> SigningKey:
    """Read a governance key file. Raises KeyMismatch, naming the file."""
    return load_signing_key(*_read(path, passphrase))


def _read(path: Path, passphrase: str | None) -> tuple[bytes, bytes | None]:
    try:
        return path.read_bytes(), passphrase.encode() if passphrase else None
    except OSError as error:
        raise KeyMismatch(f"The key file {path} can't be read: {error.strerror}") from error


def _write(path: Path, pem: bytes, text: str) -> KeyFile:
    """Write a new key; what is there under that name moves aside first. The file is never readable by others."""
    replaced = None
    if path.exists():
        replaced = path.with_name(f"{path.stem}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}.pem")
        path.rename(replaced)
    write_secret(path, pem)
    return KeyFile(path, text, created=True, replaced=replaced)
