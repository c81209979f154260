"""Database servers, one each for all tests of a process, and tables as runs get them."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from folkmoot.node.data.sources import Source
from folkmoot.node.data.tables import SourceTables
from tests.integration.node.data import servers
from tests.integration.node.data.servers import Server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    with servers.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Server]:
    with servers.mariadb() as server:
        yield server


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., SourceTables]]:
    """Serve sources by their labels."""
    opened: list[SourceTables] = []

    def serve(**sources: Source) -> SourceTables:
        opened.append(SourceTables(sources))
        return opened[-1]

    yield serve
    for tables in opened:
        await tables.close()
