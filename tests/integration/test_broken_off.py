"""Backups and restores that break off, or go where they can't: nothing of it is ever taken for a whole server or backup."""

import errno
import io
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from folkmoot.cli.exits import Exit
from folkmoot.server.operation import backup as backups
from folkmoot.server.operation import check as checks
from folkmoot.server.operation import copies, data_folder
from folkmoot.server.operation import restore as restores
from folkmoot.server.store import dumps
from folkmoot.server.tokens import load_or_make_key
from tests.chaos.disks import fill, small_disk
from tests.integration.operating import command

KEY = "keys/token.pem"
PART = f"payloads/ab/{'ab' * 32}/00000"


class Killed(BaseException):
    """Nothing that comes after it is done, as when a process is killed."""


def killed(*_: object, **__: object) -> None:
    raise Killed


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)


@pytest.fixture
def one(tmp_path: Path, settings: Callable[..., Path]) -> Path:
    """The settings of a server with tables, a key and a payload."""
    file = settings("one")
    assert command("migrate", "--settings", file) == Exit.OK
    load_or_make_key(tmp_path / "one" / KEY)
    put(tmp_path / "one" / PART, b"sealed")
    return file


@pytest.fixture
def kept(tmp_path: Path, one: Path) -> Path:
    """A backup of it."""
    assert command("backup", tmp_path / "kept", "--settings", one) == Exit.OK
    return tmp_path / "kept"


# ---- restore -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["copy_folder", "copy_parts", "_restore_database", "sync_below"])
def test_restore_that_broke_off_is_no_server_until_another_one_has_ended(
    kept, tmp_path, settings, capsys, monkeypatch, at
):
    file, data = settings("two"), tmp_path / "two"
    with monkeypatch.context() as patched:
        patched.setattr(restores, at, killed)
        with pytest.raises(Killed):
            command("restore", kept, "--settings", file)
    before = set(data.rglob("*"))
    capsys.readouterr()
    refused = [
        ("start", "--settings", file),
        ("migrate", "--settings", file),
        ("backup", tmp_path / "again", "--settings", file),
        ("init", "--yes", "--settings", tmp_path / "new.toml", "--data", data),
    ]
    for one in refused:
        assert command(*one) == Exit.USAGE, one
        said = capsys.readouterr().err
        assert "has not ended" in said or "no server" in said
        assert one[0] == "backup" or "folkmoot server restore" in said
    assert command("check", "--settings", file) == Exit.STATE
    assert "run `folkmoot server restore` again" in capsys.readouterr().out
    assert before <= set(data.rglob("*"))

    assert command("restore", kept, "--settings", file) == Exit.OK
    assert (data / KEY).read_bytes() == (tmp_path / "one" / KEY).read_bytes()
    assert (data / PART).read_bytes() == b"sealed"
    assert not (data / data_folder.RESTORING_FILE).exists()
    assert command("check", "--settings", file) == Exit.OK


def test_next_restore_removes_only_what_the_last_one_has_put_there(kept, tmp_path, settings, monkeypatch, capsys):
    payloads = tmp_path / "elsewhere"
    file, data = settings("two", payloads=payloads.as_uri()), tmp_path / "two"
    with monkeypatch.context() as patched:
        patched.setattr(restores, "_restore_database", killed)
        with pytest.raises(Killed):
            command("restore", kept, "--settings", file)
    half = payloads / "cd" / ("cd" * 32) / "00000"
    put(half, b"of another backup")
    put(data / "notes.txt", b"of the operator")
    assert command("restore", kept, "--settings", file) == Exit.USAGE
    assert "notes.txt" in capsys.readouterr().err
    assert half.exists()
    (data / "notes.txt").rename(tmp_path / "notes.txt")
    assert command("restore", kept, "--settings", file) == Exit.OK
    assert not half.exists()
    assert (payloads / PART.removeprefix("payloads/")).read_bytes() == b"sealed"


@pytest.mark.needs_postgres
def test_restore_into_postgresql_that_broke_off_can_be_run_again(
    one, tmp_path, settings, database_url, monkeypatch, capsys
):
    kept = tmp_path / "portable"
    assert command("backup", kept, "--portable", "--settings", one) == Exit.OK
    file = settings("two", database=database_url)
    with monkeypatch.context() as patched:
        patched.setattr(dumps, "_continue_numbers", killed)
        with pytest.raises(Killed):
            command("restore", kept, "--settings", file)
    assert command("start", "--settings", file) == Exit.USAGE
    assert "has not ended" in capsys.readouterr().err
    assert command("restore", kept, "--settings", file) == Exit.OK
    assert command("check", "--settings", file) == Exit.OK


def test_nobody_else_uses_a_folder_while_a_restore_goes_on(kept, tmp_path, settings, monkeypatch, capsys):
    file = settings("two")

    def meanwhile(*_: object) -> None:
        assert command("migrate", "--settings", file) == Exit.USAGE
        assert "a restore uses the data folder" in capsys.readouterr().err
        assert command("restore", kept, "--settings", file) == Exit.USAGE
        raise Killed

    monkeypatch.setattr(restores, "_restore_database", meanwhile)
    with pytest.raises(Killed):
        command("restore", kept, "--settings", file)


# ---- backup --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["backup", "payloads/backup", "deep/er", "../linked/backup"])
def test_backup_into_what_it_copies_is_refused(one, tmp_path, capsys, inside):
    (tmp_path / "linked").symlink_to(tmp_path / "one")
    target = tmp_path / "one" / inside
    assert command("backup", target, "--settings", one) == Exit.USAGE
    assert "name a folder elsewhere" in capsys.readouterr().err
    assert not target.exists()


def test_backup_into_the_folder_of_payloads_is_refused(one, tmp_path, settings, capsys):
    file = settings("one", payloads=(tmp_path / "elsewhere").as_uri())
    assert command("backup", tmp_path / "elsewhere" / "backup", "--settings", file) == Exit.USAGE
    assert "name a folder elsewhere" in capsys.readouterr().err


def test_backup_takes_an_empty_folder_and_no_other(one, tmp_path, capsys):
    empty, full = tmp_path / "empty", tmp_path / "full"
    empty.mkdir(mode=0o755)
    assert command("backup", empty, "--settings", one) == Exit.OK
    assert {path.name for path in empty.iterdir()} == {"data", "folkmoot.db", "manifest.json", "payloads"}
    assert empty.stat().st_mode & 0o077 == 0
    put(full / "other", b"")
    for target in (empty, full):
        assert command("backup", target, "--settings", one) == Exit.USAGE
        assert "name a new" in capsys.readouterr().err


def test_backup_that_was_killed_looks_like_none(one, tmp_path, capsys, monkeypatch, settings):
    target = tmp_path / "kept"
    with monkeypatch.context() as patched:
        patched.setattr(backups, "sync_below", killed)
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(Killed):
            command("backup", target, "--settings", one)
    assert [path.name for path in target.iterdir()] == [backups.UNFINISHED]
    assert command("restore", target, "--settings", settings("two")) == Exit.USAGE
    assert "is no whole backup" in capsys.readouterr().err
    assert command("backup", target, "--settings", one) == Exit.USAGE
    assert "broke off" in capsys.readouterr().err


def test_backup_that_fails_leaves_nothing(one, tmp_path, monkeypatch):
    monkeypatch.setattr(backups, "_copy_database", killed)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(Killed):
            command("backup", tmp_path / name, "--settings", one)
    assert not (tmp_path / "new").exists()
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.needs_mounts
@pytest.mark.parametrize("full", ["payloads", "database", "keys"])
def test_backup_to_a_full_disk_says_so_and_leaves_nothing(one, tmp_path, capsys, monkeypatch, full):
    disk = tmp_path / "disk"
    step = {"payloads": "copy_parts", "database": "_copy_database", "keys": "copy_folder"}[full]
    work = getattr(backups, step)

    def when_full(*arguments: object, **options: object) -> object:
        fill(disk)
        return work(*arguments, **options)

    with small_disk(disk, mebibytes=4):
        monkeypatch.setattr(backups, step, when_full)
        assert command("backup", disk / "kept", "--settings", one) == Exit.UNREACHABLE
        assert "no room for the backup" in capsys.readouterr().err
        assert not (disk / "kept").exists()


@pytest.mark.needs_mounts
def test_links_to_another_disk_are_refused_with_what_to_do(one, tmp_path, capsys):
    with small_disk(tmp_path / "disk", mebibytes=4):
        assert command("backup", tmp_path / "disk" / "kept", "--link", "--settings", one) == Exit.USAGE
        assert "leave --link out" in capsys.readouterr().err


def test_payloads_that_are_removed_while_they_are_copied_stop_nothing(tmp_path):
    source, target = tmp_path / "from", tmp_path / "to"
    for first in range(16):
        put(source / f"{first:02x}" / f"{first:02x}{'0' * 62}" / "00000", b"sealed")
    copied = io.StringIO()

    def copy(path: Path, there: Path) -> None:
        copies.copy_file(path, there)
        copied.write(path.parent.name[:2])
        shutil.rmtree(source / "0f", ignore_errors=True)
        shutil.rmtree(path.parent)

    copies.copy_parts(source, target, copy)
    assert copied.getvalue() == "".join(f"{first:02x}" for first in range(15))


# ---- what the system refuses ---------------------------------------------------------------------------------------


def test_what_the_system_refuses_is_told_with_the_path_and_as_no_fault_of_ours(one, kept, tmp_path, settings, capsys):
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "below"
    for arguments in (
        ("backup", below, "--settings", one),
        ("restore", kept, "--data", below),
        ("init", "--yes", "--settings", tmp_path / "new.toml", "--data", below),
        ("start", "--data", below),
    ):
        capsys.readouterr()
        assert command(*arguments) == Exit.STATE, arguments
        said = capsys.readouterr().err
        assert str(below) in said
        assert "FOLKMOOT_DEBUG" not in said


def test_database_that_is_away_is_told_by_every_command(kept, one, tmp_path, settings, capsys):
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = settings("two", database=f"postgresql://me@127.0.0.1:{free.getsockname()[1]}/x")
        for arguments in (("backup", tmp_path / "b"), ("migrate",), ("start",), ("events", "verify")):
            capsys.readouterr()
            assert command(*arguments, "--settings", away) == Exit.STATE, arguments
            said = capsys.readouterr().err
            assert "folkmoot server check" in said
            assert "refused" in said
            assert "FOLKMOOT_DEBUG" not in said


def test_file_of_another_user_is_named_with_the_user_who_needs_it(one, capsys, monkeypatch):
    def not_ours(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "keys/token.pem")

    monkeypatch.setattr(checks, "CHECKS", {"disk": not_ours})
    assert command("check", "--settings", one) == Exit.STATE
    said = capsys.readouterr().out
    assert "keys/token.pem is not for this user" in said
    assert "chown it" in said
