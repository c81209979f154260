"""PostgreSQL for servers under test: one private server for all tests of a process, and an empty database for each of them."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from tests.integration.node.data.servers import Server


@contextmanager
def scratch_database(postgres: Server) -> Iterator[str]:
    """Give the URL of a new empty database, which is dropped afterwards whoever is still connected."""
    name = f"folkmoot_{secrets.token_hex(4)}"
    postgres.execute(f"CREATE DATABASE {name}")
    try:
        yield f"postgresql://owner:owner@127.0.0.1:{postgres.port}/{name}"
    finally:
        postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
