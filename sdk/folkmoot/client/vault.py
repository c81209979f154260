"""The vault, for an organization's people: its keys at the server, under a secret that the server never sees.

What comes out is compared with the verified ledger before anybody gets it; what goes in is sealed here. A secret is parsed before
anything is done, so that a weak or mistyped one changes nothing.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment
from folkmoot.client.session import Session
from folkmoot.trust import (
    FolkmootError,
    KeyUnpublished,
    OrganizationKey,
    VaultSecret,
    VaultSecretWrong,
    fingerprint,
    key_id,
    open_vaulted_key,
    read_vaulted_head,
    rewrap_vaulted_key,
    seal_vaulted_key,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1.auth_service_pb2 import WhoAmIRequest
from folkmoot.v1.key_service_pb2 import GetVaultedKeyRequest, ListVaultedKeysRequest, PutVaultedKeyRequest
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead


@dataclass(frozen=True)
class VaultEntry:
    """A key in the vault, as its head names it; nothing of it is proven until it is opened."""

    generation: int
    key_fingerprint: str
    """That of the encryption key, as member lists show it."""
    put_at: datetime
    current: bool
    """Whether the ledger shows it as the organization's key now."""


class AsyncVault:
    """The own organization's keys in the vault. Secrets are those of `generate_secret`, or at least six words of Folkmoot's list.

    Raises VaultSecretWeak and VaultSecretWrong for a secret that is none or is mistyped, before anything is done with it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, secret: str) -> str:
        """Put the organization's key, as the ledger shows it now, into the vault; one that is there is replaced. Gives its fingerprint."""
        parsed = VaultSecret.parse(secret)
        own = await self._connection.own()
        key, organization_id = own.secret, own.member.organization_id
        generation = own.member.keys.generation if own.member.keys else 0
        await put(self._connection.session, key, organization_id=organization_id, generation=generation, secret=parsed)
        return key.fingerprint

    async def get(self, secret: str, *, former: bool = False) -> tuple[OrganizationKey, ...]:
        """Fetch and open the key that the ledger shows now; with `former`, then those that it showed before and the vault has.

        Raises KeyUnpublished where it shows none now, VaultSecretWrong, VaultDamaged, VaultOfAnotherOrganization; VAULTED_KEY_NOT_FOUND,
        as the server says.
        """
        parsed = VaultSecret.parse(secret)
        own = await self._organization()
        if own.current is None and not former:
            raise KeyUnpublished("The ledger shows no key of your organization now; former ones come with `former`.")
        wanted = [own.current] if own.current else []
        if former:
            listed = await heads(self._connection.session, own.organization_id)
            there = {head.encryption_key_id for head, _ in listed}
            wanted += [keys for keys in own.former if key_id(keys.encryption) in there]
        return tuple([await self._open(own.organization_id, keys, parsed) for keys in wanted])

    async def list(self) -> tuple[VaultEntry, ...]:
        """The organization's keys in the vault, newest first."""
        own = await self._organization()
        current = key_id(own.current.encryption) if own.current else b""
        return tuple(
            VaultEntry(
                generation=head.generation,
                key_fingerprint=fingerprint(head.encryption_key_id),
                put_at=put_at,
                current=head.encryption_key_id == current,
            )
            for head, put_at in await heads(self._connection.session, own.organization_id)
        )

    async def rewrap(self, old: str, new: str, *, before_putting: Callable[[], object] | None = None) -> int:
        """Put all of the organization's keys under another secret; gives how many. After a cut, the same call again does the rest.

        All are opened before the first is replaced: a wrong secret changes nothing. `before_putting` is called in between.
        """
        former, next_one = VaultSecret.parse(old), VaultSecret.parse(new)
        organization_id = (await self._organization()).organization_id
        session = self._connection.session
        listed = await heads(session, organization_id)
        blobs = [await fetch(session, organization_id, head.encryption_key_id) for head, _ in listed]
        done = [await asyncio.to_thread(_rewrapped, blob, organization_id, former, next_one) for blob in blobs]
        if before_putting:
            before_putting()
        for blob in done:
            await session.call(session.keys.PutVaultedKey, PutVaultedKeyRequest(key=blob))
        return len(done)

    async def _open(self, organization_id: str, keys: OrganizationKeys, secret: VaultSecret) -> OrganizationKey:
        blob = await fetch(self._connection.session, organization_id, key_id(keys.encryption))
        return await asyncio.to_thread(
            open_vaulted_key, blob, organization_id=organization_id, secret=secret, keys=keys
        )

    async def _organization(self) -> "_Shown":
        """The own organization by the ledger, also for a client whose key files are missing or former ones. Raises NOT_A_MEMBER."""
        state = await self._connection.state(newest=True)
        session = self._connection.session
        organization_id = (await session.call(session.auth.WhoAmI, WhoAmIRequest())).organization_id
        terms = state.key_terms.get(organization_id, ())
        if not terms:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_NOT_A_MEMBER,
                f"your organization has never been a member of {state.reference}, so nothing proves its keys there",
            )
        current = next((term.keys for term in terms if term.until is None), None)
        former = tuple(term.keys for term in reversed(terms) if term.until is not None)
        return _Shown(organization_id, current, former)


@dataclass(frozen=True)
class _Shown:
    """What the ledger shows of an organization's keys; former ones newest first."""

    organization_id: str
    current: OrganizationKeys | None
    former: tuple[OrganizationKeys, ...]


def generate_secret() -> str:
    """Make a vault secret: 256 random bits, with a checksum. Keep it; nobody can find it again."""
    return VaultSecret.generate(os.urandom).text


async def put(
    session: Session, key: OrganizationKey, *, organization_id: str, generation: int, secret: VaultSecret
) -> None:
    """Seal a key and put it into the vault; one that is there is replaced."""
    blob = await asyncio.to_thread(
        seal_vaulted_key,
        key,
        organization_id=organization_id,
        generation=generation,
        secret=secret,
        random=os.urandom,
    )
    await session.call(session.keys.PutVaultedKey, PutVaultedKeyRequest(key=blob))


async def put_if_missing(
    session: Session, key: OrganizationKey, *, organization_id: str, generation: int, secret: VaultSecret
) -> bool:
    """Put a key into the vault unless it is there, under whatever secret; tell whether it was put."""
    if any(head.encryption_key_id == key.encryption.key_id for head, _ in await heads(session, organization_id)):
        return False
    await put(session, key, organization_id=organization_id, generation=generation, secret=secret)
    return True


async def fetch(session: Session, organization_id: str, encryption_key_id: bytes) -> VaultedKey:
    """One of the organization's vaulted keys, unopened. Raises VAULTED_KEY_NOT_FOUND."""
    request = GetVaultedKeyRequest(organization_id=organization_id, encryption_key_id=encryption_key_id)
    return (await session.call(session.keys.GetVaultedKey, request)).key


async def heads(session: Session, organization_id: str) -> list[tuple[VaultedKeyHead, datetime]]:
    """The heads of the organization's vaulted keys, newest generation first, with when each was put there."""
    answer = await session.call(session.keys.ListVaultedKeys, ListVaultedKeysRequest(organization_id=organization_id))
    return [(read_vaulted_head(one.head, organization_id=organization_id), moment(one.put_at)) for one in answer.keys]


def _rewrapped(blob: VaultedKey, organization_id: str, old: VaultSecret, new: VaultSecret) -> VaultedKey:
    """The key under the new secret; the same blob if it is already. Raises VaultSecretWrong if neither secret opens it."""
    try:
        return rewrap_vaulted_key(blob, organization_id=organization_id, old=old, new=new, random=os.urandom)
    except VaultSecretWrong as wrong:
        try:
            open_vaulted_key(blob, organization_id=organization_id, secret=new)
        except VaultSecretWrong:
            key = fingerprint(read_vaulted_head(blob.head, organization_id=organization_id).encryption_key_id)
            raise VaultSecretWrong(f"{wrong.message} It is the key {key}; nothing was changed.") from wrong
        return blob
