"""The station's keys: read from their files, and checked against the verified ledger before anything is done with them."""

from pathlib import Path
from typing import TypeVar
from collections.abc import Callable

from folkmoot.trust import (
    FolkmootError,
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
from folkmoot.v1.keys_pb2 import PublicKey
