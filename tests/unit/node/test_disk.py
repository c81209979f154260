"""What a job's scratch takes of the disk, whatever an algorithm does to hide it, and when that ends its run."""

import asyncio
import os
from pathlib import Path

import pytest

from folkmoot.node.storage import disk
from folkmoot.node.storage.disk import DEEPEST, ENTRY_BYTES, Disk, measure
from folkmoot.node.storage.scratch import Scratch
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.polling import until

MUCH = 1 << 30
JOB = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


def nest(folder: Path, depth: int) -> None:
    """Make folders within folders, deeper than any path can name."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)


def test_files_count_with_what_they_take(volume: Path):
    (volume / "folder").mkdir()
    (volume / "folder/data").write_bytes(os.urandom(1 << 20))
    assert 1 << 20 <= measure(volume, MUCH).size_bytes <= (1 << 20) + 4 * ENTRY_BYTES


def test_empty_files_count_too(volume: Path):
    for number in range(100):
        (volume / str(number)).touch()
    assert measure(volume, MUCH).size_bytes == 100 * ENTRY_BYTES


def test_a_hole_takes_no_room(volume: Path):
    with (volume / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert measure(volume, MUCH).size_bytes == ENTRY_BYTES


def test_a_second_name_is_no_second_file(volume: Path):
    (volume / "one").write_bytes(bytes(1 << 20))
    (volume / "two").hardlink_to(volume / "one")
    assert measure(volume, MUCH).size_bytes < (1 << 20) + 2 * ENTRY_BYTES


def test_links_out_of_scratch_are_not_followed(volume: Path, tmp_path: Path):
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/large").write_bytes(bytes(8 << 20))
    (volume / "file").symlink_to(tmp_path / "large")
    (volume / "folder").symlink_to(tmp_path / "folder")
    (volume / "root").symlink_to("/")
    assert measure(volume, MUCH).size_bytes == 3 * ENTRY_BYTES


def test_folders_without_end_count_as_too_much(volume: Path):
    nest(volume, DEEPEST + 1)
    assert measure(volume, MUCH).size_bytes > MUCH


def test_measuring_stops_at_the_limit(volume: Path):
    for number in range(1000):
        (volume / str(number)).touch()
    assert measure(volume, 10 * ENTRY_BYTES).size_bytes == 11 * ENTRY_BYTES


def test_what_cannot_be_looked_into_is_told(volume: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder that another user closed; tests may run as root, to whom nothing is closed."""
    (volume / "closed").mkdir()
    opened = os.open

    def refuse(path, *rest, **named):
        if path == "closed":
            raise PermissionError
        return opened(path, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    assert measure(volume, MUCH).hidden


def test_a_volume_that_is_gone_takes_nothing(tmp_path: Path):
    assert measure(tmp_path / "gone", MUCH).size_bytes == 0


async def test_a_volume_that_grows_too_large_is_told(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0)
    waiting = asyncio.create_task(Disk(volume, reserve_bytes=0).overrun(JOB, volume, 1 << 20))
    (volume / "file").write_bytes(bytes(2 << 20))
    assert "more than" in await waiting


async def test_on_a_full_disk_the_job_that_takes_most_goes_first(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0)
    (volume / "file").write_bytes(bytes(2 << 20))
    full = Disk(volume, reserve_bytes=1 << 62)
    full._taken["another job"] = disk.Taken(hidden=False, size_bytes=3 << 20)
    waiting = asyncio.create_task(full.overrun(JOB, volume, MUCH))
    await until(lambda: JOB in full._taken)
    assert not waiting.done()
    del full._taken["another job"]
    assert "nearly full" in await waiting


async def test_on_a_full_disk_a_job_that_has_written_nothing_stays(volume: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disk, "PAUSE_SECONDS", 0)
    full = Disk(volume, reserve_bytes=1 << 62)
    measured = asyncio.Event()

    def counting(*_: object) -> disk.Taken:
        measured.set()
        return disk.Taken(hidden=False, size_bytes=0)

    monkeypatch.setattr(disk, "measure", counting)
    waiting = asyncio.create_task(full.overrun(JOB, volume, MUCH))
    for _ in range(3):
        measured.clear()
        await measured.wait()
    assert not waiting.done()
    waiting.cancel()


def test_without_the_reserve_nothing_starts(tmp_path: Path):
    Disk(tmp_path, reserve_bytes=0).require_room()
    with pytest.raises(FolkmootError) as refusal:
        Disk(tmp_path, reserve_bytes=1 << 62).require_room()
    assert refusal.value.reason == ErrorReason.ERROR_REASON_DISK_FULL


def test_folders_without_end_are_cleared_away(tmp_path: Path):
    scratch = Scratch(tmp_path / "scratch")
    nest(scratch.open(JOB, organization_id="o", first_use=True), 2000)
    scratch.remove(JOB)
    assert not (tmp_path / "scratch" / JOB).exists()


def test_clearing_away_follows_no_links(tmp_path: Path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    scratch = Scratch(tmp_path / "scratch")
    files = scratch.open(JOB, organization_id="o", first_use=True)
    (files / "link").symlink_to(kept)
    scratch.remove(JOB)
    assert (kept / "file").exists()
