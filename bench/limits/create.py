"""Limit of task creation: durable commits of the rows of one task for three organizations, by eight submitters.

Eight rows in four tables (task, three runs, three deliveries, audit), one statement per table, one transaction per
task, raw sqlite3. Eight threads take turns on one connection, which is faster than eight connections that contend
for SQLite's single write lock. In the detail: the same through SQLAlchemy Core, and raw with what is queued grouped
into one transaction, which no longer is one commit per task. Two rows through raw sqlite3 reach 7,900 commits/s.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import sqlalchemy
from sqlalchemy import BLOB, Column, Engine, Integer, MetaData, String, Table

from bench.limits.common import Figure, open_durable_sqlite, print_figures, repeat, scratch_folder

ORGANIZATIONS = 3
SPECIFICATION = os.urandom(1024)
INPUT = os.urandom(2048)
AUDIT = os.urandom(200)

_METADATA = MetaData()
TASK = Table(
    "task",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("state", String),
    Column("created_at", Integer),
    Column("specification", BLOB),
    Column("input", BLOB),
)
RUN = Table(
    "run",
    _METADATA,
    Column("id", String(36), primary_key=True),
    Column("task_id", String(36), index=True),
    Column("organization_id", Integer, index=True),
    Column("state", String),
    Column("attempt", Integer),
)
DELIVERY = Table(
    "delivery",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("run_id", String(36)),
    Column("node_id", Integer, index=True),
    Column("state", String),
)
AUDIT_EVENT = Table(
    "audit_event",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("intent", String),
    Column("created_at", Integer),
    Column("data", BLOB),
)
TABLES = (TASK, RUN, DELIVERY, AUDIT_EVENT)
Rows = tuple[Sequence[dict[str, object]], ...]
Submit = Callable[[Rows], None]


def measure(*, submitters: int = 8, for_seconds: float = 1.0, repetitions: int = 5) -> Figure:
    """Tasks stored per second, each durable before its submitter goes on."""
    with scratch_folder() as folder:
        raw = _rates(_raw_submitter(_database(folder / "raw.db")), submitters, for_seconds, repetitions)
        core = _rates(_core_submitter(folder / "core.db"), submitters, for_seconds, repetitions)
        group = _Group(_database(folder / "grouped.db"))
        grouped = _rates(group.submit, submitters, for_seconds, repetitions)
        group.close()
    detail: dict[str, float | int | str] = {
        "submitters": submitters,
        "rows_per_task": 2 + 2 * ORGANIZATIONS,
        "core_per_second": statistics.median(core),
        "raw_grouped_per_second": statistics.median(grouped),
    }
    return Figure("create", "tasks/s", raw, detail)


def _rates(submit: Submit, submitters: int, for_seconds: float, repetitions: int) -> tuple[float, ...]:
    def rate() -> float:
        counts = [0] * submitters
        deadline = time.perf_counter() + for_seconds

        def work(index: int) -> None:
            while time.perf_counter() < deadline:
                submit(_task_rows())
                counts[index] += 1

        threads = [threading.Thread(target=work, args=(index,)) for index in range(submitters)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - started)

    return repeat(repetitions, rate)


def _task_rows() -> Rows:
    now = time.time_ns()
    task_id = str(uuid.uuid4())
    runs = [str(uuid.uuid4()) for _ in range(ORGANIZATIONS)]
    return (
        [{"id": task_id, "state": "PENDING", "created_at": now, "specification": SPECIFICATION, "input": INPUT}],
        [
            {"id": run, "task_id": task_id, "organization_id": index, "state": "PENDING", "attempt": 1}
            for index, run in enumerate(runs)
        ],
        [{"run_id": run, "node_id": index, "state": "PENDING"} for index, run in enumerate(runs)],
        [{"intent": "task.create", "created_at": now, "data": AUDIT}],
    )


def _database(path: Path) -> sqlite3.Connection:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    _METADATA.create_all(engine)
    engine.dispose()
    return open_durable_sqlite(path)


def _statements() -> tuple[str, ...]:
    columns = [list(rows[0]) for rows in _task_rows()]
    return tuple(
        f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join(':' + name for name in names)})"
        for table, names in zip(TABLES, columns, strict=True)
    )


def _insert(connection: sqlite3.Connection, statements: tuple[str, ...], tasks: Sequence[Rows]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for index, statement in enumerate(statements):
        connection.executemany(statement, [row for rows in tasks for row in rows[index]])
    connection.execute("COMMIT")


def _raw_submitter(connection: sqlite3.Connection) -> Submit:
    statements = _statements()
    turn = threading.Lock()

    def submit(rows: Rows) -> None:
        with turn:
            _insert(connection, statements, [rows])

    return submit


class _Group:
    """One writer thread that commits whatever is queued, never waiting for more."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._statements = _statements()
        self._queued: deque[tuple[Rows, threading.Event]] = deque()
        self._wake = threading.Semaphore(0)
        self._closed = False
        self._writer = threading.Thread(target=self._write)
        self._writer.start()

    def submit(self, rows: Rows) -> None:
        done = threading.Event()
        self._queued.append((rows, done))
        self._wake.release()
        done.wait()

    def close(self) -> None:
        self._closed = True
        self._wake.release()
        self._writer.join()

    def _write(self) -> None:
        while True:
            self._wake.acquire()
            if self._closed:
                return
            batch = [self._queued.popleft() for _ in range(len(self._queued))]
            if batch:
                _insert(self._connection, self._statements, [rows for rows, _ in batch])
            for _, done in batch:
                done.set()


def _core_submitter(path: Path) -> Submit:
    _database(path).close()
    engine: Engine = sqlalchemy.create_engine(
        f"sqlite:///{path}", creator=lambda: open_durable_sqlite(path), poolclass=sqlalchemy.pool.StaticPool
    )
    inserts = [sqlalchemy.insert(table) for table in TABLES]
    turn = threading.Lock()

    def submit(rows: Rows) -> None:
        with turn, engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            for insert, parameters in zip(inserts, rows, strict=True):
                connection.execute(insert, parameters)
            connection.commit()

    return submit


if __name__ == "__main__":
    print_figures(measure())
