"""The vault at the server: an organization's users put and replace, its nodes fetch and add, and nobody else learns even that there is one."""

import os
from typing import Any

import pytest
from sqlalchemy import update

from folkmoot.server.collaborations.vault import MOST_KEYS
from folkmoot.server.store import tables
from folkmoot.trust import (
    OrganizationKey,
    SigningKey,
    Stretching,
    VaultSecret,
    XWingKey,
    digest,
    node_revoke_entry,
    open_vaulted_key,
    pae,
    seal_vaulted_key,
    serialize,
)
from folkmoot.trust.entries import leave_entry
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead
from tests.integration.harness import Metadata, User, reason, refused
from tests.integration.server.conftest import Hub

SECRET = VaultSecret.generate(os.urandom)
LEAST = Stretching(memory_kib=65_536, iterations=3)


def sealed(hub: Hub, organization: str = "Alpha", key: OrganizationKey | None = None, **changes: Any) -> VaultedKey:
    owner = hub.lung[organization]
    usual: dict[str, Any] = {
        "organization_id": owner.address,
        "generation": 1,
        "secret": SECRET,
        "random": os.urandom,
        "stretching": LEAST,
    }
    return seal_vaulted_key(key or owner.organization_key, **(usual | changes))


def unusable(hub: Hub, generation: int) -> VaultedKey:
    """A key that a server can't tell from one that opens; made without stretching anything."""
    head = VaultedKeyHead(
        version=1,
        organization_id=hub.lung["Alpha"].address,
        generation=generation,
        encryption_key_id=os.urandom(32),
        task_signing_key_id=os.urandom(32),
        memory_kib=65_536,
        iterations=3,
        salt=bytes(16),
        nonce=bytes(12),
    )
    body = serialize(head)
    return VaultedKey(head=body, check=bytes(32), ciphertext=b"key", digest=digest(pae(body, bytes(32), b"key")))


def put(hub: Hub, key: VaultedKey, by: User | Metadata) -> Any:
    metadata = by.metadata if isinstance(by, User) else by
    return hub.server.keys.PutVaultedKey(keys.PutVaultedKeyRequest(key=key), metadata=metadata)


def get(hub: Hub, by: User | Metadata, organization: str = "Alpha", encryption_key_id: bytes = b"") -> Any:
    metadata = by.metadata if isinstance(by, User) else by
    request = keys.GetVaultedKeyRequest(
        organization_id=hub.lung[organization].address, encryption_key_id=encryption_key_id
    )
    return hub.server.keys.GetVaultedKey(request, metadata=metadata)


async def listed(hub: Hub, by: User | Metadata, organization: str = "Alpha") -> list[VaultedKeyHead]:
    metadata = by.metadata if isinstance(by, User) else by
    request = keys.ListVaultedKeysRequest(organization_id=hub.lung[organization].address)
    answer = await hub.server.keys.ListVaultedKeys(request, metadata=metadata)
    assert all(one.HasField("put_at") for one in answer.keys)
    return [VaultedKeyHead.FromString(one.head) for one in answer.keys]


async def test_what_an_admin_puts_his_nodes_and_researchers_get(hub: Hub):
    vaulted = sealed(hub)
    await put(hub, vaulted, hub.admins["Alpha"])
    for who in (hub.admins["Alpha"], hub.researchers["Alpha"], await hub.node("Alpha")):
        assert (await get(hub, who)).key == vaulted
        assert [head.generation for head in await listed(hub, who)] == [1]
    opened = open_vaulted_key(
        (await get(hub, hub.admins["Alpha"])).key, organization_id=hub.lung["Alpha"].address, secret=SECRET
    )
    assert opened.encryption.key_id == hub.lung["Alpha"].organization_key.encryption.key_id


async def test_newest_generation_is_handed_out_unless_another_is_named(hub: Hub):
    alpha, first, third, second = hub.admins["Alpha"], *(unusable(hub, generation) for generation in (1, 3, 2))
    for vaulted in (first, third, second):
        await put(hub, vaulted, alpha)
    assert (await get(hub, alpha)).key == third
    wanted = VaultedKeyHead.FromString(first.head).encryption_key_id
    assert (await get(hub, alpha, encryption_key_id=wanted)).key == first
    assert [head.generation for head in await listed(hub, alpha)] == [3, 2, 1]
    assert reason(await refused(get(hub, alpha, encryption_key_id=bytes(32)))) == "VAULTED_KEY_NOT_FOUND"


@pytest.mark.parametrize("organization", ["Alpha", "Beta"])
async def test_another_organization_learns_nothing_not_even_whether_there_is_a_key(hub: Hub, organization: str):
    await put(hub, sealed(hub), hub.admins["Alpha"])
    root = await hub.server.root()
    for stranger in (hub.admins["Gamma"], hub.researchers["Gamma"], await hub.node("Gamma"), root):
        assert reason(await refused(get(hub, stranger, organization))) == "VAULT_OF_ANOTHER_ORGANIZATION"
        metadata = stranger.metadata if isinstance(stranger, User) else stranger
        request = keys.ListVaultedKeysRequest(organization_id=hub.lung[organization].address)
        assert (
            reason(await refused(hub.server.keys.ListVaultedKeys(request, metadata=metadata)))
            == "VAULT_OF_ANOTHER_ORGANIZATION"
        )
    for stranger in (hub.admins["Gamma"], await hub.node("Gamma"), root):
        assert reason(await refused(put(hub, sealed(hub), stranger))) == "VAULT_OF_ANOTHER_ORGANIZATION"
    denied = [event.created_by for event in await hub.server.events("call.denied")]
    assert hub.admins["Gamma"].user_id in denied


async def test_account_that_is_bound_to_no_address_has_no_vault(hub: Hub):
    delta = await hub.server.organization_admin("Delta")
    assert reason(await refused(put(hub, sealed(hub), delta))) == "VAULT_OF_ANOTHER_ORGANIZATION"


@pytest.mark.both_databases
async def test_user_replaces_and_a_node_only_adds(hub: Hub):
    first, again, alpha, node = sealed(hub), sealed(hub), hub.admins["Alpha"], await hub.node("Alpha")
    await put(hub, first, node)
    await put(hub, first, node)
    assert reason(await refused(put(hub, again, node))) == "REPEAT_DIFFERS"
    assert (await get(hub, alpha)).key == first
    await put(hub, again, alpha)
    assert (await get(hub, alpha)).key == again


async def test_node_can_not_fill_the_vault_with_keys_that_the_ledger_does_not_show(hub: Hub):
    stolen = await hub.node("Alpha")
    foreign = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
    half = OrganizationKey(hub.lung["Alpha"].organization_key.encryption, foreign.task_signing)
    for key in (foreign, half):
        assert reason(await refused(put(hub, sealed(hub, key=key, generation=99), stolen))) == "KEY_MISMATCH"
    assert await listed(hub, hub.admins["Alpha"]) == []


async def test_researcher_may_not_put(hub: Hub):
    assert reason(await refused(put(hub, sealed(hub), hub.researchers["Alpha"]))) == "NOT_ALLOWED"


async def test_twenty_keys_and_no_more(hub: Hub):
    alpha, kept = hub.admins["Alpha"], [unusable(hub, generation) for generation in range(1, MOST_KEYS + 1)]
    for vaulted in kept:
        await put(hub, vaulted, alpha)
    assert reason(await refused(put(hub, unusable(hub, 21), alpha))) == "TOO_MANY"
    await put(hub, kept[0], alpha)
    assert len(await listed(hub, alpha)) == MOST_KEYS


async def test_damaged_key_is_not_taken_in(hub: Hub):
    for field in ("head", "check", "ciphertext", "digest"):
        vaulted = sealed(hub)
        value = getattr(vaulted, field)
        setattr(vaulted, field, value[:-1] + bytes([value[-1] ^ 1]))
        assert reason(await refused(put(hub, vaulted, hub.admins["Alpha"]))) == "VAULT_DAMAGED"
    assert await listed(hub, hub.admins["Alpha"]) == []


async def test_row_that_is_no_vaulted_key_any_more_is_told_as_damage(hub: Hub):
    await put(hub, sealed(hub), hub.admins["Alpha"])
    rotten = update(tables.vaulted_keys).values(vaulted_key=b"\xff\xff")
    await hub.server.running.core.store.write(lambda connection: connection.execute(rotten))
    assert reason(await refused(get(hub, hub.admins["Alpha"]))) == "VAULT_DAMAGED"


async def test_revoked_node_gets_nothing(hub: Hub):
    lung, alpha, node = hub.lung, hub.admins["Alpha"], await hub.node("Alpha")
    await put(hub, sealed(hub), alpha)
    await get(hub, node)
    node_id = lung["Alpha"].nodes["alpha-1"].fingerprint
    governance_key = lung["Alpha"].governance_key
    entry = lung.append(node_revoke_entry(lung.state, node_id, governance_key=governance_key, now=lung.now))
    await hub.server.append(entry, alpha)
    assert reason(await refused(get(hub, node))) in ("NODE_NOT_APPROVED", "TOKEN_INVALID")
    assert reason(await refused(put(hub, sealed(hub), node))) in ("NODE_NOT_APPROVED", "TOKEN_INVALID")


async def test_nodes_of_an_organization_that_is_gone_get_nothing(hub: Hub):
    lung, beta, node = hub.lung, hub.admins["Beta"], await hub.node("Beta")
    await put(hub, sealed(hub, "Beta"), beta)
    await get(hub, node, "Beta")
    entry = lung.append(leave_entry(lung.state, governance_key=lung["Beta"].governance_key, now=lung.now))
    await hub.server.append(entry, beta)
    assert reason(await refused(get(hub, node, "Beta"))) in ("NODE_NOT_APPROVED", "TOKEN_INVALID")


async def test_audit_trail_tells_who_put_and_who_fetched_which_key_and_no_more(hub: Hub):
    vaulted, alpha, node = sealed(hub), hub.admins["Alpha"], await hub.node("Alpha")
    await put(hub, vaulted, alpha)
    await put(hub, vaulted, alpha)
    await get(hub, node)
    [was_put], [fetched] = (await hub.server.events("vault.put"), await hub.server.events("vault.get"))
    assert was_put.created_by == alpha.user_id
    assert fetched.created_by == hub.lung["Alpha"].nodes["alpha-1"].fingerprint
    key_id = hub.lung["Alpha"].organization_key.encryption.key_id.hex()
    for event in (was_put, fetched):
        assert key_id in event.data
        assert vaulted.ciphertext.hex() not in event.data
