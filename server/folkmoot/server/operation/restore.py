"""Puts a backup back, into a place where nothing is: what is there is never overwritten.

What happened since the backup is not lost to those whom it concerns: nodes and clients give ledger entries, tasks and
results back by themselves (docs/operations.md).

A restore may break off anywhere. A file that is written first and removed last says so: until then no server starts there,
since it would make itself a new, empty database under the old keys. The next restore removes what this one has put there,
and nothing else, and begins anew.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from folkmoot.server.config import Config
from folkmoot.server.operation import data_folder
from folkmoot.server.operation.backup import (
    DATA,
    PAYLOADS,
    Manifest,
    payload_folder,
    read_manifest,
    unusable,
)
from folkmoot.server.operation.copies import copy_file, copy_folder, copy_parts, remove_parts, sync_below
from folkmoot.server.operation.data_folder import DATABASE_FILE, LOCK_FILE, MAKING_FILE, RESTORING_FILE
from folkmoot.server.store import databases, dumps, migrate
from folkmoot.server.store.dumps import Kind
from folkmoot.transport.durable import sync_folder
from folkmoot.transport.secret_files import write_secret

HARMLESS = (LOCK_FILE, MAKING_FILE, RESTORING_FILE)
"""May lie in a data folder that counts as empty; so may a settings file."""
_OF_DATABASE = tuple(f"{DATABASE_FILE}{end}" for end in ("", "-wal", "-shm", "-journal"))


@dataclass(frozen=True, kw_only=True)
class Unfinished:
    """What a restore puts where; nothing of it was there before."""

    source: str
    names: tuple[str, ...] = ()
    """What it puts into the data folder."""
    payloads: str = ""
    """The folder into which it puts payloads, if it does."""


def restore(config: Config, source: Path, *, tell: Callable[[str], None] = lambda _: None) -> Manifest:
    """Put a backup back. Raises INVALID_FIELD before anything is written if there is something already."""
    manifest = read_manifest(source)
    if manifest.migration > migrate.newest():
        raise unusable("source", f"the backup is of a later release ({manifest.release}): put it back with that one")
    _fits(config, manifest)
    _is_free(config, manifest)
    with data_folder.taken(config, alone=True):
        _is_free(config, manifest)  # somebody may have come before the folder was taken
        _remove_unfinished(config)
        _put_back(config, source, manifest, tell)
    return manifest


def _put_back(config: Config, source: Path, manifest: Manifest, tell: Callable[[str], None]) -> None:
    already = {path.name for path in config.data.iterdir()}
    keys = {path.name for path in (source / DATA).iterdir()} - already
    folder = None if manifest.payloads else payload_folder(config)
    unfinished = Unfinished(
        source=str(source.absolute()),
        names=tuple(sorted({*keys, *_OF_DATABASE, PAYLOADS} - already)),
        payloads=str(folder.absolute()) if folder else "",
    )
    marker = config.data / RESTORING_FILE
    write_secret(marker, (json.dumps(asdict(unfinished), indent=2) + "\n").encode(), replace=True)
    config.data.chmod(0o700)
    copy_folder(source / DATA, config.data, leave_out=already)
    tell("keys and certificates are back")
    if folder is not None:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        copy_parts(source / PAYLOADS, folder, copy_file)
        tell("payloads are back")
    _restore_database(config, source, manifest)
    tell("the database is back")
    for place in (config.data, folder):
        if place is not None:
            sync_below(place)
    marker.unlink()
    sync_folder(config.data)


def _unfinished(config: Config) -> Unfinished:
    """Return what a restore that broke off may have put here; nothing, if there was none."""
    marker = config.data / RESTORING_FILE
    try:
        content = json.loads(marker.read_bytes())
        return Unfinished(source=content["source"], names=tuple(content["names"]), payloads=content["payloads"])
    except FileNotFoundError:
        return Unfinished(source="")
    except (ValueError, KeyError, TypeError) as error:
        raise unusable("data", f"{marker} can't be read: empty the folder to begin anew") from error


def _remove_unfinished(config: Config) -> None:
    before = _unfinished(config)
    for name in before.names:
        path = config.data / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    folder = payload_folder(config)
    if folder is not None and before.payloads == str(folder.absolute()):
        remove_parts(folder)


def _fits(config: Config, manifest: Manifest) -> None:
    """Refuse what can't go where the settings say."""
    if manifest.database is Kind.SQLITE and config.database:
        raise unusable(
            "database", "this backup is SQLite's own file: PostgreSQL takes one that was taken by --portable"
        )
    if manifest.database is Kind.PG_DUMP and not config.database:
        raise unusable(
            "database",
            "this backup is PostgreSQL's own: name an empty PostgreSQL by the setting database; SQLite takes one that was"
            " taken by --portable",
        )
    if manifest.database is Kind.PG_DUMP and dumps.tool("pg_restore") is None:
        raise unusable("source", "this backup needs pg_restore, which is not installed (postgresql-client)")
    if manifest.payloads and manifest.payloads != config.payloads:
        raise unusable("payloads", f"payloads of this backup are at {manifest.payloads}: name it in the settings")
    if not manifest.payloads and payload_folder(config) is None:
        raise unusable("payloads", f"payloads of this backup are files: copy them to {config.payloads} by the store's own"
                       " tools, and restore with a folder")  # fmt: skip


def _is_free(config: Config, manifest: Manifest) -> None:
    """Refuse to put anything where something is, unless a restore that broke off has put it there."""
    before = _unfinished(config)
    if config.data.exists():
        found = {path.name for path in config.data.iterdir() if path.suffix != ".toml"} - {*HARMLESS, *before.names}
        if found:
            raise unusable(
                "data", f"{config.data} is not empty ({', '.join(sorted(found)[:3])}): restore goes to an empty folder"
            )
    folder = None if manifest.payloads else payload_folder(config)
    if folder is not None and str(folder.absolute()) != before.payloads and folder.exists() and any(folder.iterdir()):
        raise unusable("payloads", f"{folder} is not empty: restore goes to an empty folder")
    if config.database:
        database = databases.postgresql(config.database)
        try:
            empty = dumps.is_empty(database)
        finally:
            database.writing.dispose()
            database.reading.dispose()
        if not empty:
            raise unusable(
                "database", "the database has tables: restore goes to a new, empty one (dropdb, then createdb)"
            )


def _restore_database(config: Config, source: Path, manifest: Manifest) -> None:
    if manifest.database is Kind.SQLITE:
        dumps.copy_sqlite(source / Kind.SQLITE, config.data / DATABASE_FILE)
    elif manifest.database is Kind.PG_DUMP:
        dumps.pg_restore(dumps.tool("pg_restore") or "pg_restore", config.database, source / Kind.PG_DUMP)
    else:
        database = databases.connect(config.database, config.data / DATABASE_FILE)
        try:
            dumps.load_tables(database, source / Kind.TABLES, manifest.migration)
        finally:
            database.writing.dispose()
            database.reading.dispose()
