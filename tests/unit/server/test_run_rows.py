"""Rows of runs: compare-and-set, and revisions that are a cursor."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert, select

from folkmoot.server.store import runs
from folkmoot.server.store.models import metadata
from folkmoot.server.store.task_tables import runs as run_table
from folkmoot.server.store.task_tables import tasks as task_table
from folkmoot.server.store.touched import Touched
from folkmoot.server.tasks import states

NOW = datetime(2026, 7, 1, tzinfo=UTC)
REVISION = 10


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://", paramstyle="named")
    metadata.create_all(engine)
    with engine.connect() as connection:
        task: dict[str, Any] = {"task_id": "task", "genesis": b"", "job_id": "task", "name": "", "created_by": ""}
        task |= {"initiator_organization_id": "", "chain": b"", "digest": b"", "result_receivers": "", "blocked": False}
        connection.execute(insert(task_table).values(**task, created_at=NOW, revision=REVISION))
        for run_id in ("a", "b"):
            row: dict[str, Any] = {
                "run_id": run_id,
                "task_id": "task",
                "genesis": b"",
                "organization_id": "",
                "attempt": 1,
            }
            row |= {"state": states.PENDING, "input_digest": b"", "cancelling": False, "exit_class": 0, "reason": 0}
            row |= {"rule": "", "fraction": 0.0, "result_digest": b"", "result_size_bytes": 0, "progress_envelope": b""}
            connection.execute(insert(run_table).values(**row, created_at=NOW, expires_at=NOW, revision=0))
        yield connection


def columns(connection: Connection, *names: str) -> list[tuple[Any, ...]]:
    asked = select(*(run_table.c[name] for name in names)).order_by(run_table.c.run_id)
    return [tuple(row) for row in connection.execute(asked)]


def test_a_run_that_has_moved_meanwhile_stays_as_it_is(connection: Connection) -> None:
    [read_before] = runs.load(connection, ["a"])
    runs.move(connection, [read_before], Touched(), state=states.COMPLETED, ended_at=NOW)
    runs.move(connection, [read_before], Touched(), state=states.CANCELLED, ended_at=NOW)
    assert columns(connection, "state")[0] == (states.COMPLETED,)


def test_no_two_runs_share_a_revision(connection: Connection) -> None:
    runs.move(connection, runs.load(connection, ["a", "b"]), Touched(), state=states.ASSIGNED)
    assert columns(connection, "run_id", "revision") == [("a", REVISION + 1), ("b", REVISION + 2)]
    assert connection.scalar(select(task_table.c.revision)) == REVISION + 2


def test_whoever_watches_the_task_is_to_be_woken(connection: Connection) -> None:
    touched = Touched()
    runs.move(connection, runs.load(connection, ["a"]), touched, state=states.ASSIGNED)
    assert touched.topics == {"task:task"}
