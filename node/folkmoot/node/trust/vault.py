"""The vault, for a station: it fetches the organization's key where its file is missing, and puts it there where the vault lacks it.

Both only with the organization's vault secret, from `vault_secret_file` or the environment. A key that comes out is the one that the
verified ledger shows, or it is refused: which error it is tells a wrong secret from a damaged key and from another organization's.
"""

import asyncio
import os
from typing import TYPE_CHECKING

import structlog

from folkmoot.node.link.connection import Connection
from folkmoot.node.waiting import first_of
from folkmoot.transport import timeouts
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    KeyUnpublished,
    Member,
    OrganizationKey,
    TrustError,
    VaultedKeyNotFound,
    VaultSecret,
    digest,
    fingerprint,
    key_id,
    open_vaulted_key,
    read_vaulted_head,
    seal_vaulted_key,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.key_service_pb2 import (
    GetVaultedKeyRequest,
    ListVaultedKeysRequest,
    PutVaultedKeyRequest,
)
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.vault_pb2 import VaultedKey

if TYPE_CHECKING:
    from folkmoot.node.station import Station

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 24 * 3600.0
"""How often a station makes sure that the vault still has the key."""


class Vault:
    """The organization's vaulted keys, as the station with this secret uses them."""

    def __init__(self, connection: Connection, secret: VaultSecret) -> None:
        self._connection = connection
        self._secret = secret
        self._refused: dict[bytes, TrustError] = {}

    async def fetch(self, organization_id: str, keys: OrganizationKeys) -> OrganizationKey:
        """Return the organization's key that the ledger shows.

        Raises VaultedKeyNotFound, VaultSecretWrong, VaultDamaged, VaultOfAnotherOrganization, RemoteError. What was refused once is not
        fetched again until somebody has put another in its place.
        """
        head = await self._head(organization_id, key_id(keys.encryption))
        if head is None:
            shown = fingerprint(key_id(keys.encryption))
            raise VaultedKeyNotFound(f"the vault does not have the organization's key {shown}, which the ledger shows")
        if refused := self._refused.get(digest(head)):
            raise refused
        vaulted = await self._get(organization_id, key_id(keys.encryption))
        try:
            return await asyncio.to_thread(
                open_vaulted_key, vaulted, organization_id=organization_id, secret=self._secret, keys=keys
            )
        except TrustError as error:
            self._refused[digest(head)] = error
            raise

    async def offer(self, member: Member, key: OrganizationKey) -> bool:
        """Put the member's key into the vault if it is not there; tell whether it was put. Raises RemoteError, VaultDamaged."""
        if member.keys is None or await self._head(member.organization_id, key.encryption.key_id) is not None:
            return False
        vaulted = await asyncio.to_thread(
            seal_vaulted_key,
            key,
            organization_id=member.organization_id,
            generation=member.keys.generation,
            secret=self._secret,
            random=os.urandom,
        )
        try:
            await self._put(vaulted)
        except FolkmootError as error:
            if error.reason != ErrorReason.ERROR_REASON_REPEAT_DIFFERS:
                raise
            return False  # Another node was faster.
        return True

    async def _head(self, organization_id: str, encryption_key_id: bytes) -> bytes | None:
        connection, request = self._connection, ListVaultedKeysRequest(organization_id=organization_id)
        answer = await connection.call(
            lambda: connection.keys.ListVaultedKeys(
                request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
            )
        )
        for view in answer.keys:
            if read_vaulted_head(view.head, organization_id=organization_id).encryption_key_id == encryption_key_id:
                return view.head
        return None

    async def _get(self, organization_id: str, encryption_key_id: bytes) -> VaultedKey:
        connection = self._connection
        request = GetVaultedKeyRequest(organization_id=organization_id, encryption_key_id=encryption_key_id)
        answer = await connection.call(
            lambda: connection.keys.GetVaultedKey(
                request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
            )
        )
        return answer.key

    async def _put(self, vaulted: VaultedKey) -> None:
        connection, request = self._connection, PutVaultedKeyRequest(key=vaulted)
        await connection.call(
            lambda: connection.keys.PutVaultedKey(
                request, metadata=connection.metadata(), timeout=timeouts.CALL_SECONDS
            )
        )


async def fetch_key(station: "Station", vault: Vault, member: Member, missing: KeyMismatch) -> FolkmootError | None:
    """Take the key that the ledger shows for the member out of the vault, and write its file; say what is in the way if it can't be had.

    Key files that are there stay: `missing`, what is the matter with them, is told too.
    """
    if member.keys is None:
        return missing
    try:
        key = await vault.fetch(member.organization_id, member.keys)
        station.keyring = await asyncio.to_thread(station.keyring.add, key)
    except FolkmootError as error:
        if not station.keyring.keys:
            return error
        return KeyMismatch(
            f"{missing.message} From the vault it can't be had either: {error.reason_name}: {error.message}"
        )
    except OSError as error:
        return KeyMismatch(f"The key from the vault can't be written beside {station.keyring.path}: {error.strerror}")
    log.info("node.key_fetched", fingerprint=key.fingerprint)
    station.moved.notify()
    return None


async def keep_vaulted(station: "Station", vault: Vault) -> None:
    """Put the organization's key into the vault whenever the ledger shows one that is here and not there; look again every day, since
    a server that was restored from a backup has lost what came after it. Ends when it is cancelled."""
    offered = b""
    while True:
        moved = station.moved.changed()
        try:
            member = station.state.member(station.organization_id)
            key = station.keyring.for_member(member)
            if key.encryption.key_id != offered:
                if await vault.offer(member, key):
                    log.info("node.key_vaulted", fingerprint=key.fingerprint)
                offered = key.encryption.key_id
        except (KeyMismatch, KeyUnpublished):
            pass  # LedgerWatch tells it, and looks for the key.
        except FolkmootError as error:
            log.warning("node.key_not_vaulted", reason=error.reason_name, detail=str(error))
        await first_of(moved.wait(), timeout_seconds=LOOK_AGAIN_SECONDS)
        if not moved.is_set():
            offered = b""
