"""An organization's key files: made once, reused ever after, never overwritten.

`governance.pem` signs ledger entries and invitations; `organization.pem` opens payloads and signs tasks. Both have mode 0600. What a new
key takes the place of is kept beside (see folkmoot.transport.keyring); the files of one folder have one passphrase, or none.
"""

import glob
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from folkmoot.transport.keyring import Keyring, path_beside, read_organization_key
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    KeyMismatch,
    OrganizationKey,
    RsaKey,
    SigningKey,
    XWingKey,
    dump_organization_key,
    dump_signing_key,
    load_signing_key,
)

GOVERNANCE_FILE = "governance.pem"
ORGANIZATION_FILE = "organization.pem"
NODE_FILE = "node.pem"


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
    governance = create_signing_key(directory / GOVERNANCE_FILE, passphrase=passphrase, force=force)
    organization = create_organization_key(directory / ORGANIZATION_FILE, kind=kind, passphrase=passphrase, force=force)
    return governance, organization


def create_signing_key(path: Path, *, passphrase: str | None = None, force: bool = False) -> KeyFile:
    """Make a governance or node key, or reuse the one that is there; `force` makes a new one and keeps the old beside."""
    if path.exists() and not force:
        return KeyFile(path, read_signing_key(path, passphrase).fingerprint, created=False)
    return put_signing_key(path, SigningKey.generate(os.urandom), passphrase=passphrase)


def put_signing_key(path: Path, key: SigningKey, *, passphrase: str | None = None) -> KeyFile:
    """Write a governance or node key. Another one that is there is written beside before, so a crash in between loses neither."""
    pem = dump_signing_key(key, passphrase.encode() if passphrase else None)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        write_secret(path, pem)
        return KeyFile(path, key.fingerprint, created=True)
    former = read_signing_key(path, passphrase)
    if former.key_id == key.key_id:
        return KeyFile(path, key.fingerprint, created=False)
    beside = path_beside(path, former.fingerprint)
    if not beside.exists():
        write_secret(beside, path.read_bytes())
    elif read_signing_key(beside, passphrase).key_id != former.key_id:
        raise KeyMismatch(f"{beside} contains another key than its name says: move it elsewhere.")
    write_secret(path, pem, replace=True)
    return KeyFile(path, key.fingerprint, created=True, replaced=beside)


def create_organization_key(
    path: Path, *, kind: EncryptionKind = EncryptionKind.X_WING, passphrase: str | None = None, force: bool = False
) -> KeyFile:
    """Make an organization key, or reuse the one that is there; `force` makes a new one and keeps the old beside."""
    if path.exists() and not force:
        return KeyFile(path, read_organization_key(path, passphrase).fingerprint, created=False)
    return put_organization_key(path, generate_organization_key(kind), passphrase=passphrase)


def put_organization_key(path: Path, key: OrganizationKey, *, passphrase: str | None = None) -> KeyFile:
    """Write an organization key; another one that is there is kept beside."""
    former = read_organization_key(path, passphrase) if path.exists() else None
    if former is not None and former.key_ids == key.key_ids:
        return KeyFile(path, key.fingerprint, created=False)
    Keyring(path, passphrase=passphrase).make_current(key)
    replaced = path_beside(path, former.fingerprint) if former else None
    return KeyFile(path, key.fingerprint, created=True, replaced=replaced)


def generate_organization_key(kind: EncryptionKind = EncryptionKind.X_WING) -> OrganizationKey:
    """Make an organization key, in memory."""
    encryption = XWingKey.generate(os.urandom) if kind is EncryptionKind.X_WING else RsaKey.generate()
    return OrganizationKey(encryption, SigningKey.generate(os.urandom))


def read_signing_key(path: Path, passphrase: str | None = None) -> SigningKey:
    """Read a governance or node key file. Raises KeyMismatch, naming the file."""
    try:
        return load_signing_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except OSError as error:
        raise KeyMismatch(f"The key file {path} can't be read: {error.strerror}.") from error
    except KeyMismatch as error:
        raise KeyMismatch(f"{path}: {error.message}") from error


def export_for_node(key: OrganizationKey, path: Path, *, governance: Path, passphrase: str | None = None) -> None:
    """Write an organization key for a node's machine, never with the governance key, whose file is named for that.

    Raises KeyMismatch when the organization signs tasks with its governance key: then no node may have it. FileExistsError.
    """
    if governance.exists() and read_signing_key(governance, passphrase).key_id == key.task_signing.key_id:
        raise KeyMismatch(
            f"{governance} is also the key that signs tasks: a node must not have it. Make another organization key with "
            "`folkmoot key create --force`."
        )
    write_secret(path, dump_organization_key(key))


def is_encrypted(path: Path) -> bool:
    """Tell whether a key file, or one beside it, needs a passphrase."""
    files = [path, *path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}")]
    return any(b"ENCRYPTED PRIVATE KEY" in each.read_bytes() for each in files if each.is_file())
