"""Keys made elsewhere, taken in: what they are, and whether they look used for something else.

One file or several: an RSA key from a hardware module's export and an Ed25519 key from openssl make an organization key together. A key
that also opens a web server or a shell account is one that more people can get at than should; that is warned of, since only the owner
can know.
"""

import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from folkmoot.trust import (
    KeyMismatch,
    OrganizationKey,
    SigningKey,
    State,
    load_organization_key,
    load_signing_key,
)
from folkmoot.trust.keyfile import pem_blocks

_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
_PRIVATE = {b"PRIVATE KEY", b"ENCRYPTED PRIVATE KEY"}
_COMPANIONS = (".crt", ".cer", ".csr", ".p12", ".pfx", ".pub")
_READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyPurpose(StrEnum):
    """What an imported key is to be."""

    GOVERNANCE = "governance"
    ORGANIZATION = "organization"


@dataclass(frozen=True)
class ImportedKey:
    """A key from elsewhere."""

    key: SigningKey | OrganizationKey
    warnings: tuple[str, ...]
    """Why it looks used for something else."""

    @property
    def fingerprint(self) -> str:
        """What people compare."""
        return self.key.fingerprint


def read_imported(
    files: Sequence[Path], *, purpose: KeyPurpose | None = None, passphrase: str | None = None
) -> ImportedKey:
    """Read a key from these files; without a purpose, a lone Ed25519 key is a governance key. Raises KeyMismatch, naming them."""
    pems = {path: _read(path) for path in files}
    pem = b"\n".join(pems.values())
    try:
        key = _load(pem, purpose, passphrase.encode() if passphrase else None)
    except KeyMismatch as error:
        raise KeyMismatch(f"{' and '.join(map(str, files))}: {error.message}") from error
    warnings = [text for path, content in pems.items() for text in signs_of_other_use(path, content)]
    return ImportedKey(key, tuple(warnings))


def _load(pem: bytes, purpose: KeyPurpose | None, passphrase: bytes | None) -> SigningKey | OrganizationKey:
    _refuse_ssh(pem)
    if purpose is KeyPurpose.GOVERNANCE:
        return load_signing_key(_keys_in(pem), passphrase)
    if purpose is None and len(_private_labels(pem)) == 1:
        with suppress(KeyMismatch):
            return load_signing_key(_keys_in(pem), passphrase)
    return load_organization_key(_keys_in(pem), passphrase)


def signs_of_other_use(path: Path, pem: bytes) -> list[str]:
    """Say what in or around a file suggests that its key has another use already."""
    found = [
        f"{path} also contains a {label.decode()}: a key with a certificate belongs to a server or a person"
        for label in dict.fromkeys(_LABEL.findall(pem))
        if label not in _PRIVATE and b"PRIVATE KEY" not in label
    ]
    if b"Bag Attributes" in pem or b"friendlyName" in pem:
        found.append(f"{path} was exported from a certificate store")
    found += [
        f"{path.with_suffix(suffix)} lies beside it: the key seems to belong to that"
        for suffix in _COMPANIONS
        if path.with_suffix(suffix).exists()
    ]
    if path.stat().st_mode & _READABLE_BY_OTHERS:
        found.append(
            f"{path} can be read by others on this machine: remove it, or `chmod 600` it, and make sure who had it"
        )
    return found


def signs_in_ledger(state: State, key: SigningKey | OrganizationKey, organization_id: str) -> list[str]:
    """Say what a ledger knows a key for, where that is not what it is to be."""
    wanted = (
        {key.key_id: "governance"}
        if isinstance(key, SigningKey)
        else {key.encryption.key_id: "encryption", key.task_signing.key_id: "task signing"}
    )
    found = []
    for each, use in wanted.items():
        owner, known = state.used_keys.get(each, (organization_id, use))
        if (owner, known) != (organization_id, use):
            found.append(
                f"the ledger of {state.name} knows the key as {known} key of {owner}: it will not take it as {use} key"
            )
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyMismatch(f"The key file {path} can't be read: {error.strerror}.") from error


def _private_labels(pem: bytes) -> list[bytes]:
    return [label for label in _LABEL.findall(pem) if b"PRIVATE KEY" in label]


def _keys_in(pem: bytes) -> bytes:
    """Only the private keys: what else is in the file was warned of, and is not taken along."""
    return b"".join(block.whole for block in pem_blocks(pem) if block.label.endswith(b"PRIVATE KEY"))


def _refuse_ssh(pem: bytes) -> None:
    if b"OPENSSH PRIVATE KEY" in pem:
        raise KeyMismatch(
            "This is an SSH key, which opens machines: make a key for this purpose alone, `openssl genpkey -algorithm ed25519`."
        )
