"""A new SQLite database, copied from one that was migrated once in this process: migrating costs most of a server's start."""

import tempfile
from pathlib import Path

from folkmoot.server.store import databases, migrate
from folkmoot.server.store.engine import Store

_made: list[bytes] = []


async def migrated(path: Path) -> None:
    """Make a database with the newest tables and nothing in them, in a folder that is there; one that is there stays."""
    if path.exists():
        return
    if not _made:
        _made.append(await _make())
    path.write_bytes(_made[0])  # readable as files are: that it is its owner's alone is for the server to see to


async def _make() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folkmoot.db"
        store = Store(databases.connect("", path))
        await store.migrate(migrate.upgrade)
        await store.close()
        assert [each.name for each in path.parent.iterdir()] == [path.name], "not all is in the file"
        return path.read_bytes()
