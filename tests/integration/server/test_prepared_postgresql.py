"""Prepared statements on PostgreSQL: many rows by few statements, and statements that are under way at once."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from folkmoot.server.store import databases, instance_tables
from folkmoot.server.store.engine import Store
from folkmoot.server.store.prepared import Prepared, at_once
from tests.postgresql import Cluster

pytestmark = pytest.mark.needs_postgres

metadata = MetaData()
numbers = Table("numbers", metadata, Column("number", Integer, primary_key=True))
labels = Table(
    "labels",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("label", String, unique=True),
    Column("data", LargeBinary),
)


def create(connection):
    metadata.create_all(connection)
    instance_tables.write_turns.create(connection)
    instance_tables.commits.create(connection)


@pytest.fixture
async def store(postgresql: Cluster, request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    opened = Store(databases.postgresql(postgresql.empty(request.node.name[:60].lower())))
    await opened.migrate(create)
    yield opened
    await opened.close()


def all_numbers(connection) -> list[int]:
    return list(connection.scalars(select(numbers.c.number).order_by(numbers.c.number)))


async def test_many_rows_are_inserted_as_they_are_and_in_their_order(store: Store):
    rows = [
        {"label": f"$1 %s %(label)s {each}", "data": bytes([each, 0]) if each % 3 else None} for each in range(1, 172)
    ]
    first = 0
    for number in (1, 2, 3, 31, 32, 33, 69):
        some, first = rows[first : first + number], first + number
        await store.write(lambda connection: Prepared(insert(labels)).each(connection, some))  # noqa: B023
    found = await store.read(lambda connection: connection.execute(select(labels).order_by(labels.c.position)).all())
    assert [{"label": row.label, "data": row.data} for row in found] == rows


async def test_what_is_under_way_at_once_fails_as_a_whole_however_late_that_is_noticed(store: Store):
    add_label, add_number = Prepared(insert(labels)), Prepared(insert(numbers))
    next_number = Prepared(insert(numbers).values(number=bindparam("number")).returning(numbers.c.number))

    def several(connection, label: str, *, waits: bool):
        with at_once(connection):
            add_number.each(connection, [{"number": 1}, {"number": 2}])
            add_label.each(connection, [{"label": label}])
            add_number.each(connection, [{"number": 3}])
            return next_number.row(connection, {"number": 4}).number if waits else None

    await store.write(lambda connection: add_label.each(connection, [{"label": "taken"}]))
    for waits in (True, False):
        with pytest.raises(IntegrityError):
            await store.write(lambda connection: several(connection, "taken", waits=waits))  # noqa: B023
    assert await store.read(all_numbers) == []
    assert await store.write(lambda connection: several(connection, "free", waits=True)) == 4
    assert await store.read(all_numbers) == [1, 2, 3, 4]
