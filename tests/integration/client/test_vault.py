"""`folkmoot key vault` and `client.vault` against a real server: put, get, list, rewrap, and what a hostile server or a slip can do."""

import os
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from folkmoot.cli.exits import Exit
from folkmoot.client import generate_secret
from folkmoot.client.keyfiles import create_key_files
from folkmoot.server.store import tables
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    KeyUnpublished,
    OrganizationKey,
    SigningKey,
    VaultDamaged,
    VaultOfAnotherOrganization,
    VaultSecret,
    VaultSecretWeak,
    VaultSecretWrong,
    XWingKey,
    dump_organization_key,
    leave_entry,
    rotate_key_entry,
    word_list,
)
from folkmoot.v1.vault_pb2 import VaultedKey
from tests.integration.client.conftest import Command, Hub

SECRET, OTHER = generate_secret(), generate_secret()


def key_of(hub: Hub, organization: str = "Alpha") -> OrganizationKey:
    return hub.lung[organization].organization_key


async def stored(hub: Hub) -> list[VaultedKey]:
    query = select(tables.vaulted_keys.c.vaulted_key).order_by(tables.vaulted_keys.c.generation)
    rows = await hub.server.running.core.store.read(lambda connection: connection.execute(query).scalars().all())
    return [VaultedKey.FromString(row) for row in rows]


async def in_the_store(hub: Hub, statement: object) -> None:
    """What only the server's operator, or whoever has his database, can do."""
    await hub.server.running.core.store.write(lambda connection: connection.execute(statement))  # type: ignore[call-overload]


async def rotated(hub: Hub) -> OrganizationKey:
    """Give Alpha other keys, in the ledger alone."""
    lung, alpha = hub.lung, hub.lung["Alpha"]
    key = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
    claim = key.claim(alpha.address, 2, lung.now)
    entry = rotate_key_entry(lung.state, claim, governance_key=alpha.governance_key, now=lung.now)
    await hub.server.append(lung.append(entry), hub.server.users["admin@alpha"])
    return key


# ---- the SDK -------------------------------------------------------------------------------------------------------


async def test_key_goes_in_and_comes_out_for_a_client_that_has_none(hub: Hub):
    fingerprint = await hub.client("Alpha").vault.put(SECRET)
    fresh = hub.client("Alpha", organization_key=None)
    [key] = await fresh.vault.get(SECRET)
    assert dump_organization_key(key) == dump_organization_key(key_of(hub))
    [entry] = await fresh.vault.list()
    assert (entry.generation, entry.key_fingerprint, entry.current) == (1, fingerprint, True)


async def test_passphrase_of_six_words_is_good_enough_and_a_shorter_one_is_not(hub: Hub):
    alpha, words = hub.client("Alpha"), list(word_list()[100:106])
    with pytest.raises(VaultSecretWeak):
        await alpha.vault.put(" ".join(words[:5]))
    assert await stored(hub) == []
    await alpha.vault.put(" ".join(words))
    assert len(await alpha.vault.get("-".join(words))) == 1


async def test_wrong_secret_mistyped_secret_and_empty_vault_are_told_apart(hub: Hub):
    alpha = hub.client("Alpha")
    with pytest.raises(FolkmootError, match="has no key") as refused:
        await alpha.vault.get(SECRET)
    assert refused.value.reason_name == "VAULTED_KEY_NOT_FOUND"
    await alpha.vault.put(SECRET)
    with pytest.raises(VaultSecretWrong, match="not the one under which"):
        await alpha.vault.get(OTHER)
    with pytest.raises(VaultSecretWrong, match="mistyped"):
        await alpha.vault.get(SECRET[:-1])


async def test_blob_that_was_damaged_in_the_database_is_told_as_damage(hub: Hub):
    alpha = hub.client("Alpha")
    await alpha.vault.put(SECRET)
    [blob] = await stored(hub)
    blob.ciphertext = bytes([blob.ciphertext[0] ^ 1]) + blob.ciphertext[1:]
    await in_the_store(hub, update(tables.vaulted_keys).values(vaulted_key=blob.SerializeToString()))
    with pytest.raises(VaultDamaged):
        await alpha.vault.get(SECRET)


async def test_server_that_hands_out_another_organizations_blob_is_caught(hub: Hub):
    """Beta has the same secret, so that nothing but the name in the blob tells."""
    await hub.client("Alpha").vault.put(SECRET)
    await hub.client("Beta").vault.put(SECRET)
    alpha, beta = sorted(await stored(hub), key=lambda blob: hub.lung["Beta"].address.encode() in blob.head)
    swapped = update(tables.vaulted_keys).where(tables.vaulted_keys.c.organization_id == hub.lung["Alpha"].address)
    await in_the_store(hub, swapped.values(vaulted_key=beta.SerializeToString()))
    with pytest.raises(VaultOfAnotherOrganization):
        await hub.client("Alpha").vault.get(SECRET)
    await in_the_store(hub, swapped.values(vaulted_key=alpha.SerializeToString()))
    assert len(await hub.client("Alpha").vault.get(SECRET)) == 1


async def test_server_that_hands_out_a_former_key_for_the_present_one_is_caught(hub: Hub):
    alpha = hub.client("Alpha")
    await alpha.vault.put(SECRET)
    [blob] = await stored(hub)
    new = await rotated(hub)
    await in_the_store(
        hub,
        insert(tables.vaulted_keys).values(
            organization_id=hub.lung["Alpha"].address,
            encryption_key_id=new.encryption.key_id,
            generation=2,
            head=blob.head,
            vaulted_key=blob.SerializeToString(),
            put_at=hub.lung.now,
        ),
    )
    with pytest.raises(VaultDamaged, match="the ledger shows"):
        await hub.client("Alpha", organization_key=None).vault.get(SECRET)


async def test_former_keys_come_with_the_present_one_when_they_are_asked_for(hub: Hub, tmp_path: Path):
    await hub.client("Alpha").vault.put(SECRET)
    new = await rotated(hub)
    file = tmp_path / "new.pem"
    file.write_bytes(dump_organization_key(new))
    await hub.client("Alpha", organization_key=file).vault.put(SECRET)
    fresh = hub.client("Alpha", organization_key=None)
    fingerprints = [key.fingerprint for key in await fresh.vault.get(SECRET, former=True)]
    assert fingerprints == [new.fingerprint, key_of(hub).fingerprint]
    assert [key.fingerprint for key in await fresh.vault.get(SECRET)] == [new.fingerprint]
    assert [(entry.generation, entry.current) for entry in await fresh.vault.list()] == [(2, True), (1, False)]


async def test_people_of_an_organization_that_has_left_still_get_its_former_keys(hub: Hub):
    """To read what was sealed to it; there is no present key that could be fetched, and its nodes get nothing."""
    lung, alpha = hub.lung, hub.lung["Alpha"]
    await hub.client("Alpha").vault.put(SECRET)
    entry = lung.append(leave_entry(lung.state, governance_key=alpha.governance_key, now=lung.now))
    await hub.server.append(entry, hub.server.users["admin@alpha"])
    gone = hub.client("Alpha", organization_key=None)
    with pytest.raises(KeyUnpublished):
        await gone.vault.get(SECRET)
    assert [key.fingerprint for key in await gone.vault.get(SECRET, former=True)] == [key_of(hub).fingerprint]
    assert [entry.current for entry in await gone.vault.list()] == [False]


async def test_rewrapped_vault_opens_with_the_new_secret_alone_and_rewrapping_may_be_repeated(hub: Hub):
    alpha = hub.client("Alpha")
    await alpha.vault.put(SECRET)
    for _ in range(2):
        assert await alpha.vault.rewrap(SECRET, OTHER) == 1
    assert len(await alpha.vault.get(OTHER)) == 1
    with pytest.raises(VaultSecretWrong):
        await alpha.vault.get(SECRET)


async def test_rewrapping_with_a_wrong_secret_changes_nothing(hub: Hub):
    alpha = hub.client("Alpha")
    await alpha.vault.put(SECRET)
    before = await stored(hub)
    with pytest.raises(VaultSecretWrong, match="nothing was changed"):
        await alpha.vault.rewrap(OTHER, generate_secret())
    assert await stored(hub) == before


# ---- the command ---------------------------------------------------------------------------------------------------


async def test_command_from_put_to_rewrap(hub: Hub, alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put = await alpha("key", "vault", "put")
    assert put.code == Exit.OK, put
    [secret] = [line.rpartition(" ")[2] for line in put.output.splitlines() if "vault secret" in line]
    assert VaultSecret.parse(secret).text == secret
    [entry] = (await alpha("key", "vault", "list", "--json")).json
    assert (entry["key_fingerprint"], entry["current"]) == (key_of(hub).fingerprint, True)

    file, path = tmp_path / "secret", tmp_path / "fresh" / "organization.pem"
    file.write_text(secret)
    got = await alpha("key", "vault", "get", "--secret-file", str(file), "--output", str(path))
    assert (got.code, str(path) in got.output) == (Exit.OK, True), got
    assert path.read_bytes() == dump_organization_key(key_of(hub))
    assert path.stat().st_mode & 0o777 == 0o600
    again = await alpha("key", "vault", "get", "--secret-file", str(file), "--output", str(path))
    assert "here already" in again.output

    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", secret)
    rewrapped = await alpha("key", "vault", "rewrap")
    assert rewrapped.code == Exit.OK, rewrapped
    old = await alpha("key", "vault", "get", "--output", str(path))
    assert (old.code, "VAULT_SECRET_WRONG" in old.errors) == (Exit.STATE, True)
    [new] = [line.rpartition(" ")[2] for line in rewrapped.output.splitlines() if "vault secret" in line]
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", new)
    assert (await alpha("key", "vault", "get", "--output", str(path))).code == Exit.OK


async def test_get_never_overwrites_another_key(
    hub: Hub, alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    assert (await alpha("key", "vault", "put")).code == Exit.OK
    other = tmp_path / "other" / "organization.pem"
    create_key_files(other.parent)
    before = other.read_bytes()
    got = await alpha("key", "vault", "get", "--output", str(other))
    assert got.code == Exit.OK, got
    assert other.read_bytes() == before
    assert key_of(hub).fingerprint in {key.fingerprint for key in Keyring.load(other).keys}


async def test_put_with_the_secret_of_the_environment_prints_no_secret(alpha: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    put = await alpha("key", "vault", "put")
    assert (put.code, "secret" in put.output, SECRET in put.output + put.errors) == (Exit.OK, False, False)


async def test_secret_is_not_generated_where_the_vault_hangs_on_one_unless_that_is_lost(
    hub: Hub, alpha: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await hub.client("Alpha").vault.put(SECRET)
    refused = await alpha("key", "vault", "put")
    assert (refused.code, "under a secret already" in refused.errors) == (Exit.STATE, True)
    assert "vault-" not in refused.output
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    assert (await alpha("key", "vault", "put")).code == Exit.OK
    generated = await alpha("key", "vault", "put", "--generate")
    [new] = [line.rpartition(" ")[2] for line in generated.output.splitlines() if "vault secret" in line]
    assert len(await hub.client("Alpha").vault.get(new)) == 1


async def test_rewrapping_with_a_wrong_secret_prints_no_new_one(
    hub: Hub, alpha: Command, monkeypatch: pytest.MonkeyPatch
):
    await hub.client("Alpha").vault.put(SECRET)
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", OTHER)
    refused = await alpha("key", "vault", "rewrap")
    assert (refused.code, refused.output) == (Exit.STATE, "")
    assert "nothing was changed" in refused.errors


@pytest.mark.parametrize(
    ("secret", "code", "word"),
    [
        ("hunter2 hunter2", Exit.USAGE, "VAULT_SECRET_WEAK"),
        (SECRET[:-1], Exit.STATE, "mistyped"),
        (None, Exit.USAGE, "ORGANIZATION_VAULT_SECRET"),
    ],
    ids=["weak", "mistyped", "missing"],  # The same in every process: a generated secret is not.
)
async def test_secret_that_is_weak_mistyped_or_missing_is_one_clear_line_without_it(
    alpha: Command, monkeypatch: pytest.MonkeyPatch, secret: str | None, code: Exit, word: str
):
    if secret:
        monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", secret)
    ended = await alpha("key", "vault", "get")
    assert (ended.code, word in ended.errors, ended.errors.count("\n")) == (code, True, 1), ended
    assert not secret or secret not in ended.errors


# ---- by itself -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def newcomer(hub: Hub, folkmoot: Command, tmp_path: Path) -> Command:
    """The command as Delta's admin, with new keys."""
    await hub.server.organization_admin("Delta")
    create_key_files(tmp_path / "delta")
    given = hub.arguments("Alpha")
    options = [f"--{name.replace('_', '-')}={given[name]}" for name in ("server", "certificate_authority")]
    keys = [f"--{name}-key={tmp_path / 'delta' / name}.pem" for name in ("governance", "organization")]
    assert (await folkmoot("login", *options, *keys, "--username", "admin@delta", user="delta")).code == Exit.OK
    return folkmoot


async def test_founding_puts_the_key_into_the_vault_if_a_secret_is_set(
    hub: Hub, newcomer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = newcomer
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", "hunter2")
    refused = await command("collaboration", "found", "heart", "--as", "Delta", user="delta")
    assert (refused.code, "VAULT_SECRET_WEAK" in refused.errors) == (Exit.USAGE, True)
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    founded = await command("collaboration", "found", "heart", "--as", "Delta", user="delta")
    assert (founded.code, "in the vault" in founded.errors) == (Exit.OK, True), founded
    got = await command("key", "vault", "get", "--output", str(tmp_path / "again.pem"), user="delta")
    assert got.code == Exit.OK, got
    assert (tmp_path / "again.pem").read_bytes() == (tmp_path / "delta" / "organization.pem").read_bytes()


async def test_asking_to_join_and_voting_put_the_key_into_the_vault_if_a_secret_is_set(
    hub: Hub, alpha: Command, newcomer: Command, monkeypatch: pytest.MonkeyPatch
):
    command, reference = newcomer, str(hub.lung.state.reference)
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    joined = await command("collaboration", "join", reference, "--as", "Delta", user="delta")
    assert (joined.code, "in the vault" in joined.errors) == (Exit.OK, True), joined
    voted = await alpha("collaboration", "vote", "Delta", "--approve", "--yes")
    assert (voted.code, "in the vault" in voted.errors) == (Exit.OK, True), voted
    assert len(await stored(hub)) == 2


async def test_vote_stands_although_the_key_can_not_be_put_into_the_vault(
    hub: Hub, alpha: Command, newcomer: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    joined = await newcomer("collaboration", "join", str(hub.lung.state.reference), "--as", "Delta", user="delta")
    assert joined.code == Exit.OK, joined
    monkeypatch.setenv("ORGANIZATION_VAULT_SECRET", SECRET)
    monkeypatch.setenv("FOLKMOOT_ORGANIZATION_KEY", str(tmp_path / "delta" / "organization.pem"))
    voted = await alpha("collaboration", "vote", "Delta", "--approve", "--yes")
    assert (voted.code, "voted" in voted.output) == (Exit.OK, True), voted
    assert "the key is not in the vault: KEY_MISMATCH" in voted.errors


async def test_nothing_goes_into_the_vault_by_itself_without_a_secret(
    hub: Hub, newcomer: Command, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ORGANIZATION_VAULT_SECRET", raising=False)
    founded = await newcomer("collaboration", "found", "heart", "--as", "Delta", user="delta")
    assert (founded.code, founded.errors) == (Exit.OK, "")
    assert await stored(hub) == []
