"""The vault: organizations' keys, each under a secret that this server never sees, handed out to nobody but the organization itself.

Users whose account is bound to the organization put and replace keys; the organization's admitted nodes fetch them, and add the one
that their ledger shows where it is missing. A node can neither replace a key nor fill the vault with others: who steals one node must
not keep the next one out. What is taken in is checked as far as that goes without the secret, so that accidents show at once.
"""

from typing import Any

from google.protobuf.message import DecodeError
from sqlalchemy import Connection, Row, Select, func, insert, select, update

from folkmoot.server.audit import events
from folkmoot.server.context import Caller, caller
from folkmoot.server.core import Core
from folkmoot.server.store import tables
from folkmoot.trust import (
    FolkmootError,
    KeyMismatch,
    VaultDamaged,
    VaultedKeyNotFound,
    VaultOfAnotherOrganization,
    fingerprint,
    key_id,
    read_vaulted_key,
    serialize,
    timestamp,
)
from folkmoot.v1 import errors_pb2
from folkmoot.v1 import options_pb2 as options
from folkmoot.v1.key_service_pb2 import VaultedKeyView
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead

MOST_KEYS = 20
"""Keys of one organization."""

_TABLE = tables.vaulted_keys


class Vault:
    """The vaulted keys of this server's organizations."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def put(self, vaulted: VaultedKey) -> None:
        """Take a key of the caller's organization; the same bytes again change nothing.

        Raises VaultOfAnotherOrganization, VaultDamaged, TOO_MANY; for nodes also REPEAT_DIFFERS, and KeyMismatch for a key that the
        ledger does not show.
        """
        who, now = caller(), self._core.clock()
        head = read_vaulted_key(vaulted, organization_id=_own_organization(who))
        may_replace = who.kind == options.CALLER_USER
        if not may_replace:
            await self._check_shown(who, head)
        row: dict[str, Any] = {
            "organization_id": head.organization_id,
            "encryption_key_id": head.encryption_key_id,
            "generation": head.generation,
            "head": vaulted.head,
            "vaulted_key": serialize(vaulted),
            "put_at": now,
        }
        record = events.prepare(intent="vault.put", data=_told(head), now=now)

        def operation(connection: Connection) -> None:
            if _store(connection, row, may_replace=may_replace):
                record(connection)

        await self._core.store.write(operation)

    async def get(self, organization_id: str, encryption_key_id: bytes) -> VaultedKey:
        """Hand out a key of the caller's organization; without an id that of the newest generation. It is recorded.

        Raises VaultOfAnotherOrganization, VaultedKeyNotFound.
        """
        _check_own(caller(), organization_id)
        query = _of(organization_id, _TABLE)
        if encryption_key_id:
            query = query.where(_TABLE.c.encryption_key_id == encryption_key_id)
        row = await self._core.store.read(lambda connection: connection.execute(query.limit(1)).one_or_none())
        if row is None:
            wanted = f"no key {fingerprint(encryption_key_id)}" if encryption_key_id else "no key"
            raise VaultedKeyNotFound(f"The vault has {wanted} of your organization {organization_id}")
        try:
            vaulted = VaultedKey.FromString(row.vaulted_key)
        except DecodeError as error:
            raise VaultDamaged("What the server has stored is no vaulted key any more") from error
        await self._core.store.write(events.prepare(intent="vault.get", data=_told(row), now=self._core.clock()))
        return vaulted

    async def list(self, organization_id: str) -> list[VaultedKeyView]:
        """Return what there is of the caller's organization, newest generation first. Raises VaultOfAnotherOrganization."""
        _check_own(caller(), organization_id)
        query = _of(organization_id, _TABLE.c.head, _TABLE.c.put_at)
        rows = await self._core.store.read(lambda connection: connection.execute(query).all())
        return [VaultedKeyView(head=row.head, put_at=timestamp(row.put_at)) for row in rows]

    async def _check_shown(self, who: Caller, head: VaultedKeyHead) -> None:
        member = (await self._core.ledgers.state(who.genesis)).member(who.organization_id)
        shown = member.keys and (key_id(member.keys.encryption), key_id(member.keys.task_signing))
        if shown != (head.encryption_key_id, head.task_signing_key_id):
            raise KeyMismatch(
                f"A node adds the key that the ledger shows for {member.name}, and no other: "
                f"{fingerprint(head.encryption_key_id)} is not it"
            )


def _own_organization(who: Caller) -> str:
    if not who.organization_id:
        raise VaultOfAnotherOrganization(
            "Your account is bound to no organization's address yet: found a collaboration, or ask to join one"
        )
    return who.organization_id


def _check_own(who: Caller, organization_id: str) -> None:
    if _own_organization(who) != organization_id:
        raise VaultOfAnotherOrganization(f"You belong to {who.organization_id}, not to {organization_id}")


def _told(head: VaultedKeyHead | Row[Any]) -> dict[str, object]:
    """Return what the audit trail says of a key, by its head or its row."""
    return {
        "organization_id": head.organization_id,
        "generation": head.generation,
        "encryption_key_id": head.encryption_key_id.hex(),
    }


# ---- rows ----------------------------------------------------------------------------------------------------------


def _of(organization_id: str, *columns: Any) -> Select[Any]:
    newest_first = (_TABLE.c.generation.desc(), _TABLE.c.put_at.desc())
    return select(*columns).where(_TABLE.c.organization_id == organization_id).order_by(*newest_first)


def _store(connection: Connection, row: dict[str, Any], *, may_replace: bool) -> bool:
    """Insert or replace a key; return whether anything changed."""
    own = _TABLE.c.organization_id == row["organization_id"]
    same = own & (_TABLE.c.encryption_key_id == row["encryption_key_id"])
    known = connection.execute(select(_TABLE.c.vaulted_key).where(same)).scalar()
    if known == row["vaulted_key"]:
        return False
    if known is not None:
        if not may_replace:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_REPEAT_DIFFERS,
                "The vault has this key, and only a user of your organization replaces one",
            )
        connection.execute(update(_TABLE).where(same).values(**row))
        return True
    if connection.execute(select(func.count()).select_from(_TABLE).where(own)).scalar_one() >= MOST_KEYS:
        raise FolkmootError(
            errors_pb2.ERROR_REASON_TOO_MANY,
            f"The vault has {MOST_KEYS} keys of your organization, and takes no more: keep older keys as files",
        )
    connection.execute(insert(_TABLE).values(**row))
    return True
