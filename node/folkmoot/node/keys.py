"""The station's keys: read from their files, and checked against the verified ledger before anything is done with them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import (
    KeyMismatch,
    OrganizationKey,
    SigningKey,
    State,
    dump_signing_key,
    fingerprint,
    key_id,
    load_organization_key,
    load_signing_key,
)

_Key = TypeVar("_Key")


def read_node_key(path: Path) -> SigningKey:
    """Read the node's key. Raises KeyMismatch naming the file."""
    return _read(path, load_signing_key, "run `folkmoot node join INVITATION`, which makes it")


def read_organization_key(path: Path) -> OrganizationKey:
    """Read the organization's key. Raises KeyMismatch naming the file."""
    return _read(path, load_organization_key, "copy it from your administrator, who made it with `folkmoot key create`")


def make_node_key(path: Path) -> SigningKey:
    """Make the node's key, readable by its owner alone; one that is there is used again, never overwritten."""
    if path.exists():
        return read_node_key(path)
    key = SigningKey.generate(os.urandom)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_secret(path, dump_signing_key(key))
    return key


def check_organization_key(key: OrganizationKey, state: State, organization_id: str) -> None:
    """Raise KeyMismatch unless the key in the file is the one that the ledger shows for the organization."""
    member = state.member(organization_id)
    for name, mine, shown in (
        ("encryption", key.encryption.public, member.keys.encryption),
        ("task-signing", key.task_signing.public, member.keys.task_signing),
    ):
        if not shown.public:
            raise KeyMismatch(
                f"{member.name} has not published its {name} key {fingerprint(key_id(mine))} in the ledger of {state.reference}: "
                "that takes an organization.publish_key entry, signed by the governance key"
            )
        if mine != shown:
            raise KeyMismatch(
                f"the {name} key in the file has the fingerprint {fingerprint(key_id(mine))}, the ledger of {state.reference} "
                f"shows {fingerprint(key_id(shown))} for {member.name}: put the key that the ledger shows into the file"
            )


def _read(path: Path, load: Callable[[bytes], _Key], hint: str) -> _Key:
    try:
        return load(path.read_bytes())
    except FileNotFoundError:
        raise KeyMismatch(f"{path} does not exist: {hint}") from None
    except OSError as error:
        raise KeyMismatch(f"{path} can't be read: {error.strerror}") from None
    except KeyMismatch as error:
        raise KeyMismatch(f"{path}: {error.message}") from None
