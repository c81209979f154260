"""A full disk, told as what it is: whoever asked is answered DISK_FULL, nothing is half written, and what was promised waits for room."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_SQLITE_CODES = (13, 4874)
"""SQLITE_FULL, and SQLITE_IOERR_SHMSIZE: no room for the index of the write-ahead log."""


class DiskFull(FolkmootError):  # noqa: N818 - as all of the tree
    """There is no room on the disk of this process."""

    def __init__(self) -> None:
        super().__init__(
            ErrorReason.ERROR_REASON_DISK_FULL, "there is no room on the disk; nothing was written, try again later"
        )


def disk_full(error: BaseException) -> DiskFull | None:
    """Return what an error of the system, of SQLite or of SQLAlchemy means if the disk is full, else None."""
    cause = getattr(error, "orig", None) or error
    is_full = getattr(cause, "sqlite_errorcode", None) in _SQLITE_CODES or (
        isinstance(cause, OSError) and cause.errno in _ERRNOS
    )
    return DiskFull() if is_full else None


@contextmanager
def told_if_full() -> Iterator[None]:
    """Raise DiskFull for what fails inside because the disk is full."""
    try:
        yield
    except Exception as error:
        if (full := disk_full(error)) is not None:
            raise full from error
        raise
