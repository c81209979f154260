"""The vault's format: what opens, and what a hostile keeper of the blob can make of it: one of three errors, at bounded cost."""

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    OrganizationKey,
    Stretching,
    TrustError,
    VaultDamaged,
    VaultOfAnotherOrganization,
    VaultSecret,
    VaultSecretWrong,
    digest,
    dump_organization_key,
    open_vaulted_key,
    pae,
    read_vaulted_key,
    rewrap_vaulted_key,
    seal_vaulted_key,
    serialize,
)
from folkmoot.trust import vault as module
from folkmoot.v1.keys_pb2 import OrganizationKeys
from folkmoot.v1.vault_pb2 import VaultedKey, VaultedKeyHead
from tests.unit.trust.scene import address, rsa_key, seeded, signing_key, x_wing_key

ALPHA, BETA = address("Alpha"), address("Beta")
KEY = OrganizationKey(x_wing_key("Alpha"), signing_key("Alpha"))
SECRET, OTHER = VaultSecret.generate(seeded("secret")), VaultSecret.generate(seeded("other"))
LEAST = Stretching(memory_kib=65_536, iterations=3)


def sealed(key: OrganizationKey = KEY, *, organization_id: str = ALPHA, secret: VaultSecret = SECRET) -> VaultedKey:
    return seal_vaulted_key(
        key, organization_id=organization_id, generation=1, secret=secret, random=seeded("seal"), stretching=LEAST
    )


BLOB = sealed()


def opened(blob: VaultedKey, *, organization_id: str = ALPHA, secret: VaultSecret = SECRET) -> OrganizationKey:
    return open_vaulted_key(blob, organization_id=organization_id, secret=secret)


def redone(blob: VaultedKey, **changes: Any) -> VaultedKey:
    """What a server makes that alters fields, of the head or beside it, and corrects the digest."""
    head, changed = VaultedKeyHead.FromString(blob.head), VaultedKey()
    changed.CopyFrom(blob)
    for name, value in changes.items():
        setattr(head if name in head.DESCRIPTOR.fields_by_name else changed, name, value)
    changed.head = serialize(head)
    changed.digest = digest(pae(changed.head, changed.check, changed.ciphertext))
    return changed


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.fixture
def no_stretching(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a secret is tried at all."""

    def refuse(**_: object) -> None:
        raise AssertionError("the secret was stretched")

    monkeypatch.setattr(module, "Argon2id", refuse)


@pytest.mark.parametrize("encryption", [x_wing_key("Alpha"), rsa_key()], ids=["x-wing", "rsa"])
def test_key_comes_back_with_both_halves(encryption):
    key = OrganizationKey(encryption, signing_key("Alpha"))
    assert dump_organization_key(opened(sealed(key))) == dump_organization_key(key)


def test_same_key_is_sealed_to_other_bytes_each_time():
    random = seeded("twice")
    first, second = (
        seal_vaulted_key(KEY, organization_id=ALPHA, generation=1, secret=SECRET, random=random, stretching=LEAST)
        for _ in range(2)
    )
    assert (first.ciphertext, first.check) != (second.ciphertext, second.check)


def test_wrong_secret_is_told_as_such():
    with pytest.raises(VaultSecretWrong):
        opened(BLOB, secret=OTHER)


def test_blob_of_another_organization_is_told_before_the_secret_is_tried(no_stretching):
    with pytest.raises(VaultOfAnotherOrganization, match="belongs to"):
        opened(sealed_for_beta())


def sealed_for_beta() -> VaultedKey:
    return redone(BLOB, organization_id=BETA)


def test_blob_of_another_organization_under_the_same_secret_does_not_pass_with_its_name_changed():
    theirs = sealed(organization_id=BETA)
    with pytest.raises(VaultDamaged):
        opened(redone(theirs, organization_id=ALPHA))


@given(st.sampled_from(["head", "check", "ciphertext", "digest"]), st.data())
def test_every_altered_byte_is_damage_or_of_another_organization(field, data):
    """What is in transit or on a disk: the digest finds it, and nothing is stretched."""
    blob, value = VaultedKey(), getattr(BLOB, field)
    blob.CopyFrom(BLOB)
    at, mask = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
    setattr(blob, field, value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :])
    with pytest.raises((VaultDamaged, VaultOfAnotherOrganization)):
        read_vaulted_key(blob, organization_id=ALPHA)


@given(st.binary(max_size=1100), st.binary(max_size=40), st.binary(max_size=100), st.booleans())
def test_arbitrary_bytes_are_refused_with_a_typed_error(head, check, ciphertext, fits):
    of_all = digest(pae(head, check, ciphertext)) if fits else bytes(32)
    with pytest.raises((VaultDamaged, VaultOfAnotherOrganization)):
        read_vaulted_key(
            VaultedKey(head=head, check=check, ciphertext=ciphertext, digest=of_all), organization_id=ALPHA
        )


@given(st.sampled_from(["head", "check", "ciphertext", "digest"]), st.data())
def test_every_truncation_is_damage_or_of_another_organization(field, data):
    blob, value = VaultedKey(), getattr(BLOB, field)
    blob.CopyFrom(BLOB)
    setattr(blob, field, value[: data.draw(st.integers(0, len(value) - 1))])
    with pytest.raises((VaultDamaged, VaultOfAnotherOrganization)):
        read_vaulted_key(blob, organization_id=ALPHA)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"generation": 2}, VaultDamaged),
        ({"encryption_key_id": bytes(32)}, VaultDamaged),
        ({"task_signing_key_id": bytes(32)}, VaultDamaged),
        ({"nonce": bytes(12)}, VaultDamaged),
        ({"ciphertext": flipped(BLOB.ciphertext)}, VaultDamaged),
        ({"ciphertext": flipped(BLOB.ciphertext, -1 % len(BLOB.ciphertext))}, VaultDamaged),
        ({"ciphertext": BLOB.ciphertext[:-1]}, VaultDamaged),
        # Who alters these alters what the secret is compared with: it looks like a wrong one.
        ({"iterations": 4}, VaultSecretWrong),
        ({"memory_kib": 65_537}, VaultSecretWrong),
        ({"salt": bytes(16)}, VaultSecretWrong),
        ({"check": flipped(BLOB.check)}, VaultSecretWrong),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_server_that_alters_a_field_and_corrects_the_digest_is_found(changes, expected):
    with pytest.raises(expected):
        opened(redone(BLOB, **changes))


class QuickArgon2id:
    """Depends on the same things as the real one; costs nothing, so that every byte can be altered."""

    def __init__(self, **parameters: Any) -> None:
        self._parameters = repr(sorted(parameters.items())).encode()

    def derive(self, material: bytes) -> bytes:
        return hashlib.shake_256(self._parameters + material).digest(64)


@given(st.sampled_from(["head", "check", "ciphertext"]), st.data())
def test_every_byte_that_a_server_alters_correcting_the_digest_gives_one_of_three_errors(field, data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Argon2id", QuickArgon2id)
        blob = sealed()
        assert opened(blob).encryption.key_id == KEY.encryption.key_id
        value = getattr(blob, field)
        at, mask = data.draw(st.integers(0, len(value) - 1)), data.draw(st.integers(1, 255))
        setattr(blob, field, value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :])
        blob.digest = digest(pae(blob.head, blob.check, blob.ciphertext))
        with pytest.raises((VaultDamaged, VaultSecretWrong, VaultOfAnotherOrganization)):
            opened(blob)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_kib": 65_535},
        {"memory_kib": 1_048_577},
        {"memory_kib": 2**32 - 1},
        {"memory_kib": 8},
        {"iterations": 2},
        {"iterations": 17},
        {"iterations": 2**32 - 1},
        {"salt": b""},
        {"salt": bytes(8)},
        {"nonce": bytes(8)},
        {"generation": 0},
        {"generation": 2**31},
        {"encryption_key_id": b""},
        {"task_signing_key_id": bytes(33)},
        {"check": b""},
        {"ciphertext": b""},
        {"ciphertext": bytes(65_537)},
        {"version": 2},
    ],
    ids=lambda changes: "-".join(f"{name} {str(value)[:12]}" for name, value in changes.items()),
)
def test_server_can_neither_weaken_the_stretching_nor_exhaust_the_memory(changes, no_stretching):
    with pytest.raises(VaultDamaged):
        opened(redone(BLOB, **changes))


def test_key_that_is_another_than_the_head_says_is_refused():
    """Only who has the secret can make this; the ids of the head are what is compared with the ledger."""
    head = VaultedKeyHead.FromString(BLOB.head)
    head.encryption_key_id = x_wing_key("Beta").key_id
    stretched = Argon2id(salt=head.salt, length=64, iterations=3, lanes=1, memory_cost=65_536).derive(SECRET.material)
    body = serialize(head)
    for content in (dump_organization_key(KEY), b"no key at all"):
        ciphertext = AESGCM(stretched[:32]).encrypt(head.nonce, content, body)
        made = VaultedKey(
            head=body, check=BLOB.check, ciphertext=ciphertext, digest=digest(pae(body, BLOB.check, ciphertext))
        )
        with pytest.raises(VaultDamaged):
            opened(made)


@pytest.mark.parametrize("field", ["encryption", "task_signing"])
def test_another_key_than_the_ledger_shows_is_told_before_the_secret_is_tried(field, no_stretching):
    shown = OrganizationKeys(encryption=KEY.encryption.public, task_signing=KEY.task_signing.public)
    getattr(shown, field).CopyFrom(x_wing_key("Beta").public if field == "encryption" else signing_key("Beta").public)
    with pytest.raises(VaultDamaged, match="the ledger shows"):
        open_vaulted_key(BLOB, organization_id=ALPHA, secret=SECRET, keys=shown)


def test_key_that_the_ledger_shows_is_opened():
    shown = OrganizationKeys(encryption=KEY.encryption.public, task_signing=KEY.task_signing.public)
    opened = open_vaulted_key(BLOB, organization_id=ALPHA, secret=SECRET, keys=shown)
    assert dump_organization_key(opened) == dump_organization_key(KEY)


@pytest.mark.parametrize("stretching", [Stretching(memory_kib=32_768), Stretching(iterations=1)])
def test_nothing_is_sealed_that_readers_refuse(stretching):
    with pytest.raises(VaultDamaged):
        seal_vaulted_key(
            KEY, organization_id=ALPHA, generation=1, secret=SECRET, random=seeded("weak"), stretching=stretching
        )


def test_rewrapped_key_opens_with_the_new_secret_alone():
    again = rewrap_vaulted_key(BLOB, organization_id=ALPHA, old=SECRET, new=OTHER, random=seeded("again"))
    assert dump_organization_key(opened(again, secret=OTHER)) == dump_organization_key(KEY)
    with pytest.raises(VaultSecretWrong):
        opened(again)
    heads = [VaultedKeyHead.FromString(blob.head) for blob in (BLOB, again)]
    assert heads[0].generation == heads[1].generation
    assert heads[0].salt != heads[1].salt


def test_rewrapping_with_the_wrong_secret_gives_nothing():
    with pytest.raises(VaultSecretWrong):
        rewrap_vaulted_key(BLOB, organization_id=ALPHA, old=OTHER, new=SECRET, random=seeded("again"))


def test_errors_never_name_the_secret():
    for blob, secret in ((BLOB, OTHER), (redone(BLOB, generation=2), SECRET)):
        with pytest.raises(TrustError) as refused:
            opened(blob, secret=secret)
        assert secret.text not in str(refused.value)
        assert secret.text not in repr(refused.value.__cause__)
