"""Instances that share a database have the same key: one that has another is told so, and serves nobody."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection

from folkmoot.server import instances
from folkmoot.server.config import Config
from folkmoot.server.operation.check import State
from folkmoot.server.operation.check.keys import keys
from folkmoot.server.store import instance_rows
from folkmoot.trust import FolkmootError
from tests.integration.harness import ROOT, server
from tests.integration.server.factors import login
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres


@pytest.fixture
def database(tmp_path: Path, postgresql: Cluster) -> str:
    return postgresql.url(str(tmp_path))


async def checked(data: Path, database: str) -> list[State]:
    config = Config(data=data, database=database)
    return [found.state for found in await asyncio.to_thread(lambda: list(keys(config, datetime.now(UTC))))]


async def test_an_instance_with_another_key_does_not_serve_beside_others(tmp_path: Path, database: str) -> None:
    ours, another = tmp_path / "ours", tmp_path / "another"
    async with server(ours, database=database) as s:
        await s.root()
        with pytest.raises(FolkmootError, match="another key than this one") as refused:
            async with server(another, database=database):
                pass
        assert refused.value.reason_name == "INVALID_FIELD"
        assert len(await s.running.core.store.read(instance_rows.beats)) == 1
        assert await checked(another, database) == [State.WRONG]
        assert await checked(ours, database) == [State.GOOD]
        async with server(ours, database=database) as beside:
            await login(beside, ROOT)


async def test_keys_are_replaced_once_all_have_stopped(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when one of them was killed, so that nobody has taken it from the list."""
    data = tmp_path / "data"

    def killed(connection: Connection) -> None:
        instance_rows.arrive(connection, "killed", "1", keys="of before", now=datetime.now(UTC))

    async with server(data, database=database) as s:
        await s.root()
        await s.running.core.store.write(killed)
    (data / "keys" / "token.pem").unlink()
    monkeypatch.setattr(instances, "LOOK_SECONDS", 0.0)
    async with server(data, database=database) as s:
        await login(s, ROOT)
        assert "killed" not in await s.running.core.store.read(instance_rows.beats)
        assert await checked(data, database) == [State.GOOD]
