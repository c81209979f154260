"""What has left is recorded in a chain: whatever is altered, dropped or moved is found, at the end too."""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.journal import database as journal_module
from folkmoot.node.journal import records
from folkmoot.node.journal.database import SCHEMA, open_connection
from folkmoot.node.storage import egress
from folkmoot.node.storage.egress import Departure
from folkmoot.trust import FolkmootError, digest, serialize
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.station_service_pb2 import EgressRecord
from folkmoot.v1.task_pb2 import Receipt, RunState
from tests.builders import NOW
from tests.unit.node.test_journal import run

RUNS = ("one", "two")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_connection(tmp_path / "journal.db")
    for name in RUNS:
        records.insert_run(connection, run(name))
    yield connection
    connection.close()


def departure(size_bytes: int) -> Departure:
    return Departure(bytes(32), NOW, EnvelopeKind.ENVELOPE_KIND_LOG, bytes(32), size_bytes, ("Alpha",))


def leave(connection: sqlite3.Connection, run_id: str, *sizes: int) -> None:
    egress.leave(connection, (run_id, 1), "task", [departure(size) for size in sizes])


def test_each_record_names_the_one_before(journal: sqlite3.Connection):
    leave(journal, "one", 10, 20)
    leave(journal, "two", 30)
    read = [EgressRecord.FromString(data) for data in egress.all_records(journal)]
    assert [record.sequence for record in read] == [1, 2, 3]
    assert [record.previous_hash for record in read] == [bytes(32), *(digest(serialize(each)) for each in read[:2])]
    assert egress.head(journal) == (3, digest(serialize(read[-1])))
    assert egress.verify(journal) == 3


@given(departures=st.lists(st.tuples(st.sampled_from(RUNS), st.integers(0, 1 << 40)), max_size=30))
def test_what_is_recorded_is_what_is_counted(departures: list[tuple[str, int]]):
    connection = _memory()
    try:
        for name in RUNS:
            records.insert_run(connection, run(name))
        for name, size in departures:
            leave(connection, name, size)
        assert egress.verify(connection) == len(departures)
        for name in RUNS:
            [standing] = records.attempts_of(connection, name)
            assert standing.bytes_out == sum(size for run_id, size in departures if run_id == name)
    finally:
        connection.close()


def _memory() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    for script in SCHEMA:
        connection.executescript(script)
    return connection


def alter(connection: sqlite3.Connection, sequence: int, **changes: object) -> None:
    (data,) = connection.execute("SELECT record FROM egress WHERE sequence = ?", (sequence,)).fetchone()
    record = EgressRecord.FromString(data)
    for name, value in changes.items():
        setattr(record, name, value)
    connection.execute("UPDATE egress SET record = ? WHERE sequence = ?", (serialize(record), sequence))


def drop(connection: sqlite3.Connection, sequence: int) -> None:
    connection.execute("DELETE FROM egress WHERE sequence = ?", (sequence,))


def drop_content(connection: sqlite3.Connection, sequence: int) -> None:
    connection.execute("UPDATE egress SET record = x'00' WHERE sequence = ?", (sequence,))


def swap(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE egress SET sequence = CASE sequence WHEN 2 THEN -3 WHEN 3 THEN -2 ELSE sequence END")
    connection.execute("UPDATE egress SET sequence = -sequence WHERE sequence < 0")


def forge_the_end(connection: sqlite3.Connection) -> None:
    """Drop the newest record, and the bytes that its run has counted: only what the node signed tells."""
    drop(connection, 4)
    connection.execute("UPDATE runs SET bytes_out = 10 WHERE run_id = 'one'")


TAMPERED: dict[str, Callable[[sqlite3.Connection], None]] = {
    "a smaller size": lambda db: alter(db, 2, size_bytes=1),
    "another task": lambda db: alter(db, 1, task_id="another"),
    "the newest one's size": lambda db: alter(db, 4, size_bytes=1),
    "the first dropped": lambda db: drop(db, 1),
    "one in the middle dropped": lambda db: drop(db, 2),
    "the newest dropped": lambda db: drop(db, 4),
    "two in each other's place": swap,
    "no record at all": lambda db: drop_content(db, 3),
    "the end forged": forge_the_end,
}


@pytest.mark.parametrize("name", TAMPERED)
def test_whatever_was_done_to_the_records_is_found(journal: sqlite3.Connection, name: str):
    leave(journal, "one", 10)
    leave(journal, "two", 20, 30)
    [started] = records.attempts_of(journal, "one")
    receipt = _receipt(started.bytes_out + 40)
    ended = replace(started, state=RunState.RUN_STATE_FAILED, receipt=receipt)
    records.end_run(journal, ended, None, [departure(40)])
    assert egress.verify(journal) == 4
    TAMPERED[name](journal)
    with pytest.raises(FolkmootError, match="is not whole"):
        egress.verify(journal)


def _receipt(bytes_out: int) -> bytes:
    return Signed(body=Receipt(bytes_out=bytes_out).SerializeToString()).SerializeToString()


def test_bytes_that_left_before_there_were_records_are_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "journal.db"
    monkeypatch.setattr(journal_module, "SCHEMA", journal_module.SCHEMA[:1])
    old = open_connection(path)
    columns = [name for name in vars(run()) if name in {row[1] for row in old.execute("PRAGMA table_info(runs)")}]
    values = vars(run("one")) | {"bytes_out": 77}
    old.execute(f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join(':' + name for name in columns)})", values)
    old.close()
    monkeypatch.undo()
    new = open_connection(path)
    assert egress.verify(new) == 0
    leave(new, "one", 5)
    assert egress.verify(new) == 1
    new.close()
