"""The data folder: keys, certificates and, where nothing else is set, the database and the payloads; its owner's alone.

With SQLite one process has it for itself. Servers that share a PostgreSQL may share the folder as well.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from folkmoot.server.config import Config
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

DATABASE_FILE = "folkmoot.db"
LOCK_FILE = "lock"
MAKING_FILE = "lock-making"


@contextmanager
def opened(config: Config) -> Iterator[Path]:
    """Make the folder if it is not there and take it, if the database lies in it. Raises INVALID_FIELD if another has it."""
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.database:
        yield config.data
        return
    # Two servers on one file would each think that they know all.
    with (config.data / LOCK_FILE).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FolkmootError(
                errors_pb2.ERROR_REASON_INVALID_FIELD,
                f"another server uses the data folder {config.data}: stop it first",
            ) from error
        yield config.data


@contextmanager
def making(data: Path) -> Iterator[None]:
    """Let one process at a time make keys and certificates: instances that start together on one folder find them made."""
    with (data / MAKING_FILE).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
