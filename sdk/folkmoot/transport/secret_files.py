"""Secrets in files: for their owner's eyes alone, and on the disk, name included, before anybody is told of them.

A key that is half written, or whose name a power cut takes away after it was admitted somewhere, would lock its owner out.
"""

import os
import tempfile
from pathlib import Path

from folkmoot.transport.durable import sync_folder


def write_secret(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file whole or not at all, also beside others who write it; raise FileExistsError for one that is there, unless it is to be replaced."""
    if not replace and path.exists():
        raise FileExistsError(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            _name(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _name(beside: Path, path: Path) -> None:
    """Give a file its name. Unlike renaming, linking never takes the place of one that somebody has made meanwhile."""
    try:
        os.link(beside, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        beside.replace(path)
