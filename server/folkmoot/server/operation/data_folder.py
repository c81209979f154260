"""The data folder: keys, certificates and, where nothing else is set, the database and the payloads; its owner's alone.

With SQLite one process has it for itself. Servers that share a PostgreSQL may share the folder as well, though not with a
restore. What a restore that broke off has left is no server: nobody begins to work on it, with keys and without the rest.
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
RESTORING_FILE = "restore-unfinished"
"""There from before a restore writes anything until all is there; it says what was being put where (`restore`)."""


@contextmanager
def opened(config: Config) -> Iterator[Path]:
    """Make the folder if it is not there, and take it. Raises INVALID_FIELD if another has it, or a restore into it has not ended."""
    with taken(config, alone=not config.database):
        refuse_unfinished(config.data)
        yield config.data


@contextmanager
def taken(config: Config, *, alone: bool) -> Iterator[None]:
    """Make the folder if it is not there, and have it: alone, or with others who are content with that. Raises INVALID_FIELD."""
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Two servers on one file would each think that they know all.
    with (config.data / LOCK_FILE).open("a+b") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            who = "a restore" if (config.data / RESTORING_FILE).exists() else "another server"
            raise _in_use(f"{who} uses the data folder {config.data}: stop it first") from error
        yield


def refuse_unfinished(data: Path) -> None:
    """Raise INVALID_FIELD for a folder into which something was begun to be restored, and not all of it has come."""
    if (data / RESTORING_FILE).exists():
        raise _in_use(
            f"a restore into {data} has not ended, so there is no whole server in it: run `folkmoot server restore` again,"
            " with the same settings, or empty the folder to begin anew"
        )


@contextmanager
def making(data: Path) -> Iterator[None]:
    """Let one process at a time make keys and certificates: instances that start together on one folder find them made."""
    with (data / MAKING_FILE).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_use(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=(("data", text),))
