"""What several integration tests share, because it takes seconds to start."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.databases import scratch_database
from tests.integration.node.data import servers


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[servers.Server]:
    """A PostgreSQL of the tests' own; who uses it is marked `needs_postgres`."""
    with servers.postgres() as running:
        yield running


@pytest.fixture
def database_url(postgres_server: servers.Server) -> Iterator[str]:
    """An empty database in it."""
    with scratch_database(postgres_server) as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Path]:
    """Write a server's settings file: for a data folder of that name, with SQLite or the database of a URL."""

    def write(name: str, **values: str) -> Path:
        path = tmp_path / f"{name}.toml"
        lines = {"data": str(tmp_path / name), "listen": "127.0.0.1:0", **values}
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
        return path

    return write
