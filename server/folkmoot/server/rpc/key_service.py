"""KeyService: ledgers, the keys that they prove, and the vault."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from folkmoot.server.collaborations import heads
from folkmoot.server.collaborations.vault import Vault
from folkmoot.server.core import Core
from folkmoot.server.people.possession import Binding, Possession
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.key_service_pb2_grpc import KeyServiceServicer
from folkmoot.v1.signed_pb2 import Signed

Context = grpc.aio.ServicerContext[Any, Any]


class KeyService(KeyServiceServicer):
    """Orders and hands out entries, keeps vaulted keys; it holds none that it could use."""

    def __init__(self, core: Core, possession: Possession, vault: Vault) -> None:
        self._core = core
        self._ledgers = core.ledgers
        self._possession = possession
        self._vault = vault

    async def GetLedger(self, request: keys.GetLedgerRequest, _rpc: Context) -> AsyncIterator[keys.GetLedgerResponse]:
        async for batch in self._ledgers.read(request.genesis, request.from_sequence):
            yield keys.GetLedgerResponse(entries=batch)

    async def WatchLedger(
        self, request: keys.WatchLedgerRequest, _rpc: Context
    ) -> AsyncIterator[keys.WatchLedgerResponse]:
        async for batch in self._ledgers.watch(request.genesis, request.from_sequence):
            yield keys.WatchLedgerResponse(entries=batch)

    async def AppendLedgerEntry(
        self, request: keys.AppendLedgerEntryRequest, _rpc: Context
    ) -> keys.AppendLedgerEntryResponse:
        proof = request.possession if request.HasField("possession") else None
        binding = await self._binding(request.entry, proof)
        position = await self._ledgers.append(request.entry, also=binding)
        if binding is not None:
            self._possession.bound()
        return keys.AppendLedgerEntryResponse(position=position.message())

    async def _binding(self, entry: Signed, proof: Signed | None) -> Binding | None:
        """Return what binds the caller's account to the organization that makes the entry, if the caller proves to be that."""
        if proof is None:
            return None
        genesis, governance_key = await self._ledgers.author(entry)
        return self._possession.check(proof, governance_key=governance_key, genesis=genesis)

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
                    proven_by=member.key_entry.message() if member.key_entry else None,
                )
                for member in sorted(state.members.values(), key=lambda member: member.name)
            ]
        )

    async def ListHeads(self, request: keys.ListHeadsRequest, _rpc: Context) -> keys.ListHeadsResponse:
        await self._ledgers.state_for_caller(request.genesis)
        stated = await self._core.store.read(lambda connection: heads.newest(connection, request.genesis))
        return keys.ListHeadsResponse(heads=stated)

    async def PutVaultedKey(self, request: keys.PutVaultedKeyRequest, _rpc: Context) -> keys.PutVaultedKeyResponse:
        await self._vault.put(request.key)
        return keys.PutVaultedKeyResponse()

    async def GetVaultedKey(self, request: keys.GetVaultedKeyRequest, _rpc: Context) -> keys.GetVaultedKeyResponse:
        return keys.GetVaultedKeyResponse(key=await self._vault.get(request.organization_id, request.encryption_key_id))

    async def ListVaultedKeys(
        self, request: keys.ListVaultedKeysRequest, _rpc: Context
    ) -> keys.ListVaultedKeysResponse:
        return keys.ListVaultedKeysResponse(keys=await self._vault.list(request.organization_id))
