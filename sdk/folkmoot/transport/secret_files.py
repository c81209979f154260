"""Secrets in files: for their owner's eyes alone, and on the disk, name included, before anybody is told of them.

A key that is half written, or whose name a power cut takes away after it was admitted somewhere, would lock its owner out.
"""

import os
from pathlib import Path


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file whole or not at all; raise FileExistsError for one that is there, unless it is to be replaced."""
    if not replace and path.exists():
        raise FileExistsError(path)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
