"""Backups of a server: one folder with its database, its payloads and its keys, taken while it works.

    manifest.json                             what is in it; written last, so that a backup that broke off is none
    folkmoot.db | database.dump | tables.jsonl
    payloads/                                 where they are in a folder; those in a bucket are named only
    data/                                     keys and certificates, and whatever else lies in the data folder

The database is of one moment. Payloads are copied before and after: what a row of the database speaks of is in the copy,
also when it came, or was removed, while the backup was taken. Parts of payloads are never changed once they have their
name, so links to them are as good as copies on the same file system.

Until all is there, all is in the folder `unfinished`: one that fails takes it away again, one that is killed leaves
nothing that looks like a backup.
"""

import errno
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import unquote, urlsplit

from folkmoot.server.audit import chain
from folkmoot.server.config import Config
from folkmoot.server.operation import data_folder
from folkmoot.server.operation.copies import copy_file, copy_folder, copy_parts, sync_below
from folkmoot.server.operation.data_folder import DATABASE_FILE, LOCK_FILE, MAKING_FILE
from folkmoot.server.store import databases, dumps
from folkmoot.server.store.dumps import Kind
from folkmoot.transport.durable import sync_folder
from folkmoot.transport.secret_files import write_secret
from folkmoot.transport.storage import disk_full
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

FORMAT = 1
MANIFEST, DATA, PAYLOADS, UNFINISHED = "manifest.json", "data", "payloads", "unfinished"
NOT_COPIED = (f"{DATABASE_FILE}*", LOCK_FILE, MAKING_FILE, "payloads", "spool")
"""What lies in the data folder and is copied otherwise, or belongs to the running process."""
CHAINED_SINCE = "0007"
"""The migration that gave events their chain."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup is."""

    format: int
    release: str
    taken_at: str
    migration: str
    database: Kind
    payloads: str
    """Empty: in this backup; else the bucket where they are."""
    chain_head: str = ""
    """SEQUENCE:HASH, how far the audit trail's chain went: for `events verify --expect`, as long as this file is kept."""


def back_up(
    config: Config,
    target: Path,
    *,
    now: datetime,
    portable: bool = False,
    link: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> Manifest:
    """Take a backup into a new or empty folder. Raises INVALID_FIELD naming what is in the way, and DISK_FULL."""
    if not config.database and not (config.data / DATABASE_FILE).exists():
        raise unusable("data", f"there is no server in {config.data}: name its data folder or its settings file")
    data_folder.refuse_unfinished(config.data)
    _fits_backup(config, target)
    is_new = not target.exists()
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    making = target / UNFINISHED
    try:
        making.mkdir(mode=0o700)
    except FileExistsError as error:
        raise _taken(target) from error
    try:
        target.chmod(0o700)
        kind, migration, head = _copy_all(config, making, portable=portable, link=link, tell=tell)
        sync_below(making)
    except BaseException as error:
        shutil.rmtree(making, ignore_errors=True)
        if is_new:
            with suppress(OSError):
                target.rmdir()
        if (told := _told(error, target)) is not None:
            raise told from error
        raise
    for path in making.iterdir():
        path.replace(target / path.name)
    making.rmdir()
    sync_folder(target)
    manifest = Manifest(
        format=FORMAT,
        release=version("folkmoot"),
        taken_at=now.isoformat(),
        migration=migration,
        database=kind,
        payloads="" if payload_folder(config) is not None else config.payloads,
        chain_head=head,
    )
    write_secret(target / MANIFEST, (json.dumps(asdict(manifest), indent=2) + "\n").encode())
    return manifest


def payload_folder(config: Config) -> Path | None:
    """Return the folder of payloads; None where they rest in a bucket."""
    if not config.payloads:
        return config.data / "payloads"
    parts = urlsplit(config.payloads)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def read_manifest(source: Path) -> Manifest:
    """Return what a backup is. Raises INVALID_FIELD for what is no backup, or none that this release can read."""
    try:
        content = json.loads((source / MANIFEST).read_bytes())
        content["database"] = Kind(content["database"])
        if content["format"] == FORMAT:
            return Manifest(**content)
    except FileNotFoundError as error:
        raise unusable("source", f"{source} is no whole backup: it has no {MANIFEST}, which is written last") from error
    except (ValueError, KeyError, TypeError) as error:
        raise unusable("source", f"{source / MANIFEST} is none that this release can read") from error
    raise unusable(
        "source", f"{source} was taken by a release that writes another form ({content['format']}): use that one"
    )


def unusable(field: str, text: str) -> FolkmootError:
    """Return the error of a backup that can't be taken or put back."""
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text, violations=((field, text),))


def _fits_backup(config: Config, target: Path) -> None:
    """Refuse a folder that is not empty, or is in one of those that are copied."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise _taken(target)
    for folder in filter(None, (config.data, payload_folder(config))):
        if target.resolve().is_relative_to(folder.resolve()):
            raise unusable(
                "target", f"{target} is inside {folder}, which is copied: name a folder elsewhere, best on another disk"
            )


def _taken(target: Path) -> FolkmootError:
    if (target / UNFINISHED).exists():
        return unusable(
            "target", f"{target} has a backup that is under way, or broke off: if so remove it, or name a new folder"
        )
    return unusable("target", f"{target} is not empty: name a new folder for each backup")


def _told(error: BaseException, target: Path) -> FolkmootError | None:
    """Return what there is to do about an error that comes from the disk, if it is one."""
    if disk_full(error) is not None:
        return FolkmootError(
            errors_pb2.ERROR_REASON_DISK_FULL,
            f"there is no room for the backup at {target}; what was begun is removed: make room, or name another disk",
        )
    if isinstance(error, OSError) and error.errno == errno.EXDEV:
        return unusable("link", f"{target} is on another file system than the payloads: leave --link out")
    return None


def _copy_all(
    config: Config, target: Path, *, portable: bool, link: bool, tell: Callable[[str], None]
) -> tuple[Kind, str, str]:
    folder, copy = payload_folder(config), os.link if link else copy_file
    if folder is not None:
        copy_parts(folder, target / PAYLOADS, copy)
    tell("payloads copied" if folder is not None else f"payloads stay at {config.payloads}")
    kind, migration, head = _copy_database(config, target, portable=portable)
    tell(f"database copied to {kind}")
    if folder is not None:
        copy_parts(folder, target / PAYLOADS, copy)
    with data_folder.making(config.data):  # a certificate and its key belong together
        copy_folder(config.data, target / DATA, leave_out=NOT_COPIED)
    return kind, migration, head


def _copy_database(config: Config, target: Path, *, portable: bool) -> tuple[Kind, str, str]:
    database = databases.connect(config.database, config.data / DATABASE_FILE)
    try:
        if (migration := dumps.present(database)) is None:
            raise unusable("database", "the database is empty: no server has worked on it yet")
        head = _chain_head(database, migration)
        program = dumps.tool("pg_dump") if config.database else None
        if portable or (config.database and program is None):
            dumps.dump_tables(database, target / Kind.TABLES)
            return Kind.TABLES, migration, head
    finally:
        database.writing.dispose()
        database.reading.dispose()
    if program is not None:
        dumps.pg_dump(program, config.database, target / Kind.PG_DUMP)
        return Kind.PG_DUMP, migration, head
    dumps.copy_sqlite(config.data / DATABASE_FILE, target / Kind.SQLITE)
    return Kind.SQLITE, migration, head


def _chain_head(database: databases.Database, migration: str) -> str:
    """Return how far the audit trail's chain goes; what is copied afterwards goes at least as far."""
    if migration < CHAINED_SINCE:
        return ""
    with database.reading.connect() as connection:
        return str(chain.head(connection))
