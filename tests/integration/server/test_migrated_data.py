"""Migrations keep what is in the database, up and down, on SQLite and PostgreSQL; a database of the previous release goes on.

Every table is filled with rows made from what the database itself says of its columns, at each number anew, so that a
migration that is written tomorrow is under test without anybody thinking of it.
"""

import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, LargeBinary, MetaData, Table, create_engine, inspect, select, text

from folkmoot.server.store import migrate
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import key_service_pb2 as keys
from folkmoot.v1 import task_service_pb2 as tasks
from tests.integration.harness import server

ROWS = 3
FIXTURES = Path(__file__).parents[2] / "fixtures"
PREVIOUS_RELEASE = "0005"
"""The newest migration of the previous release; tests/fixtures has a database that its demo left."""

Content = dict[str, list[dict[str, Any]]]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'test.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("database_url").replace("postgresql://", "postgresql+psycopg://")
    made = create_engine(url)
    yield made
    made.dispose()


def reflected(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name != "alembic_version"]


def made(kind: Any, number: int) -> object:
    if isinstance(kind, LargeBinary):
        return bytes([number]) * 32
    python = kind.python_type
    return {int: number, str: str(number), bool: False, float: number / 2, bytes: bytes([number])}[python]


def fill(connection: Connection) -> None:
    """Give each empty table some rows, in which not one column is null."""
    for table in reflected(connection):
        if connection.execute(select(table)).first() is None:
            rows = [
                {column.name: made(column.type, number) for column in table.columns} for number in range(1, ROWS + 1)
            ]
            connection.execute(table.insert(), rows)


def content(connection: Connection) -> Content:
    return {
        table.name: [dict(row._mapping) for row in connection.execute(select(table).order_by(*table.primary_key))]
        for table in reflected(connection)
    }


def shape(connection: Connection) -> dict[str, Any]:
    """What tables, columns and indexes there are, names and kinds."""
    look = inspect(connection)
    return {
        table: (
            {column["name"]: (str(column["type"]), column["nullable"]) for column in look.get_columns(table)},
            {index["name"]: index["column_names"] for index in look.get_indexes(table)},
        )
        for table in look.get_table_names()
    }


def common(before: Content, after: Content) -> tuple[Content, Content]:
    """What both have: tables, and of those the columns."""
    shared = {table: before[table][0].keys() & after[table][0].keys() for table in before.keys() & after.keys()}
    return tuple(  # type: ignore[return-value]
        {table: [{name: row[name] for name in names} for row in one[table]] for table, names in shared.items()}
        for one in (before, after)
    )


def test_every_row_stays_up_and_down_again(engine: Engine):
    numbers = list(migrate.numbers())
    shapes = {}
    with engine.begin() as connection:
        migrate.upgrade(connection, numbers[0])
    for number in numbers:
        with engine.begin() as connection:
            fill(connection)
            before = content(connection)
            migrate.upgrade(connection, number)
            after = content(connection)
            assert before.keys() <= after.keys()
            kept = {table: rows for table, rows in after.items() if table in before}
            assert all(len(rows) == ROWS for rows in kept.values()), number
            assert len(set(map(str, common(before, kept)))) == 1, f"{number} changes what was there"
            shapes[number] = shape(connection)
    with engine.begin() as connection:
        fill(connection)
    for number in reversed(numbers[:-1]):
        with engine.begin() as connection:
            before = content(connection)
            migrate.downgrade(connection, number)
            after = content(connection)
            assert after.keys() <= before.keys()
            assert common(before, after)[0] == common(before, after)[1], f"the way back to {number} changes what stays"
            assert shape(connection) == shapes[number], f"the way back leads to another place than {number}"
    with engine.begin() as connection:
        migrate.upgrade(connection)
        assert shape(connection) == shapes[numbers[-1]]


def test_migration_that_fails_has_changed_nothing(engine: Engine):
    with engine.begin() as connection:
        migrate.upgrade(connection, PREVIOUS_RELEASE)
        before = shape(connection)
        connection.execute(text("CREATE TABLE roles (mine INTEGER)"))
    with engine.connect() as connection:
        if engine.name == "sqlite":
            connection.exec_driver_sql("BEGIN")  # as the store does: the driver would begin too late
        with pytest.raises(Exception, match="roles"):
            migrate.upgrade(connection)
        connection.rollback()
    with engine.begin() as connection:
        assert migrate.present(connection) == PREVIOUS_RELEASE
        connection.execute(text("DROP TABLE roles"))
        assert shape(connection) == before


def test_database_of_a_later_release_is_refused_and_told_the_way_back(engine: Engine):
    with engine.begin() as connection:
        migrate.upgrade(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(FolkmootError, match="later release") as refusal:
            migrate.upgrade(connection)
        assert f"--to {migrate.newest()}" in refusal.value.message


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_database_of_the_previous_release_is_taken_over(tmp_path: Path):
    """A server of today on what the previous release's demo has left: people, ledger, tasks and events are all there."""
    stored = lzma.decompress((FIXTURES / f"server-{PREVIOUS_RELEASE}.db.xz").read_bytes())
    (tmp_path / "folkmoot.db").write_bytes(stored)
    async with server(tmp_path) as s:
        assert s.running.setup_token is None
        operator = await s.log_in("operator")
        listed = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(), metadata=operator.metadata)
        assert {one.name for one in listed.organizations} == {"Aster", "Birch", "Cedar", "Operator"}
        events = await s.admin.ListEvents(admin.ListEventsRequest(page_size=1000), metadata=operator.metadata)
        assert {"server.setup", "task.create"} <= {event.intent for event in events.events}

        ada = await s.log_in("ada@aster")
        mine = await s.tasks.ListTasks(tasks.ListTasksRequest(), metadata=ada.metadata)
        assert len(mine.tasks) == 9
        shown = await s.tasks.GetTask(tasks.GetTaskRequest(task_id=mine.tasks[0].task_id), metadata=ada.metadata)
        assert all(run.receipt.body for run in shown.runs)
        ledger = s.keys.GetLedger(keys.GetLedgerRequest(genesis=mine.tasks[0].genesis), metadata=ada.metadata)
        assert sum([len(batch.entries) async for batch in ledger]) == 7
