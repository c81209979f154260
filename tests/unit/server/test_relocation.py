"""Relocation: what it costs that a node comes or goes does not grow with the organization's other nodes."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, create_engine, insert

from folkmoot.server.store import links, placement
from folkmoot.server.store.models import metadata
from folkmoot.server.store.tables import nodes
from folkmoot.server.store.touched import Touched
from folkmoot.v1.link_pb2 import Hello

GENESIS = bytes(32)
NOW = datetime(2026, 7, 1, tzinfo=UTC)


@contextmanager
def statements(connection: Connection) -> Iterator[list[str]]:
    """Collect what SQLite executes."""
    driver, seen = connection.connection.driver_connection, list[str]()
    assert isinstance(driver, sqlite3.Connection)
    driver.set_trace_callback(seen.append)
    yield seen
    driver.set_trace_callback(None)


def executed(number: int) -> list[str]:
    """What is executed when one of so many nodes of an organization, which were all there once, attaches and goes."""
    engine = create_engine("sqlite://", paramstyle="named")
    metadata.create_all(engine)
    with engine.connect() as connection:
        link_ids = []
        for index in range(number):
            row = {"genesis": GENESIS, "node_id": f"node-{index}", "organization_id": "Beta", "name": str(index)}
            connection.execute(insert(nodes).values(row))
            link_ids.append(links.ensure(connection, GENESIS, f"node-{index}", "Beta"))
            links.attach(connection, link_ids[-1], Hello(), instance_id="", now=NOW)
        links.detach_all(connection, now=NOW)
        with statements(connection) as seen:
            epoch = links.attach(connection, link_ids[0], Hello(), instance_id="", now=NOW).epoch
            placement.relocate(connection, GENESIS, "Beta", Touched())
            assert links.detach(connection, link_ids[0], epoch, sent=0, now=NOW)
            placement.relocate(connection, GENESIS, "Beta", Touched())
        return seen


@pytest.mark.parametrize("number", [2, 50])
def test_a_node_comes_and_goes_by_as_many_statements_however_many_others_there_are(number: int) -> None:
    assert len(executed(number)) == len(executed(1))
