"""Puts a backup back, into a place where nothing is: what is there is never overwritten.

What happened since the backup is not lost to those whom it concerns: nodes and clients give ledger entries, tasks and
results back by themselves (docs/operations.md).
"""

import shutil
from collections.abc import Callable
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
from folkmoot.server.operation.data_folder import DATABASE_FILE, LOCK_FILE, MAKING_FILE
from folkmoot.server.store import databases, dumps, migrate
from folkmoot.server.store.dumps import Kind

HARMLESS = (LOCK_FILE, MAKING_FILE)
"""May lie in a data folder that counts as empty; so may a settings file."""


def restore(config: Config, source: Path, *, tell: Callable[[str], None] = lambda _: None) -> Manifest:
    """Put a backup back. Raises INVALID_FIELD before anything is written if there is something already."""
    manifest = read_manifest(source)
    if manifest.migration > migrate.newest():
        raise unusable("source", f"the backup is of a later release ({manifest.release}): put it back with that one")
    _fits(config, manifest)
    _is_free(config, manifest)

    with data_folder.opened(config):
        _put_back(config, source, manifest, tell)
    return manifest


def _put_back(config: Config, source: Path, manifest: Manifest, tell: Callable[[str], None]) -> None:
    already = [path.name for path in config.data.iterdir()]
    shutil.copytree(source / DATA, config.data, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*already))
    config.data.chmod(0o700)
    tell("keys and certificates are back")
    folder = payload_folder(config)
    if folder is not None and not manifest.payloads:
        shutil.copytree(source / PAYLOADS, folder, dirs_exist_ok=True)
        tell("payloads are back")
    _restore_database(config, source, manifest)
    tell("the database is back")


def _fits(config: Config, manifest: Manifest) -> None:
    """Refuse what can't go where the settings say."""
    if manifest.database is Kind.SQLITE and config.database:
        raise unusable(
            "database", "this backup is SQLite's own file: PostgreSQL takes one that was taken by --portable"
        )
    if manifest.database is Kind.PG_DUMP and not config.database:
        raise unusable("database", "this backup is PostgreSQL's own: SQLite takes one that was taken by --portable")
    if manifest.payloads and manifest.payloads != config.payloads:
        raise unusable("payloads", f"payloads of this backup are at {manifest.payloads}: name it in the settings")
    if not manifest.payloads and payload_folder(config) is None:
        raise unusable("payloads", f"payloads of this backup are files: copy them to {config.payloads} by the store's own"
                       " tools, and restore with a folder")  # fmt: skip


def _is_free(config: Config, manifest: Manifest) -> None:
    """Refuse to put anything where something is."""
    if config.data.exists():
        found = [path.name for path in config.data.iterdir() if path.name not in HARMLESS and path.suffix != ".toml"]
        if found:
            raise unusable(
                "data", f"{config.data} is not empty ({', '.join(sorted(found)[:3])}): restore goes to an empty folder"
            )
    folder = payload_folder(config)
    if folder is not None and folder.exists() and any(folder.iterdir()) and not manifest.payloads:
        raise unusable("payloads", f"{folder} is not empty: restore goes to an empty folder")
    if config.database:
        database = databases.postgresql(config.database)
        empty = dumps.is_empty(database)
        database.writing.dispose()
        database.reading.dispose()
        if not empty:
            raise unusable("database", "the database has tables: restore goes to a new, empty one (createdb)")


def _restore_database(config: Config, source: Path, manifest: Manifest) -> None:
    if manifest.database is Kind.SQLITE:
        dumps.copy_sqlite(source / Kind.SQLITE, config.data / DATABASE_FILE)
    elif manifest.database is Kind.PG_DUMP:
        if (program := dumps.tool("pg_restore")) is None:
            raise unusable("source", "this backup needs pg_restore, which is not installed (postgresql-client)")
        dumps.pg_restore(program, config.database, source / Kind.PG_DUMP)
    else:
        database = databases.connect(config.database, config.data / DATABASE_FILE)
        try:
            dumps.load_tables(database, source / Kind.TABLES, manifest.migration)
        finally:
            database.writing.dispose()
            database.reading.dispose()
