"""Keys are only ever added: whoever holds the files opens all that was sealed to them, and signs with what the ledger shows now."""

import logging
import os
import stat
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.transport import keyring as module
from folkmoot.transport.keyring import Keyring, read_organization_key
from folkmoot.transport.secret_files import write_secret
from folkmoot.trust import KeyMismatch, KeyUnpublished, Member, OrganizationKey, SigningKey, XWingKey
from folkmoot.v1.keys_pb2 import OrganizationKeys
from tests.builders import organization, world


def key(name: str) -> OrganizationKey:
    return organization(name).organization_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Keyring(tmp_path / "organization.pem").add(key("Alpha"))
    return tmp_path / "organization.pem"


@pytest.fixture
def alpha() -> Member:
    """Alpha, whose key is in the file, as the ledger shows it."""
    lung = world(("Alpha", "Beta"))
    return lung.state.member("Alpha")


def rotated(member: Member, to: OrganizationKey) -> Member:
    keys = OrganizationKeys(encryption=to.encryption.public, task_signing=to.task_signing.public)
    return replace(member, keys=keys)


def test_first_key_becomes_the_current_one_and_others_lie_beside(path: Path):
    keyring = Keyring.load(path).add(key("Next"))
    beside = path.with_name(f"organization.{key('Next').fingerprint[:12]}.pem")
    assert read_organization_key(path).fingerprint == key("Alpha").fingerprint
    assert read_organization_key(beside).fingerprint == key("Next").fingerprint
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert [each.fingerprint for each in Keyring.load(path).keys] == [each.fingerprint for each in keyring.keys]


def test_ledger_says_which_key_signs_and_all_of_them_open(path: Path, alpha: Member):
    keyring = Keyring.load(path).add(key("Next"))
    assert keyring.for_member(alpha).fingerprint == key("Alpha").fingerprint
    assert keyring.for_member(rotated(alpha, key("Next"))).fingerprint == key("Next").fingerprint
    assert set(keyring.decryption_keys()) == {key("Alpha").encryption.key_id, key("Next").encryption.key_id}


def test_another_key_in_the_ledger_is_refused_with_both_fingerprints_and_nothing_is_changed(path: Path, alpha: Member):
    before = sorted((each.name, each.read_bytes()) for each in path.parent.iterdir())
    with pytest.raises(KeyMismatch) as refused:
        Keyring.load(path).for_member(rotated(alpha, key("Mallory")))
    for told in (key("Alpha").fingerprint, key("Mallory").fingerprint, "vault get", "key rotate --import"):
        assert told in refused.value.message
    assert sorted((each.name, each.read_bytes()) for each in path.parent.iterdir()) == before


def test_half_of_a_key_is_not_the_key(path: Path, alpha: Member):
    """A ledger with the right encryption key and another task-signing key is another key."""
    half = OrganizationKey(key("Alpha").encryption, key("Mallory").task_signing)
    with pytest.raises(KeyMismatch):
        Keyring.load(path).for_member(rotated(alpha, half))


def test_member_without_keys_is_told_how_to_publish(path: Path, alpha: Member):
    nothing: Any = {"keys": None, "key_claim": None}
    without = replace(alpha, **nothing)
    with pytest.raises(KeyUnpublished, match="key publish") as refused:
        Keyring.load(path).for_member(without)
    assert key("Alpha").fingerprint in refused.value.message


def test_making_a_key_current_keeps_the_former_one(path: Path):
    keyring = Keyring.load(path).make_current(key("Next"))
    assert read_organization_key(path).fingerprint == key("Next").fingerprint
    assert keyring.keys[0].fingerprint == key("Next").fingerprint
    assert {each.fingerprint for each in Keyring.load(path).keys} == {key("Alpha").fingerprint, key("Next").fingerprint}
    back = keyring.make_current(key("Alpha"))
    assert read_organization_key(path).fingerprint == key("Alpha").fingerprint
    assert len(back.keys) == len(Keyring.load(path).keys) == 2


@pytest.mark.parametrize("write", [1, 2])
def test_crash_at_any_write_loses_no_key_and_can_be_repeated(path: Path, write: int, monkeypatch: pytest.MonkeyPatch):
    """A power cut at the first or second file that making a key current writes."""
    written, real = [], write_secret

    def cut(*arguments: object, **options: object) -> None:
        written.append(arguments)
        if len(written) == write:
            raise SystemError("power cut")
        real(*arguments, **options)  # type: ignore[arg-type]

    coming = Keyring.load(path).add(key("Next"))
    monkeypatch.setattr(module, "write_secret", cut)
    with pytest.raises(SystemError):
        coming.make_current(key("Next"))
    monkeypatch.undo()
    after = Keyring.load(path)
    assert {each.fingerprint for each in after.keys} == {key("Alpha").fingerprint, key("Next").fingerprint}
    after.make_current(key("Next"))
    assert read_organization_key(path).fingerprint == key("Next").fingerprint


def test_unreadable_file_beside_is_named(path: Path, alpha: Member, caplog: pytest.LogCaptureFixture):
    foreign = path.with_name("organization.backup.pem")
    foreign.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    with caplog.at_level(logging.WARNING):
        keyring = Keyring.load(path)
    assert [each.path for each in keyring.unread] == [foreign]
    assert str(foreign) in caplog.text
    with pytest.raises(KeyMismatch, match=r"organization\.backup\.pem"):
        keyring.for_member(rotated(alpha, key("Mallory")))


def test_damaged_key_file_is_refused_even_if_others_lie_beside(path: Path):
    Keyring.load(path).add(key("Next"))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(KeyMismatch, match=str(path)):
        Keyring.load(path)


def test_keys_beside_a_missing_file_are_used(path: Path):
    Keyring.load(path).add(key("Next"))
    path.unlink()
    assert [each.fingerprint for each in Keyring.load(path).keys] == [key("Next").fingerprint]


def test_no_key_at_all_says_where_to_get_one(tmp_path: Path):
    with pytest.raises(KeyMismatch, match="vault get"):
        Keyring.load(tmp_path / "organization.pem")


def test_adding_twice_writes_once(path: Path):
    keyring = Keyring.load(path).add(key("Next"))
    listed = sorted(path.parent.iterdir())
    assert keyring.add(key("Next")) == keyring
    Keyring.load(path).add(key("Next"))
    assert sorted(path.parent.iterdir()) == listed


def test_file_that_lies_about_its_key_is_never_overwritten(path: Path):
    liar = path.with_name(f"organization.{key('Next').fingerprint[:12]}.pem")
    Keyring(liar).add(key("Mallory"))
    with pytest.raises(KeyMismatch, match="another key than its name says"):
        Keyring.load(path).add(key("Next"))
    assert read_organization_key(liar).fingerprint == key("Mallory").fingerprint


def test_passphrase_protects_what_is_added(tmp_path: Path):
    new = OrganizationKey(XWingKey.generate(os.urandom), SigningKey.generate(os.urandom))
    path = tmp_path / "organization.pem"
    Keyring(path, passphrase="six words are better than one").add(new)
    with pytest.raises(KeyMismatch, match="passphrase"):
        Keyring.load(path)
    keyring = Keyring.load(path, "six words are better than one")
    assert keyring.keys[0].fingerprint == new.fingerprint
    assert "six words" not in repr(keyring)


KEYS = [key(name) for name in ("One", "Two", "Three", "Four")]
STEPS = st.lists(st.tuples(st.sampled_from(["add", "make current"]), st.integers(0, 3), st.integers(0, 3)), max_size=8)


@given(steps=STEPS)
def test_no_sequence_of_changes_and_crashes_loses_a_key(steps: list[tuple[str, int, int]]):
    """Each step may be cut off at its first, second or third write, or not at all; whatever was there before is there after."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "organization.pem"
        held: set[bytes] = set()
        for change, number, cut_at in steps:
            writes = 0

            def write(*arguments: Any, cut_at: int = cut_at, **options: Any) -> None:
                nonlocal writes
                writes += 1
                if writes == cut_at:
                    raise SystemError("power cut")
                write_secret(*arguments, **options)

            patch.setattr(module, "write_secret", write)
            keyring = Keyring.load(path) if path.exists() else Keyring(path)
            try:
                changed = keyring.add(KEYS[number]) if change == "add" else keyring.make_current(KEYS[number])
            except SystemError:
                changed = None
            there = Keyring.load(path) if path.exists() else Keyring(path)
            now = {each.encryption.key_id for each in there.keys}
            assert held <= now
            assert there.unread == ()
            if changed is not None:
                assert KEYS[number].encryption.key_id in now
                assert change == "add" or there.keys[0].key_ids == KEYS[number].key_ids
            held = now
