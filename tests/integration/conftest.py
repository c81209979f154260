"""What several integration tests share: what takes seconds to start, and which database servers work on."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import harness
from tests.integration.databases import scratch_database
from tests.integration.node.data import servers
from tests.postgresql import Cluster


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that are marked `both_databases` on SQLite and on PostgreSQL."""
    if metafunc.definition.get_closest_marker("both_databases"):
        on_postgresql = pytest.param("postgresql", marks=pytest.mark.needs_postgres)
        metafunc.parametrize("database", ["sqlite", on_postgresql], indirect=True)


@pytest.fixture(autouse=True)
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Which database the servers of a test work on; FOLKMOOT_TEST_DATABASE=postgresql has all of them work on that."""
    kind: str = getattr(request, "param", os.environ.get("FOLKMOOT_TEST_DATABASE", "sqlite"))
    if kind == "postgresql":
        cluster: Cluster = request.getfixturevalue("postgresql")
        with cluster.lent() as url:
            monkeypatch.setattr(harness, "databases", lambda data: url(str(data)))
            yield kind
    else:
        yield kind
