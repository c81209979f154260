"""Key files are made once, reused, and never overwritten."""

import stat
from pathlib import Path

import pytest

from folkmoot.client import FolkmootError
from folkmoot.client.keyfiles import EncryptionKind, create_key_files, read_signing_key
from folkmoot.transport.keyring import read_organization_key
from folkmoot.trust import RsaKey
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.keys_pb2 import KeyKind
from tests.builders import rsa_key


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
