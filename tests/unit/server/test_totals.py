"""Sums of all that was used: each scrape reads the days that may still change, and no others."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, func, select

from folkmoot.server.observation.totals import Totals, Used
from folkmoot.server.store import usage_rows
from folkmoot.server.store.tables import metadata, usage
from folkmoot.server.store.usage_rows import Counted

NOW = datetime(2026, 5, 17, 9, 30, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def database() -> Iterator[Connection]:
    engine = create_engine("sqlite://", paramstyle="named")
    with engine.connect() as connection:
        metadata.create_all(connection, tables=[usage])
        yield connection
    engine.dispose()


def count(connection: Connection, now: datetime, size: int = 1) -> None:
    usage_rows.add(connection, now, Counted(organization_id="Alpha", runs_executed=1, bytes_stored=size))


def all_of_it(connection: Connection) -> int:
    return int(connection.execute(select(func.sum(usage.c.bytes_stored))).scalar_one())


def test_nothing_is_nothing(database):
    assert Totals().look(database, NOW) == Used()


def test_sums_are_those_of_all_days_whenever_somebody_looks(database):
    totals = Totals()
    for number in range(60):
        now = NOW + number * DAY / 4
        count(database, now, number)
        count(database, now - DAY, 1)  # by an instance whose clock is behind
        if number % 7 != 3:
            assert totals.look(database, now).bytes_stored == all_of_it(database)
    assert totals.look(database, NOW).bytes_stored == all_of_it(database), "also when a clock goes back"


def test_days_that_are_over_are_read_once(database):
    for days in range(400):
        count(database, NOW - days * DAY)
    totals = Totals()
    assert totals.look(database, NOW).runs_executed == 400
    seen: list[Any] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        seen.append((statement, parameters))

    event.listen(database.engine, "before_cursor_execute", note)
    assert totals.look(database, NOW).runs_executed == 400
    event.remove(database.engine, "before_cursor_execute", note)
    [(statement, parameters)] = seen
    [step] = [row.detail for row in database.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert "SEARCH usage" in step
    assert list(parameters.values())[-1] == int((NOW - 2 * DAY).replace(hour=0, minute=0).timestamp()) * 1_000_000
