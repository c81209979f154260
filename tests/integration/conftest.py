"""What several integration tests share, because it takes seconds to start."""

from collections.abc import Iterator

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
