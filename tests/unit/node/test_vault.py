"""What a station takes from the vault and puts there, beside a server that is quicker, slower or dishonest."""

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from folkmoot.node.trust.vault import Vault
from folkmoot.transport import RemoteError
from folkmoot.trust import (
    FolkmootError,
    Stretching,
    VaultDamaged,
    VaultedKeyNotFound,
    VaultOfAnotherOrganization,
    VaultSecret,
    VaultSecretWrong,
    open_vaulted_key,
    seal_vaulted_key,
)
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.key_service_pb2 import (
    GetVaultedKeyResponse,
    ListVaultedKeysResponse,
    PutVaultedKeyResponse,
    VaultedKeyView,
)
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.builders import World, world

SECRET, OTHER = VaultSecret.generate(os.urandom), VaultSecret.generate(os.urandom)
LUNG = world(("Alpha", "Beta"), nodes=False)
ALPHA = LUNG.state.member("Alpha")


@dataclass
class FakeServer:
    """A connection and the server behind it."""

    stored: dict[bytes, VaultedKey] = field(default_factory=dict)
    listed: list[VaultedKey] | None = None
    put_fails_with: ErrorReason.ValueType | None = None
    calls: list[str] = field(default_factory=list)

    @property
    def keys(self) -> "FakeServer":
        return self

    def metadata(self) -> tuple[()]:
        return ()

    async def call(self, make: Any) -> Any:
        return await make()

    async def ListVaultedKeys(self, request: Any, **_: Any) -> ListVaultedKeysResponse:
        self.calls.append("list")
        listed = self.stored.values() if self.listed is None else self.listed
        return ListVaultedKeysResponse(keys=[VaultedKeyView(head=each.head) for each in listed])

    async def GetVaultedKey(self, request: Any, **_: Any) -> GetVaultedKeyResponse:
        self.calls.append("get")
        return GetVaultedKeyResponse(key=self.stored[request.encryption_key_id])

    async def PutVaultedKey(self, request: Any, **_: Any) -> PutVaultedKeyResponse:
        self.calls.append("put")
        if self.put_fails_with is not None:
            raise RemoteError(self.put_fails_with, "no")
        self.stored[b""] = request.key
        return PutVaultedKeyResponse()


def sealed(owner: str = "Alpha", secret: VaultSecret = SECRET, lung: World = LUNG) -> VaultedKey:
    return seal_vaulted_key(
        lung[owner].organization_key,
        organization_id=lung[owner].address,
        generation=1,
        secret=secret,
        random=os.urandom,
        stretching=Stretching(65_536, 3),
    )


def vault(server: FakeServer, secret: VaultSecret = SECRET) -> Vault:
    return Vault(server, secret)  # type: ignore[arg-type]


def holding(blob: VaultedKey) -> FakeServer:
    return FakeServer({LUNG["Alpha"].organization_key.encryption.key_id: blob})


async def fetch(server: FakeServer, secret: VaultSecret = SECRET) -> Any:
    assert ALPHA.keys is not None
    return await vault(server, secret).fetch(ALPHA.organization_id, ALPHA.keys)


async def test_key_that_the_ledger_shows_is_fetched():
    key = await fetch(holding(sealed()))
    assert key.task_signing.key_id == LUNG["Alpha"].organization_key.task_signing.key_id


async def test_vault_without_the_key_is_told_by_what_is_listed():
    server = FakeServer()
    with pytest.raises(VaultedKeyNotFound, match=LUNG["Alpha"].organization_key.fingerprint):
        await fetch(server)
    assert server.calls == ["list"]


async def test_server_that_lists_the_right_key_and_hands_out_another_organizations_is_caught():
    server = holding(sealed("Beta"))
    server.listed = [sealed()]
    with pytest.raises(VaultOfAnotherOrganization):
        await fetch(server)


async def test_server_that_lists_another_organizations_keys_is_caught():
    with pytest.raises(VaultOfAnotherOrganization):
        await fetch(holding(sealed("Beta")))


async def test_server_that_lists_the_right_key_and_hands_out_another_one_is_caught():
    other = world(("Delta",), nodes=False, name="other")["Delta"].organization_key
    server = holding(
        seal_vaulted_key(other, organization_id=ALPHA.organization_id, generation=1, secret=SECRET, random=os.urandom)
    )
    server.listed = [sealed()]
    with pytest.raises(VaultDamaged, match="the ledger shows"):
        await fetch(server)


async def test_refused_key_is_fetched_again_only_when_another_is_listed():
    server = holding(sealed(secret=OTHER))
    used = vault(server)
    assert ALPHA.keys is not None
    for _ in range(3):
        with pytest.raises(VaultSecretWrong):
            await used.fetch(ALPHA.organization_id, ALPHA.keys)
    assert server.calls.count("get") == 1
    server.stored = holding(sealed()).stored
    await used.fetch(ALPHA.organization_id, ALPHA.keys)
    assert server.calls.count("get") == 2


async def test_key_is_put_where_it_is_missing_under_the_stations_secret():
    server = FakeServer()
    assert await vault(server).offer(ALPHA, LUNG["Alpha"].organization_key)
    [blob] = server.stored.values()
    open_vaulted_key(blob, organization_id=ALPHA.organization_id, secret=SECRET, keys=ALPHA.keys)


async def test_key_that_is_there_is_left_alone_whatever_secret_it_is_under():
    server = holding(sealed(secret=OTHER))
    assert not await vault(server).offer(ALPHA, LUNG["Alpha"].organization_key)
    assert server.calls == ["list"]


async def test_another_node_that_was_faster_is_no_failure():
    server = FakeServer(put_fails_with=ErrorReason.ERROR_REASON_REPEAT_DIFFERS)
    assert not await vault(server).offer(ALPHA, LUNG["Alpha"].organization_key)


async def test_vault_that_takes_nothing_more_says_so():
    server = FakeServer(put_fails_with=ErrorReason.ERROR_REASON_TOO_MANY)
    with pytest.raises(FolkmootError) as refused:
        await vault(server).offer(ALPHA, LUNG["Alpha"].organization_key)
    assert refused.value.reason == ErrorReason.ERROR_REASON_TOO_MANY
