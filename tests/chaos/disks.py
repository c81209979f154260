"""Disks that fill up: a file system of a few MiB in memory, and ballast that leaves no room on it."""

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BALLAST = "ballast"
_STEP_BYTES = 65536


@functools.cache
def mounts_lack() -> str | None:
    """Return why small disks can't be mounted here, None if they can."""
    if os.geteuid():
        return "mounting needs root"
    try:
        with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder), mebibytes=1):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return str(getattr(error, "stderr", "") or error).strip()


@contextmanager
def small_disk(folder: Path, *, mebibytes: int) -> Iterator[None]:
    """Have a folder be a disk of this size while the block runs. Needs root."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={mebibytes}m,mode=700"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "folkmoot-test", folder], capture_output=True, text=True, check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], capture_output=True, check=True)


def fill(folder: Path) -> None:
    """Leave not a byte on a folder's disk, also after somebody has made a little room."""
    with (folder / BALLAST).open("ab", buffering=0) as file:
        for step in (_STEP_BYTES, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(step)):
                    pass


def empty(folder: Path) -> None:
    """Make room again."""
    (folder / BALLAST).unlink()
