"""The station's keys: read from their files, and found again when the ledger shows others.

The node's key is made here and never leaves the machine. The organization's keys are a keyring: the current one and, beside it, former
and coming ones; whatever was sealed to any of them is opened.
"""

import os
from contextlib import suppress
from pathlib import Path

from folkmoot.node.config import CollaborationConfig
from folkmoot.node.trust.admission import require_not_ended
from folkmoot.transport import Keyring, Replica
from folkmoot.transport.secret_files import write_secret
from folkmoot.transport.vault_secret import VAULT_SECRET_VARIABLE
from folkmoot.trust import (
    FolkmootError,
    Inspected,
    KeyMismatch,
    SigningKey,
    State,
    dump_signing_key,
    fingerprint,
    key_id,
    load_signing_key,
)
from folkmoot.v1.keys_pb2 import OrganizationKeys

PASSPHRASE = "FOLKMOOT_PASSPHRASE"  # noqa: S105 - a name, not a passphrase
"""Environment variable with the passphrase of the organization's key files, if they have one."""


class KeyAwaited(KeyMismatch):
    """Something is sealed to `keys` of the organization, which are not here: they may come, by file or from the vault."""

    def __init__(self, keys: OrganizationKeys) -> None:
        wanted = fingerprint(key_id(keys.encryption))
        super().__init__(
            f"it is sealed to the organization's key {wanted}, which is not here yet: put its file beside the "
            "organization key's, or let the node fetch it from the vault"
        )
        self.keys = keys


def load_keyring(path: Path, *, may_be_empty: bool = False) -> Keyring:
    """Read the organization's keys. Raises KeyMismatch naming the file; one that is missing may be empty, if it can be filled."""
    passphrase = os.environ.get(PASSPHRASE)
    try:
        return Keyring.load(path, passphrase)
    except KeyMismatch as error:
        if path.exists():
            raise
        if may_be_empty:
            return Keyring(path, passphrase=passphrase)
        raise KeyMismatch(
            f"{error.message} With the organization's vault secret the node fetches it by itself: set vault_secret_file in node.toml, "
            f"or {VAULT_SECRET_VARIABLE}."
        ) from None


def awaited_key(inspected: Inspected, state: State, organization_id: str) -> KeyAwaited | None:
    """Say which of the organization's keys an envelope is sealed to; None if it is none that the ledger ever showed as its own."""
    wraps = {wrap.key_id for wrap in inspected.header.wraps}
    for term in state.key_terms.get(organization_id, ()):
        if key_id(term.keys.encryption) in wraps:
            return KeyAwaited(term.keys)
    return None


def read_node_key(path: Path) -> SigningKey:
    """Read the node's key. Raises KeyMismatch naming the file."""
    try:
        return load_signing_key(path.read_bytes())
    except FileNotFoundError:
        raise KeyMismatch(f"{path} does not exist: run `folkmoot node join INVITATION`, which makes it") from None
    except OSError as error:
        raise KeyMismatch(f"{path} can't be read: {error.strerror}") from None
    except KeyMismatch as error:
        raise KeyMismatch(f"{path}: {error.message}") from None


def without_right_to_work(block: CollaborationConfig, replica: Replica) -> FolkmootError | None:
    """Say what of admission or keys is missing, by the files and the copy of the ledger that are here; None if nothing is."""
    try:
        state, node_id = replica.verified, read_node_key(block.node_key).fingerprint
        require_not_ended(replica, node_id)
        member = state.members[state.node(node_id).organization_id]
        load_keyring(block.organization_key, may_be_empty=True).for_member(member)
    except FolkmootError as error:
        return error
    return None


def make_node_key(path: Path) -> SigningKey:
    """Make the node's key, readable by its owner alone; one that is there is used again, never overwritten."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        write_secret(path, dump_signing_key(SigningKey.generate(os.urandom)))
    return read_node_key(path)
