"""Dataframes at a station: what stands, what is read, what is forgotten, and what of them is told."""

import asyncio
import errno
import io
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from folkmoot.node.data import writer
from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.node.data.tables import SourceTables
from folkmoot.node.journal import dataframe_records, records
from folkmoot.node.journal.database import Journal, open_connection
from folkmoot.node.journal.dataframe_records import StoredDataframe
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.storage.dataframes import Dataframes, told_of
from folkmoot.trust import FolkmootError, serialize
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import DataframeColumn, DataframeLeft, RunState, SessionUse, TaskChain, TaskSpec

SESSION, OTHER = "01890000-0000-7000-8000-000000000001", "01890000-0000-7000-8000-000000000002"
COMPLETED, CRASHED = RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_CRASHED
LEFT = DataframeLeft(name="cleaned", rows=3, columns=[DataframeColumn(name="age", type="int64")])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = open_connection(tmp_path / "journal.db")
    yield connection
    connection.close()


@pytest.fixture
async def dataframes(tmp_path: Path) -> AsyncIterator[Dataframes]:
    made = Journal(tmp_path / "journal.db")
    yield Dataframes(tmp_path, made)
    await made.close()


def dataframe(run_id: str, name: str = "cleaned", *, session: str = SESSION, **changes: Any) -> StoredDataframe:
    made = StoredDataframe(session, name, run_id, 1, f"{run_id}-{name}.parquet", 10, LEFT, ("patients",))
    return replace(made, **changes)


def run(run_id: str, state: int = COMPLETED, **changes: Any) -> RunRecord:
    usual: dict[str, Any] = {
        "run_id": run_id,
        "attempt": 1,
        "task_id": "task",
        "job_id": "job",
        "task_digest": b"",
        "chain": b"",
        "policy_digest": b"p",
        "input_digest": b"",
        "memory_bytes": 0,
        "cpu_millis": 0,
        "run_time_seconds": 0,
        "result_limit_bytes": 0,
        "accepted_at_us": 0,
        "state": state,
    }
    return RunRecord(**(usual | changes))


def left(journal: sqlite3.Connection, made: StoredDataframe, state: int = COMPLETED) -> None:
    dataframe_records.put_pending(journal, made)
    dataframe_records.settle(journal, run(made.run_id, state))


def standing(journal: sqlite3.Connection) -> dict[str, str]:
    return {each.name: each.run_id for each in dataframe_records.standing(journal)}


def test_nothing_stands_before_its_run_has_completed(journal: sqlite3.Connection):
    dataframe_records.put_pending(journal, dataframe("one"))
    assert standing(journal) == {}
    dataframe_records.settle(journal, run("one"))
    assert standing(journal) == {"cleaned": "one"}


@pytest.mark.parametrize("state", [CRASHED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED])
def test_a_run_that_ends_otherwise_replaces_nothing(journal: sqlite3.Connection, state: int):
    left(journal, dataframe("one"))
    left(journal, dataframe("two"), state)
    assert standing(journal) == {"cleaned": "one"}
    assert dataframe_records.unwanted(journal, ["one-cleaned.parquet", "two-cleaned.parquet"]) == [
        "two-cleaned.parquet"
    ]


def test_the_end_of_a_run_that_is_settled_twice_is_settled_once(journal: sqlite3.Connection):
    left(journal, dataframe("one"))
    left(journal, dataframe("two"))
    dataframe_records.settle(journal, run("one"))
    assert standing(journal) == {"cleaned": "two"}


def test_what_a_run_reads_stays_while_it_goes_on_though_another_takes_its_place(journal: sqlite3.Connection):
    left(journal, dataframe("one"))
    records.insert_run(journal, reader := run("reader", RunState.RUN_STATE_RUNNING))
    use = SessionUse(session_id=SESSION, dataframes=["cleaned"])
    [read] = dataframe_records.begin_reading(journal, reader.key, use)
    left(journal, dataframe("two"))
    assert dataframe_records.unwanted(journal, [read.file]) == []
    [again] = dataframe_records.begin_reading(journal, reader.key, use)  # after a restart
    assert (again.file, again.lineage) == (read.file, read.lineage)
    dataframe_records.settle(journal, replace(reader, state=COMPLETED))
    assert dataframe_records.unwanted(journal, [read.file]) == [read.file]


def test_a_name_of_another_session_is_not_found(journal: sqlite3.Connection):
    left(journal, dataframe("one"))
    with pytest.raises(FolkmootError) as error:
        dataframe_records.begin_reading(journal, ("reader", 1), SessionUse(session_id=OTHER, dataframes=["cleaned"]))
    assert error.value.reason == ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND


def test_nothing_is_left_in_a_session_that_was_deleted_meanwhile(journal: sqlite3.Connection):
    left(journal, dataframe("one"))
    left(journal, dataframe("kept", session=OTHER))
    dataframe_records.put_pending(journal, dataframe("two"))
    dataframe_records.drop(journal, SESSION, "")
    dataframe_records.put_pending(journal, dataframe("late"))
    for run_id in ("two", "late"):
        assert dataframe_records.pending(journal, (run_id, 1)) is None
        dataframe_records.settle(journal, run(run_id))
    assert standing(journal) == {"cleaned": "kept"}


def test_one_dataframe_is_dropped_without_the_others(journal: sqlite3.Connection):
    for name in ("cleaned", "model"):
        left(journal, dataframe(name, name))
    dataframe_records.drop(journal, SESSION, "cleaned")
    left(journal, dataframe("later", "third"))
    assert set(standing(journal)) == {"model", "third"}


def test_files_of_a_job_carry_the_lineage_of_all_that_its_runs_have_read_and_left(journal: sqlite3.Connection):
    def chain(*labels: str) -> bytes:
        return serialize(TaskChain(specs=[Signed(body=serialize(TaskSpec(version=1, labels=labels)))]))

    records.insert_run(journal, run("one", chain=chain("scans"), scratch=1))
    records.insert_run(journal, reader := run("two", RunState.RUN_STATE_RUNNING, chain=chain(), scratch=1))
    records.insert_run(journal, run("three", chain=chain("secret"), scratch=0))
    records.insert_run(journal, run("four", chain=chain("others"), job_id="another", scratch=1))
    left(journal, dataframe("source"))
    dataframe_records.begin_reading(journal, reader.key, SessionUse(session_id=SESSION, dataframes=["cleaned"]))
    assert dataframe_records.lineage_of_scratch(journal, "job") == {"scans", "patients"}


def test_a_session_takes_no_more_than_the_policy_gives(journal: sqlite3.Connection):
    left(journal, dataframe("one", size_bytes=60))
    dataframe_records.put_pending(journal, dataframe("mine", "model", size_bytes=30))
    assert dataframe_records.taken_bytes(journal, SESSION, besides=("mine", 1)) == 60
    assert dataframe_records.taken_bytes(journal, SESSION, besides=("other", 1)) == 90


async def test_a_session_without_room_takes_nothing_more(dataframes: Dataframes):
    with pytest.raises(FolkmootError) as error:
        await dataframes.room_bytes(run("one"), SESSION, 0)
    assert error.value.reason == ErrorReason.ERROR_REASON_TOO_LARGE


async def test_what_nothing_names_is_removed_at_the_start(dataframes: Dataframes, tmp_path: Path):
    folder = tmp_path / "sessions" / SESSION
    folder.mkdir(parents=True)
    for name in ("leftover.parquet", "half.part"):
        (folder / name).write_bytes(b"")
    await dataframes.clear_leftovers()
    assert not folder.exists()


async def test_a_session_that_is_a_path_has_no_folder(dataframes: Dataframes):
    with pytest.raises(FolkmootError):
        dataframes.sources([dataframe("one")], "../../etc", queryable=())


def test_a_receipt_tells_what_the_policy_lets_it():
    made = dataframe("one")
    told = {report: told_of(made, report, minimum_rows=0) for report in ("name", "rows", "columns")}
    assert told["name"] == DataframeLeft(name="cleaned")
    assert told["rows"] == DataframeLeft(name="cleaned", rows=3)
    assert told["columns"] == LEFT
    assert told_of(made, "columns", minimum_rows=4).rows == 0
    wide = DataframeLeft(name="cleaned", rows=3, columns=[DataframeColumn(name="x" * 256, type="int64")] * 2000)
    assert not told_of(replace(made, left=wide), "columns", minimum_rows=0).columns


def test_a_dataframe_may_be_queried_only_if_all_that_it_was_made_from_may(tmp_path: Path):
    made = Dataframes(tmp_path, None)  # type: ignore[arg-type]
    both = replace(dataframe("one"), lineage=("patients", "scans"))
    for queryable, expected in ((("patients",), False), (("patients", "scans"), True)):
        assert made.sources([both], SESSION, queryable=queryable)["cleaned"].queries is expected


async def test_a_dataframe_called_like_a_folder_of_the_station_is_the_dataframe(tmp_path: Path):
    folder = Source(kind=SourceKind.FOLDER, path=tmp_path)
    tables = SourceTables({"scans": folder})
    including = tables.including({"scans": Source(kind=SourceKind.PARQUET, path=tmp_path / "scans.parquet")})
    assert await tables.folders(["scans"]) == {"scans": tmp_path}
    assert await including.folders(["scans"]) == {}
    await tables.close()


def stored(content: bytes, most_bytes: int = 1 << 20) -> dict[str, Any]:
    return writer.store(io.BytesIO(content), io.BytesIO(), most_bytes=most_bytes)


def ipc(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as made:
        made.write_table(table)
    return sink.getvalue()


def test_types_and_rows_are_kept_and_what_packages_add_is_not():
    schema = pa.schema([pa.field("age", pa.int64(), metadata={"a": "b"})], metadata={"pandas": "{}"})
    table = pa.table({"age": [1, None]}, schema=schema)
    assert stored(ipc(table)) == {"rows": 2, "columns": [["age", "int64"]]}
    assert writer.kept_schema(schema).metadata is None
    assert writer.kept_schema(schema).field("age").metadata is None


@pytest.mark.parametrize(
    "names",
    [[], ["age", "AGE"], [""], ["x" * 257], ["line\nbreak"], [str(number) for number in range(2001)]],
    ids=["none", "same", "empty", "long", "unprintable", "many"],
)
def test_columns_that_no_table_could_have_are_refused(names: list[str]):
    with pytest.raises(writer.Refused):
        writer.kept_schema(pa.schema([(name, pa.int64()) for name in names]))


def test_text_that_is_none_is_refused():
    content = bytearray(ipc(pa.table({"name": ["aaaa", "bbbb"]})))
    content[bytes(content).find(b"aaaabbbb")] = 0xFF
    with pytest.raises(pa.ArrowInvalid):
        stored(bytes(content))


def test_more_than_there_is_room_for_is_refused_however_small_it_is_packed():
    packed = io.BytesIO()
    table = pa.table({"zeros": [0] * 100_000})
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(packed, table.schema, options=options) as made:
        made.write_table(table)
    assert len(packed.getvalue()) < 10_000
    with pytest.raises(writer.Refused) as refused:
        stored(packed.getvalue(), most_bytes=100_000)
    assert refused.value.reason == "TOO_LARGE"


def test_what_comes_in_crumbs_is_kept_in_groups_that_are_quick_to_read():
    table, kept = pa.table({"age": range(400_000), "sex": ["f", "m"] * 200_000}), io.BytesIO()
    crumbs = io.BytesIO()
    with pa.ipc.new_stream(crumbs, table.schema) as made:
        made.write_table(table, max_chunksize=100)
    crumbs.seek(0)
    assert writer.store(crumbs, kept, most_bytes=1 << 30)["rows"] == 400_000
    file = pq.ParquetFile(pa.BufferReader(kept.getvalue()))
    assert file.num_row_groups == 4
    assert file.read().equals(table)


def test_categories_that_change_from_batch_to_batch_are_kept():
    content, kept = io.BytesIO(), io.BytesIO()
    batches = [pa.record_batch({"sex": pa.array(values).dictionary_encode()}) for values in (["f", "m"], ["m", "x"])]
    with pa.ipc.new_stream(content, batches[0].schema) as made:
        for batch in batches:
            made.write_batch(batch)
    content.seek(0)
    writer.store(content, kept, most_bytes=1 << 20)
    assert pq.read_table(pa.BufferReader(kept.getvalue()))["sex"].to_pylist() == ["f", "m", "m", "x"]


# ---- writing -------------------------------------------------------------------------------------------------------


class Pieces:
    """What was checked, as it comes to the disk."""

    left = LEFT

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"some"
        yield b"thing"


async def written(dataframes: Dataframes, run_id: str) -> StoredDataframe:
    spec = TaskSpec(version=1, labels=["patients"], session=SessionUse(session_id=SESSION, leaves="cleaned"))
    return await dataframes.write(run(run_id), spec, Pieces(), lineage=["patients"])  # type: ignore[arg-type]


async def settled(dataframes: Dataframes, run_id: str, state: int = COMPLETED) -> None:
    await dataframes._journal.transact(lambda connection: dataframe_records.settle(connection, run(run_id, state)))
    await dataframes.settled(SESSION)


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "sessions").glob("*/*")}


async def test_a_full_disk_leaves_nothing_behind_and_what_stood_stands(
    dataframes: Dataframes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    await dataframes.put(first := await written(dataframes, "one"))
    await settled(dataframes, "one")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(FolkmootError) as error:
        await written(dataframes, "two")
    assert error.value.reason == ErrorReason.ERROR_REASON_DISK_FULL
    await settled(dataframes, "two", CRASHED)
    assert files(tmp_path) == {first.file}
    [standing] = dataframes.find(SessionUse(session_id=SESSION, dataframes=["cleaned"])) or ()
    assert standing.run_id == "one"


async def test_of_two_runs_that_leave_one_name_at_once_the_last_that_completes_counts_and_no_file_is_lost_or_left(
    dataframes: Dataframes, tmp_path: Path
):
    one, two = await asyncio.gather(written(dataframes, "one"), written(dataframes, "two"))
    assert files(tmp_path) == {one.file, two.file}
    await asyncio.gather(dataframes.put(one), dataframes.put(two))
    await settled(dataframes, "two")
    assert files(tmp_path) == {one.file, two.file}
    await settled(dataframes, "one")
    assert files(tmp_path) == {one.file}
    [standing] = dataframes.find(SessionUse(session_id=SESSION, dataframes=["cleaned"])) or ()
    assert standing.run_id == "one"


async def test_nobody_but_the_nodes_user_reads_a_dataframe(dataframes: Dataframes, tmp_path: Path):
    made = await written(dataframes, "one")
    folder = tmp_path / "sessions" / SESSION
    assert (folder / made.file).stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == folder.parent.stat().st_mode & 0o077 == 0
