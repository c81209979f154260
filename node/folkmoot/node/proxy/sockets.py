"""Folders and paths of the sockets that runs see.

RUNTIME_DIRECTORY      0700   nobody else on this machine comes past it; a container's mount doesn't come along here
└── RUN_NAME           0711   mounted read-only: an algorithm may pass and connect, not list, make or remove
    └── proxy.sock     0666   the algorithm has another user id than the node
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

SOCKET_NAME = "proxy.sock"
ADMIN_SOCKET_NAME = "admin.sock"
"""For people at the station, in the state directory: 0600."""
SOCKET_PATH_BYTES = 107
"""What the kernel's address of a Unix socket has room for."""


def prepare_folder(folder: Path) -> Path:
    """Make a run's folder, or set right what is there; return the path of its socket. FolkmootError says what is wrong."""
    path = socket_path(folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.parent.stat()
    if found.st_uid != os.geteuid():
        raise _refused(
            f"{folder.parent} is another user's, who comes past it; run `chown {os.geteuid()} {folder.parent}`, or choose another"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise _refused(f"{folder.parent} is open to other users; run `chmod 700 {folder.parent}`")
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    return path


def socket_path(folder: Path) -> Path:
    """Return the path of a folder's socket, if a socket can have it."""
    path = folder / SOCKET_NAME
    if (excess := len(os.fsencode(path)) - SOCKET_PATH_BYTES) > 0:
        raise _refused(f"{path} is {excess} bytes too long for a socket; choose a shorter runtime_directory")
    return path


@contextmanager
def reachable_path(path: Path) -> Iterator[Path]:
    """A path by which a socket can be bound or reached while the block runs, however long its own path is."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        yield path
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield Path(f"/proc/self/fd/{folder}") / path.name
    finally:
        os.close(folder)


def _refused(text: str) -> FolkmootError:
    return FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, text)
