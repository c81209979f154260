"""Copies of folders in which others go on working, and of which every byte and name is on disk when that is said."""

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from folkmoot.transport.durable import sync_folder

Copy = Callable[[Path, Path], None]


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, and its time: retention and tidying look at it."""
    shutil.copy2(source, target)


def copy_folder(source: Path, target: Path, *, leave_out: Collection[str] = ()) -> None:
    """Copy all files below a folder, but for those that have one of these names at its top (patterns are possible)."""
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in _entries(source):
        if any(fnmatch(path.name, pattern) for pattern in leave_out):
            continue
        if path.is_dir():
            copy_folder(path, target / path.name)
        elif path.is_file():
            _copy_if_there(path, target / path.name, copy_file)


def copy_parts(source: Path, target: Path, copy: Copy) -> None:
    """Copy the parts of payloads that are whole and not there yet. What goes away meanwhile was removed on purpose."""
    target.mkdir(mode=0o700, exist_ok=True)
    for prefix in _entries(source):
        for payload in _entries(prefix) if _is_prefix(prefix) else ():
            for part in _entries(payload):
                there = target / prefix.name / payload.name / part.name
                if part.name.isdecimal() and not there.exists():
                    there.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _copy_if_there(part, there, copy)


def remove_parts(folder: Path) -> None:
    """Remove all payloads from a folder, and nothing else that is in it."""
    for prefix in filter(_is_prefix, _entries(folder)):
        shutil.rmtree(prefix)


def sync_below(folder: Path) -> None:
    """Make durable all that is in a folder, names included."""
    for path in folder.rglob("*"):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def _is_prefix(path: Path) -> bool:
    """Whether it is one of the folders that payloads are spread over, by the first two digits of their names."""
    return len(path.name) == 2


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder; nothing if it is none (any more)."""
    with suppress(FileNotFoundError, NotADirectoryError):
        yield from sorted(folder.iterdir())


def _copy_if_there(source: Path, target: Path, copy: Copy) -> None:
    with suppress(FileNotFoundError):
        copy(source, target)
