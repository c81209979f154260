"""Backups while payloads come and go: whatever the copied database names is in the copy, on both databases."""

import asyncio
import base64
import json
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from folkmoot.server.operation import backup
from folkmoot.transport.limits import INLINE_BYTES
from tests.integration.harness import Metadata
from tests.integration.server.conftest import Hub
from tests.integration.server.sealed import SealedTask, task
from tests.integration.server.test_deletion import delete, manager
from tests.integration.server.test_payloads import put
from tests.polling import until

__all__ = ["manager"]
pytestmark = pytest.mark.both_databases

BACKUPS = 2
KEPT = 8
"""So many payloads are there at least; older ones go."""
COLUMNS = ("envelope_digest", "envelope", "completed_at", "deleted_at")


def stored(taken: Path) -> Iterator[str]:
    """Yield the names of the payloads that the database of a backup has in the payload store."""
    for digest, inline, completed, deleted in _rows(taken):
        if inline is None and completed is not None and deleted is None:
            yield bytes(digest).hex()


def _name(sealed: SealedTask) -> str:
    return sealed.spec.inputs[0].envelope_digest.hex()


def _rows(taken: Path) -> list[tuple[bytes, object, object, object]]:
    if (taken / "database.dump").exists():
        return []  # PostgreSQL's own: it is of one moment, too
    if (taken / "folkmoot.db").exists():
        with sqlite3.connect(taken / "folkmoot.db") as connection:
            return connection.execute(f"SELECT {', '.join(COLUMNS)} FROM payloads").fetchall()
    rows, head = [], {"table": "", "columns": []}
    for line in map(json.loads, (taken / "tables.jsonl").read_text().splitlines()):
        if isinstance(line, dict):
            head = line
        elif head["table"] == "payloads":
            digest, *others = (line[head["columns"].index(name)] for name in COLUMNS)
            rows.append((base64.b64decode(digest["base64"]), *others))
    return rows


async def test_every_payload_that_a_backup_names_is_in_it(hub: Hub, manager: Metadata, tmp_path: Path) -> None:
    came: dict[str, int] = {}
    went: dict[str, int] = {}
    kept: deque[SealedTask] = deque()
    backups = [tmp_path / f"backup-{number}" for number in range(BACKUPS)]
    config, loop, now, rounds = hub.server.running.core.config, asyncio.get_running_loop(), 0, 0

    async def come_and_go() -> None:
        nonlocal rounds
        for number in count():
            sealed = task(hub.lung, ("Beta",), content=os.urandom(INLINE_BYTES + 1))
            came[_name(sealed)] = now
            await put(hub, sealed)
            await hub.tasks.CreateTask(sealed.request(envelope=False), metadata=hub.ada)
            await hub.commit(sealed, "Beta")
            kept.append(sealed)
            if number % 2 and len(kept) > KEPT:
                await delete(hub, oldest := kept.popleft(), manager)
                went[_name(oldest)] = now
            rounds += 1

    def between_steps(_step: str) -> None:
        before = rounds
        more = until(lambda: rounds > before + 4, "payloads come and go")
        asyncio.run_coroutine_threadsafe(more, loop).result()

    def back_up(target: Path, *, portable: bool) -> None:
        backup.back_up(config, target, now=datetime.now(UTC), tell=between_steps, portable=portable, link=not portable)

    working = [asyncio.create_task(come_and_go()) for _ in range(2)]
    await until(lambda: rounds > KEPT, "there are some that may go")
    for now, target in enumerate(backups, start=1):
        await asyncio.to_thread(back_up, target, portable=now % 2 == 1)
    for work in working:
        work.cancel()
    assert await asyncio.wait(working)

    for number, target in enumerate(backups, start=1):
        named = set(stored(target))
        fleeting = {name for name in went if came[name] == went[name] == number}
        there = {path.name for path in (target / "payloads").glob("??/*")}
        assert named - fleeting <= there
    assert [name for name in stored(backups[0]) if went.get(name) == 1], "it names some that went before it was done"
