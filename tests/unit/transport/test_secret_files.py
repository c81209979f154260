"""Secrets in files: whole or not there, also when several processes write at once."""

import os
import stat
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from folkmoot.transport.secret_files import write_secret


def written_again_and_again(path: Path, letter: bytes) -> None:
    for _ in range(50):
        write_secret(path, letter * 100_000, replace=True)


def test_processes_that_replace_one_file_at_once_leave_it_whole(tmp_path: Path):
    path = tmp_path / "lung.heads"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for done in [pool.submit(written_again_and_again, path, letter) for letter in (b"a", b"b")]:
            done.result()
    assert path.read_bytes() in (b"a" * 100_000, b"b" * 100_000)
    assert list(tmp_path.iterdir()) == [path]


def test_key_that_another_process_has_made_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "node.pem"
    write_secret(path, b"theirs")
    monkeypatch.setattr(Path, "exists", lambda _: False)  # as it was when we looked
    with pytest.raises(FileExistsError):
        write_secret(path, b"ours")
    assert path.read_bytes() == b"theirs"
    assert [each.name for each in tmp_path.iterdir()] == ["node.pem"]


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "lung.heads"
    write_secret(path, b"before")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_secret(path, b"after", replace=True)
    assert path.read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["lung.heads"]


def test_nobody_else_reads_it(tmp_path: Path):
    write_secret(tmp_path / "node.pem", b"secret")
    assert stat.S_IMODE((tmp_path / "node.pem").stat().st_mode) == 0o600


def test_file_systems_without_links_have_keys_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unsupported(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", unsupported)
    write_secret(tmp_path / "node.pem", b"secret")
    assert (tmp_path / "node.pem").read_bytes() == b"secret"
