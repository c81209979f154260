"""KeyService: ledgers, the keys that they prove, and the vault."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from folkmoot.server.ledgers import Ledgers
from folkmoot.server.vault import Vault
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.key_service_pb2_grpc import KeyServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class KeyService(KeyServiceServicer):
    """Orders and hands out entries, keeps vaulted keys; it holds none that it could use."""

    def __init__(self, ledgers: Ledgers, vault: Vault) -> None:
        self._ledgers = ledgers
        self._vault = vault

    async def GetLedger(self, request: keys.GetLedgerRequest, _rpc: Context) -> AsyncIterator[keys.GetLedgerResponse]:
        await self._ledgers.state_for_caller(request.genesis)
        async for batch in self._ledgers.entries(request.genesis, request.from_sequence):
            yield keys.GetLedgerResponse(entries=batch)

    async def WatchLedger(
        self, request: keys.WatchLedgerRequest, _rpc: Context
    ) -> AsyncIterator[keys.WatchLedgerResponse]:
        await self._ledgers.state_for_caller(request.genesis)
        async for batch in self._ledgers.watch(request.genesis, request.from_sequence):
            yield keys.WatchLedgerResponse(entries=batch)

    async def AppendLedgerEntry(
        self, request: keys.AppendLedgerEntryRequest, _rpc: Context
    ) -> keys.AppendLedgerEntryResponse:
        position = await self._ledgers.append(request.entry)
        return keys.AppendLedgerEntryResponse(position=position.message())

    async def ListOrganizationKeys(
        self, request: keys.ListOrganizationKeysRequest, _rpc: Context
    ) -> keys.ListOrganizationKeysResponse:
        state = await self._ledgers.state_for_caller(request.genesis)
        return keys.ListOrganizationKeysResponse(
            organizations=[
                keys.OrganizationKeysView(
                    organization_id=member.organization_id,
                    name=member.name,
                    key_claim=member.key_claim,
                    proven_by=member.key_entry.message(),
                )
                for member in sorted(state.members.values(), key=lambda member: member.name)
            ]
        )

    async def PutVaultedKey(self, request: keys.PutVaultedKeyRequest, _rpc: Context) -> keys.PutVaultedKeyResponse:
        await self._vault.put(request.key)
        return keys.PutVaultedKeyResponse()

    async def GetVaultedKey(self, request: keys.GetVaultedKeyRequest, _rpc: Context) -> keys.GetVaultedKeyResponse:
        return keys.GetVaultedKeyResponse(key=await self._vault.get(request.organization_id, request.encryption_key_id))

    async def ListVaultedKeys(
        self, request: keys.ListVaultedKeysRequest, _rpc: Context
    ) -> keys.ListVaultedKeysResponse:
        return keys.ListVaultedKeysResponse(keys=await self._vault.list(request.organization_id))
