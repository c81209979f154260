"""An organization's keys as files: the current one, and beside it all that it had before or will have next.

    organization.pem                the key that is used
    organization.<12 letters>.pem   former keys, and one that is coming; named after their fingerprints

Whoever holds the files opens everything that was ever sealed to them, and signs with the key that the ledger shows now: after a
rotation nothing has to be renamed. Keys are only ever added here. A file beside that can't be read is named in `unread`, in the log
and in the message about a key that is missing, since it may be the one that is sought.
"""

import glob
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    DecryptionKey,
    KeyMismatch,
    KeyUnpublished,
    Member,
    OrganizationKey,
    dump_organization_key,
    fingerprint,
    key_id,
    load_organization_key,
)
from folkmoot.v1.keys_pb2 import OrganizationKeys

log = logging.getLogger("folkmoot.keys")

_NAME_LETTERS = 12


@dataclass(frozen=True)
class UnreadFile:
    """A file beside the key that could not be read, and why, naming it."""

    path: Path
    reason: str


@dataclass(frozen=True)
class Keyring:
    """The keys of one organization; `Keyring(path)` is one without keys, to which they can be added."""

    path: Path
    keys: tuple[OrganizationKey, ...] = ()
    """That of `path` first."""
    unread: tuple[UnreadFile, ...] = ()
    passphrase: str | None = field(default=None, repr=False)

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> Self:
        """Read the file and those beside it. Raises KeyMismatch when it can't be read itself, or there is none at all."""
        found: dict[tuple[bytes, bytes], OrganizationKey] = {}
        unread: list[UnreadFile] = []
        # The file itself comes first: whoever replaces it has written its former key beside it before.
        for each in (path, *_beside(path)):
            try:
                key = read_organization_key(each, passphrase)
            except KeyMismatch as error:
                if each == path and path.exists():
                    raise
                if each != path:
                    unread.append(UnreadFile(each, error.message))
                    log.warning("A file beside the organization's key is not used: %s", error.message)
            else:
                found.setdefault(key.key_ids, key)
        if not found:
            raise KeyMismatch(
                f"The key file {path} does not exist: copy it from your administrator, who made it with `folkmoot key create`, "
                f"or fetch the key with `folkmoot key vault get`.{_named(unread)}"
            )
        return cls(path, tuple(found.values()), tuple(unread), passphrase)

    def find(self, keys: OrganizationKeys | None) -> OrganizationKey | None:
        """Return the private halves of these keys, if there are any and they are here."""
        if keys is None:
            return None
        wanted = (key_id(keys.encryption), key_id(keys.task_signing))
        return next((key for key in self.keys if key.key_ids == wanted), None)

    def for_member(self, member: Member) -> OrganizationKey:
        """Return the key that the ledger shows for the member now: the one to sign with.

        Raises KeyUnpublished when it shows none, KeyMismatch when it shows one that is not here; both say what there is, and the
        ways out. Nothing is ever changed by it.
        """
        ours = ", ".join(key.fingerprint for key in self.keys) or "none"
        metadata = {"organization": member.name, "path": str(self.path), "given": ours}
        if member.keys is None:
            raise KeyUnpublished(
                f"{member.name} has no key in the ledger. The key in {self.path} is {ours}: publish it with `folkmoot key publish`, "
                "or, if it was revoked, make a new one first with `folkmoot key create --force`.",
                metadata=metadata,
            )
        if (key := self.find(member.keys)) is not None:
            return key
        shown = fingerprint(key_id(member.keys.encryption))
        raise KeyMismatch(
            f"The key in {self.path} is not the one that the ledger shows for {member.name}. Given: {ours}. Ledger: {shown}. "
            f"Put the file of the ledger's key beside it, as {self.path_beside(shown).name}, or fetch it with `folkmoot key vault get`; "
            "or, with the governance key, make yours the organization's with `folkmoot key rotate --import FILE`. "
            f"Nothing was changed.{_named(self.unread)}",
            metadata=metadata | {"ledger": shown},
        )

    def decryption_keys(self) -> Mapping[bytes, DecryptionKey]:
        """Return all keys that open, by key id: what was sealed before a rotation stays readable."""
        return {key.encryption.key_id: key.encryption for key in self.keys}

    def path_beside(self, key_fingerprint: str) -> Path:
        """Return where a key lies that is not the current file's."""
        return path_beside(self.path, key_fingerprint)

    def add(self, key: OrganizationKey) -> Self:
        """Write a key beside the current one, or as the current one where there is none; one that is here already stays."""
        if any(own.key_ids == key.key_ids for own in self.keys):
            return self
        self._write(self.path_beside(key.fingerprint) if self.path.exists() else self.path, key)
        return replace(self, keys=(*self.keys, key))

    def make_current(self, key: OrganizationKey) -> Self:
        """Make a key the one in `path`. The one that is there is written beside before, so a crash in between loses neither."""
        if not self.path.exists():
            return self.add(key)
        current = read_organization_key(self.path, self.passphrase)
        if current.key_ids != key.key_ids:
            self._write(self.path_beside(current.fingerprint), current)
            write_secret(self.path, self._pem(key), replace=True)
        rest = {each.key_ids: each for each in (key, current, *self.keys)}
        return replace(self, keys=tuple(rest.values()))

    def _write(self, path: Path, key: OrganizationKey) -> None:
        if path.exists():
            if read_organization_key(path, self.passphrase).key_ids != key.key_ids:
                raise KeyMismatch(f"{path} contains another key than its name says: move it elsewhere.")
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(path, self._pem(key))

    def _pem(self, key: OrganizationKey) -> bytes:
        return dump_organization_key(key, self.passphrase.encode() if self.passphrase else None)


def path_beside(path: Path, key_fingerprint: str) -> Path:
    """Return where a key lies that is not the one of `path`."""
    return path.with_name(f"{path.stem}.{key_fingerprint[:_NAME_LETTERS]}{path.suffix}")


def read_organization_key(path: Path, passphrase: str | None = None) -> OrganizationKey:
    """Read one organization key file. Raises KeyMismatch, naming the file."""
    try:
        return load_organization_key(path.read_bytes(), passphrase.encode() if passphrase else None)
    except OSError as error:
        raise KeyMismatch(f"The key file {path} can't be read: {error.strerror}.") from error
    except KeyMismatch as error:
        raise KeyMismatch(f"{path}: {error.message}") from error


def _beside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{glob.escape(path.stem)}.*{glob.escape(path.suffix)}"))


def _named(unread: list[UnreadFile] | tuple[UnreadFile, ...]) -> str:
    return f" Files that could not be read: {'; '.join(each.reason for each in unread)}" if unread else ""
