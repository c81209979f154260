"""The power goes at the worst instant: no key is ever half there, and none is told of before its file is on the disk."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from folkmoot.client.keyfiles import create_key_files
from folkmoot.node.trust.keys import make_node_key, read_node_key
from folkmoot.server.tokens import load_or_make_key
from folkmoot.transport.secret_files import write_secret

MAKERS: dict[str, Callable[[Path], object]] = {
    "node.pem": lambda folder: make_node_key(folder / "node.pem"),
    "governance.pem": create_key_files,
    "token.pem": lambda folder: load_or_make_key(folder / "token.pem"),
}


class PowerCut(BaseException):
    """Nothing runs after it."""


@pytest.mark.parametrize("name", MAKERS)
def test_a_key_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    def cut(_descriptor: int) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut)
        with pytest.raises(PowerCut):
            MAKERS[name](tmp_path)
    assert not (tmp_path / name).exists()
    MAKERS[name](tmp_path)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("name", MAKERS)
def test_a_keys_name_is_on_the_disk_before_anybody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    synced: list[Path] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    MAKERS[name](tmp_path)
    assert synced[-1] == tmp_path


def test_two_processes_that_make_one_key_at_once_have_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = make_node_key(tmp_path / "node.pem")
    looked = iter([False, False])
    monkeypatch.setattr(Path, "exists", lambda _: next(looked, True))  # as it was when the other one looked
    assert make_node_key(tmp_path / "node.pem").seed == first.seed


def test_a_key_that_is_there_is_never_overwritten(tmp_path: Path):
    key = make_node_key(tmp_path / "node.pem")
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "node.pem", b"another")
    assert read_node_key(tmp_path / "node.pem").seed == key.seed
