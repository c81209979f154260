"""Key files are made once, reused, and never overwritten."""

import stat
from pathlib import Path

import pytest

from folkmoot.client import FolkmootError, keyfiles
from folkmoot.client.keyfiles import (
    EncryptionKind,
    create_key_files,
    export_for_node,
    is_encrypted,
    put_organization_key,
    put_signing_key,
    read_signing_key,
)
from folkmoot.transport import Keyring
from folkmoot.transport.keyring import read_organization_key
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import OrganizationKey, RsaKey
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.keys_pb2 import KeyKind
from tests.builders import organization, organization_key, rsa_key

pytestmark = pytest.mark.usefixtures("quick_passphrases")


def test_files_are_readable_by_their_owner_alone(tmp_path: Path):
    files = create_key_files(tmp_path / "keys")
    assert [file.path.name for file in files] == ["governance.pem", "organization.pem"]
    assert all(file.created and stat.S_IMODE(file.path.stat().st_mode) == 0o600 for file in files)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_existing_keys_are_reused(tmp_path: Path):
    made = create_key_files(tmp_path)
    before = [file.path.read_bytes() for file in made]
    again = create_key_files(tmp_path)
    assert [file.fingerprint for file in again] == [file.fingerprint for file in made]
    assert not any(file.created for file in again)
    assert [file.path.read_bytes() for file in again] == before


def test_force_keeps_the_old_file_beside(tmp_path: Path):
    made = create_key_files(tmp_path)
    before = [file.path.read_bytes() for file in made]
    forced = create_key_files(tmp_path, force=True)
    assert [file.replaced.read_bytes() for file in forced if file.replaced] == before
    assert {file.fingerprint for file in forced}.isdisjoint(file.fingerprint for file in made)


@pytest.mark.parametrize(
    ("kind", "expected"), [(EncryptionKind.X_WING, KeyKind.KEY_KIND_X_WING), (EncryptionKind.RSA, KeyKind.KEY_KIND_RSA)]
)
def test_kinds(tmp_path: Path, kind: EncryptionKind, expected: int, monkeypatch: pytest.MonkeyPatch):
    shorter = rsa_key("Alpha")
    monkeypatch.setattr(RsaKey, "generate", lambda: shorter)
    create_key_files(tmp_path, kind=kind)
    assert read_organization_key(tmp_path / "organization.pem").encryption.public.kind == expected


def test_passphrase_is_needed_to_read_and_to_reuse(tmp_path: Path):
    made = create_key_files(tmp_path, passphrase="six words are better than one")
    for wrong in (None, "five words"):
        with pytest.raises(FolkmootError, match="passphrase") as refused:
            read_signing_key(tmp_path / "governance.pem", wrong)
        assert refused.value.reason == reasons.ERROR_REASON_KEY_MISMATCH
        with pytest.raises(FolkmootError, match="passphrase"):
            create_key_files(tmp_path, passphrase=wrong)
    again = create_key_files(tmp_path, passphrase="six words are better than one")
    assert [file.fingerprint for file in again] == [file.fingerprint for file in made]


def test_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FolkmootError, match=str(tmp_path / "none.pem")):
        read_organization_key(tmp_path / "none.pem")


def test_half_a_pair_is_completed(tmp_path: Path):
    governance, organization = create_key_files(tmp_path)
    organization.path.unlink()
    first, second = create_key_files(tmp_path)
    assert (first.created, second.created) == (False, True)
    assert first.fingerprint == governance.fingerprint


# ---- what takes another key's place ---------------------------------------------------------------------------------


def test_crash_while_a_signing_key_is_replaced_loses_neither(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "governance.pem"
    first, second = organization("First").governance_key, organization("Second").governance_key
    put_signing_key(path, first)

    def cut(target: Path, content: bytes, *, replace: bool = False) -> None:
        if replace:
            raise SystemError("power cut")
        write_secret(target, content, replace=replace)

    with monkeypatch.context() as patch:
        patch.setattr(keyfiles, "write_secret", cut)
        with pytest.raises(SystemError):
            put_signing_key(path, second)
    assert read_signing_key(path).key_id == first.key_id
    done = put_signing_key(path, second)
    assert read_signing_key(path).key_id == second.key_id
    assert done.replaced is not None
    assert read_signing_key(done.replaced).key_id == first.key_id


def test_file_that_cannot_be_read_is_not_replaced_even_by_force(tmp_path: Path):
    create_key_files(tmp_path, passphrase="six words are better than one")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FolkmootError, match="passphrase"):
        create_key_files(tmp_path, force=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_forced_key_of_a_protected_folder_is_protected(tmp_path: Path):
    create_key_files(tmp_path, passphrase="six words are better than one")
    create_key_files(tmp_path, passphrase="six words are better than one", force=True)
    assert len(list(tmp_path.glob("*.pem"))) == 4
    assert all(is_encrypted(path) for path in tmp_path.glob("*.pem"))


def test_same_encryption_key_with_another_signing_key_is_another_key(tmp_path: Path):
    path = tmp_path / "organization.pem"
    first, second = organization_key("First"), organization_key("Second")
    mixed = OrganizationKey(first.encryption, second.task_signing)
    put_organization_key(path, first)
    assert put_organization_key(path, mixed).created
    assert read_organization_key(path).key_ids == mixed.key_ids
    assert {key.key_ids for key in Keyring.load(path).keys} == {first.key_ids, mixed.key_ids}


# ---- for a node ------------------------------------------------------------------------------------------------------


def test_export_for_a_node_contains_the_organization_key_alone(tmp_path: Path):
    create_key_files(tmp_path, passphrase="six words are better than one")
    key = read_organization_key(tmp_path / "organization.pem", "six words are better than one")
    export_for_node(
        key,
        tmp_path / "for-node.pem",
        governance=tmp_path / "governance.pem",
        passphrase="six words are better than one",
    )
    assert read_organization_key(tmp_path / "for-node.pem").key_ids == key.key_ids
    governance = read_signing_key(tmp_path / "governance.pem", "six words are better than one")
    assert governance.fingerprint not in {key.fingerprint, key.task_signing.fingerprint}
    assert stat.S_IMODE((tmp_path / "for-node.pem").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        export_for_node(key, tmp_path / "for-node.pem", governance=tmp_path / "none.pem")


def test_organization_that_signs_tasks_with_its_governance_key_exports_nothing(tmp_path: Path):
    governance = organization("Alpha").governance_key
    put_signing_key(tmp_path / "governance.pem", governance)
    same = OrganizationKey(organization_key("Alpha").encryption, governance)
    with pytest.raises(FolkmootError, match="a node must not have it"):
        export_for_node(same, tmp_path / "for-node.pem", governance=tmp_path / "governance.pem")
    assert not (tmp_path / "for-node.pem").exists()
