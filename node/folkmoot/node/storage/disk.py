"""The node's disk: how much of it a job's scratch takes, and whether there is room for more.

Files that algorithms write have no bound of their own that holds on every file system, so the node measures. A run whose job takes
more than its policy gives is ended; its largest single file is bounded by the kernel (runtimes/hardening.py) meanwhile. Nothing new starts
when less than the reserve is free, and while that is so the run is ended whose job takes most. What it costs is bounded: a measurement
goes on until it is over the limit and no further, and takes at most a tenth of the time.

A folder that the node may not read (it does not run as root, and the algorithm closed the folder) can't be measured: it is told in the
log, and such a job is the first to be ended when the disk gets full.
"""

import asyncio
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

ENTRY_BYTES = 4096
"""What a file or folder counts at least: names and inodes are used up, too."""

DEEPEST = 64
"""Folders below this depth are not looked into; they count as more than any limit."""

PAUSE_SECONDS = 1.0
SHARE_OF_TIME = 10
"""A measurement is followed by a pause of that many times its duration."""

FREE_INODES_PERCENT = 2
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system

log = structlog.get_logger("folkmoot.node.storage.disk")


@dataclass(frozen=True, order=True)
class Taken:
    """What a folder takes. `hidden`: there is something in it that can't be looked into, so it is more than that."""

    hidden: bool
    size_bytes: int


class Disk:
    """The disk below one folder, and the jobs that write to it."""

    def __init__(self, folder: Path, *, reserve_bytes: int) -> None:
        self._folder = folder
        self._reserve_bytes = reserve_bytes
        self._taken: dict[str, Taken] = {}

    def has_room(self) -> bool:
        """Whether the reserve is free."""
        free = os.statvfs(self._folder)
        inodes = not free.f_files or 100 * free.f_favail >= FREE_INODES_PERCENT * free.f_files
        return inodes and free.f_bavail * free.f_frsize >= self._reserve_bytes

    def require_room(self) -> None:
        """Raise FolkmootError (DISK_FULL) unless the reserve is free."""
        if not self.has_room():
            log.error("disk.full", folder=str(self._folder), reserve_bytes=self._reserve_bytes)
            raise FolkmootError(
                ErrorReason.ERROR_REASON_DISK_FULL,
                f"less than {self._reserve_bytes} bytes (reserve_disk_bytes of node.toml) or {FREE_INODES_PERCENT} % of the inodes are free "
                f"where {self._folder} lies",
            )

    async def overrun(self, job_id: str, volume: Path, most_bytes: int) -> str:
        """Wait until a job's volume takes more than it may; say what has happened."""
        warned = False
        try:
            while True:
                began = time.monotonic()
                taken = self._taken[job_id] = await asyncio.to_thread(measure, volume, most_bytes)
                if taken.size_bytes > most_bytes:
                    return f"the scratch of its job takes more than {most_bytes} bytes"
                if taken.hidden and not warned:
                    warned = True
                    log.warning(
                        "scratch.not_measured", job_id=job_id, help="run the node as root to look into every folder"
                    )
                if self._is_first_to_go(taken):
                    return "the disk is nearly full, and the scratch of its job takes most of it"
                await asyncio.sleep(max(PAUSE_SECONDS, SHARE_OF_TIME * (time.monotonic() - began)))
        finally:
            self._taken.pop(job_id, None)

    def _is_first_to_go(self, taken: Taken) -> bool:
        return (
            (taken.hidden or taken.size_bytes > ENTRY_BYTES)
            and not self.has_room()
            and taken == max(self._taken.values())
        )


def measure(folder: Path, most_bytes: int) -> Taken:
    """What a folder takes with all that is in it; stops as soon as that is more than `most_bytes`. Follows no links."""
    walk = _Walk(most_bytes)
    walk.enter(None, str(folder), 0)
    return Taken(walk.hidden, walk.size_bytes)


class _Walk:
    """One measurement. Folders are opened from their parents, so that none can be exchanged for a link to elsewhere."""

    def __init__(self, most_bytes: int) -> None:
        self.size_bytes = 0
        self.hidden = False
        self._most_bytes = most_bytes

    def enter(self, parent: int | None, name: str, depth: int) -> None:
        """Count what is in a folder."""
        if depth == DEEPEST:
            self.size_bytes = self._most_bytes + 1
            return
        try:
            here = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            return  # it has just gone
        except OSError:  # closed to this node, or put in the place of a folder just now
            self.hidden = True
            return
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    self._count(here, entry, depth)
                    if self.size_bytes > self._most_bytes:
                        return
        finally:
            os.close(here)

    def _count(self, parent: int, entry: "os.DirEntry[str]", depth: int) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # it has just gone
        except OSError:  # a folder that may be listed and not entered
            self.hidden = True
            self.size_bytes += ENTRY_BYTES
            return
        is_folder = stat.S_ISDIR(found.st_mode)
        names = 1 if is_folder else max(1, found.st_nlink)  # each counts its share; to remember them would take memory
        self.size_bytes += max(ENTRY_BYTES, found.st_blocks * _BLOCK_BYTES // names)
        if is_folder and self.size_bytes <= self._most_bytes:
            self.enter(parent, entry.name, depth + 1)
