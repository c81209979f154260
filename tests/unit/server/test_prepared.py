"""Prepared statements take and give what Core does, and fail as it does."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    create_engine,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from folkmoot.server.store.prepared import Prepared
from folkmoot.server.store.tables import Instant

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)
THINGS = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("data", LargeBinary),
    Column("is_good", Boolean, nullable=False),
    Column("made_at", Instant),
)
ROW = {"name": "one", "data": b"\x00\xff", "is_good": True, "made_at": NOW}


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://", paramstyle="named")
    with engine.begin() as connection:
        THINGS.create(connection)
        yield connection
    engine.dispose()


def test_gives_what_core_gives(connection: Connection) -> None:
    Prepared(insert(THINGS)).each(connection, [ROW, ROW | {"name": "two", "data": None, "made_at": None}])
    everything = select(THINGS).order_by(THINGS.c.id)
    given, expected = Prepared(everything).rows(connection, {}), connection.execute(everything).all()
    assert [tuple(row) for row in given] == [tuple(row) for row in expected]
    assert (given[0].is_good, given[0].made_at, given[0].data) == (True, NOW, b"\x00\xff")


def test_constants_of_the_statement_are_bound_by_their_types(connection: Connection) -> None:
    Prepared(insert(THINGS)).each(connection, [ROW])
    named = select(THINGS.c.id).where(THINGS.c.made_at == NOW, THINGS.c.name == bindparam("wanted"))
    assert Prepared(named).row(connection, {"wanted": "one"}).id == 1
    assert Prepared(named).row(connection, {"wanted": "two"}) is None


def test_one_statement_takes_different_columns(connection: Connection) -> None:
    prepared = Prepared(insert(THINGS))
    prepared.each(connection, [ROW])
    prepared.each(connection, [{"name": "two", "is_good": False}])
    prepared.each(connection, [])
    assert [row.data for row in connection.execute(select(THINGS.c.data).order_by(THINGS.c.id))] == [b"\x00\xff", None]


def test_changes_return_their_rows(connection: Connection) -> None:
    Prepared(insert(THINGS)).each(connection, [ROW])
    change = update(THINGS).where(THINGS.c.name == bindparam("wanted")).values(id=THINGS.c.id + bindparam("more"))
    assert Prepared(change.returning(THINGS.c.id)).row(connection, {"wanted": "one", "more": 4}).id == 5
    assert Prepared(delete(THINGS).returning(THINGS.c.made_at)).row(connection, {}).made_at == NOW


def test_a_stream_reads_no_further_than_it_is_asked(connection: Connection) -> None:
    Prepared(insert(THINGS)).each(connection, [ROW | {"name": str(number)} for number in range(9)])
    stream = Prepared(select(THINGS).order_by(THINGS.c.id)).stream(connection, {})
    assert next(stream).name == "0"
    connection.execute(delete(THINGS).where(THINGS.c.name == "8"))
    assert [row.name for row in stream] == [str(number) for number in range(1, 8)]


def test_a_broken_constraint_is_cores_error(connection: Connection) -> None:
    with pytest.raises(IntegrityError):
        Prepared(insert(THINGS)).each(connection, [ROW, ROW])
