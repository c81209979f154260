"""What a module's source is: the hash that a process image is pinned by."""

import hashlib
import importlib.util
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path


def tree_hash(module: str) -> bytes:
    """Return SHA-256 over a module's source files, without running them; ModuleNotFoundError if there is no such module.

    A package's are all `*.py` below its folder, by their paths inside of it; a plain module's is its one file. They are sorted by path;
    hashed are PAE(path, content) of each, one after the other, paths with "/" and in UTF-8.
    """
    specification = importlib.util.find_spec(module)
    if specification is None or specification.origin is None:
        raise ModuleNotFoundError(f"no module named {module!r} with source", name=module)
    origin = Path(specification.origin)
    return hash_files(
        _package_files(origin.parent) if specification.submodule_search_locations else [(origin.name, origin)]
    )


def hash_files(files: Iterable[tuple[str, Path]]) -> bytes:
    """Return the hash over files, each with the path that it is known by."""
    hashed = hashlib.sha256()
    for path, file in sorted(files):
        hashed.update(_pae(path.encode(), file.read_bytes()))
    return hashed.digest()


def _package_files(folder: Path) -> Iterator[tuple[str, Path]]:
    return ((file.relative_to(folder).as_posix(), file) for file in folder.rglob("*.py"))


def _pae(*parts: bytes) -> bytes:
    """Pre-authentication encoding, as everywhere in Folkmoot: lengths before parts, little-endian."""
    return struct.pack("<Q", len(parts)) + b"".join(struct.pack("<Q", len(part)) + part for part in parts)
