"""The child process that reads one table: `python -I -m folkmoot.node.data.reader PARENT_PID`.

It holds no key; its environment is empty, it can open no file for writing, its engine opens the files of its source and nothing else.
If its source is a database or an endpoint, it holds that one's credential; if not, it can't open a socket. It ends with its parent.

1. It imports what it needs, then waits for one line of JSON on standard input: source (`table_source.Settings`) and, unless only
   the columns are wanted, minimum_rows and either request (a serialized ReadTableRequest in base64) or sql.
2. It answers with one line of JSON on standard output: {} or {"reason", "message", "field"} or {"columns": [[name, type]], "warnings"}.
3. After {} follows an Arrow IPC stream. It is whole if the exit code is 0. What went wrong otherwise is on standard error.

A query, and a read from the network, has a time after which the kernel ends the process: not everything that an engine or a server
does, or leaves undone, can be interrupted.
"""

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from folkmoot.node.data.confinement import confine, end_after, forbid_network, hold_query
from folkmoot.node.data.engine import MEMORY, QUERY_MEMORY, THREADS, interrupt_after, name_view, open_engine, shut_in
from folkmoot.node.data.filters import Refused, conditions_of, select
from folkmoot.node.data.opening import Opened, open_table
from folkmoot.node.data.queries import MOST_ROWS, invalid, parse, require_rows
from folkmoot.node.data.streams import as_categories, at_least
from folkmoot.node.data.table_source import Settings
from folkmoot.v1.proxy_service_pb2 import ReadTableRequest

BATCH_ROWS = 32_768

QUERY_EXIT = 3
"""A query failed after its answer had begun: on a row, or because it became too large or took too long."""

GRACE_SECONDS = 5
"""How long what was interrupted may take to end."""

_COMPLAINT_LETTERS = 10_000

_WRITE_BYTES = 64 << 10
"""What is gathered before it is written. Columns are larger: they go to the pipe from where the engine has put them."""

_HARMLESS = (duckdb.BinderException, duckdb.ParserException, duckdb.CatalogException)
_BOUNDS = (duckdb.InterruptException, duckdb.OutOfMemoryException, MemoryError)
_FAILURES = (duckdb.Error, pa.ArrowException, OSError, MemoryError)
_ROW = "Original Line:"


class QueryFailed(Exception):  # noqa: N818 - says what happened
    """An answer that had begun can't be finished."""


def main() -> None:
    """Serve one job, and leave the process: nothing of the libraries' own shutdown is waited for."""
    confine(parent=int(sys.argv[1]))
    code = 0
    try:
        if line := sys.stdin.buffer.readline():
            serve(json.loads(line), sys.stdout.buffer)
    except BrokenPipeError:
        code = 1  # nobody listens any more
    except QueryFailed:
        code = QUERY_EXIT
    except Exception as error:  # noqa: BLE001 - the last line of defence; the parent logs it
        sys.stderr.write(_complaint(error))
        code = 1
    os._exit(code)


def serve(job: dict[str, Any], answer: BinaryIO) -> None:
    """Do one job. Everything that the algorithm may know goes to `answer`."""
    settings = Settings.from_job(job["source"])
    if not job["network"] and not forbid_network():
        sys.stderr.write("this kernel can't take the network from one process\n")
    if job["network"] or "sql" in job:
        end_after(settings.longest_seconds + GRACE_SECONDS)
    computes = "sql" in job or settings.kind == "view"
    connection = open_engine(
        memory=QUERY_MEMORY if computes else MEMORY, threads=1 if _passes_through(settings, job) else THREADS
    )
    opened = open_table(connection, settings)
    shut_in(connection, opened.paths)
    if "request" not in job and "sql" not in job:
        _describe(opened, answer)
        return
    try:
        schema, batches = _query(connection, opened, settings, job) if "sql" in job else _read(connection, opened, job)
        batches = at_least(batches, job["minimum_rows"] if "request" in job else 0)
    except Refused as refused:
        _say(answer, {"reason": refused.reason, "message": str(refused), "field": refused.field})
        return
    _say(answer, {})
    _write(schema, batches, answer)


def _describe(opened: Opened, answer: BinaryIO) -> None:
    reader = opened.relation(None, ()).limit(0).to_arrow_reader(1)
    schema, _ = as_categories(reader, opened.categories)
    warnings = list(opened.source.warnings()) if opened.source else []
    _say(answer, {"columns": [[field.name, str(field.type)] for field in schema], "warnings": warnings})


def _read(
    connection: duckdb.DuckDBPyConnection, opened: Opened, job: dict[str, Any]
) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    request = _request(job)
    needed = [*request.columns, *(one.column for one in request.where)] if request.columns else None
    relation = opened.relation(needed, conditions_of(request))
    return as_categories(select(connection, relation, request).to_arrow_reader(BATCH_ROWS), opened.categories)


def _passes_through(settings: Settings, job: dict[str, Any]) -> bool:
    """Whether rows are decoded and nothing else: one thread does that faster than a socket takes them, and holds half as much."""
    return settings.kind == "parquet" and "request" in job and not _request(job).where


def _request(job: dict[str, Any]) -> ReadTableRequest:
    return ReadTableRequest.FromString(base64.b64decode(job["request"]))


def _query(
    connection: duckdb.DuckDBPyConnection, opened: Opened, settings: Settings, job: dict[str, Any]
) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    hold_query()
    interrupt_after(connection, settings.timeout_seconds)
    query = parse(connection, job["sql"], settings.label)
    relation = opened.relation(None, ())
    names = relation.columns
    name_view(connection, opened.relation(query.columns(names), ()), settings.label)
    try:
        connection.begin()  # what is counted and what is answered is one moment's
        if job["minimum_rows"]:
            require_rows(connection, query, job["minimum_rows"])
        reader = connection.sql(query.sql).to_arrow_reader(BATCH_ROWS)
        first = next(reader, None)
    except _HARMLESS as error:
        raise invalid(f"{str(error).splitlines()[0]} (columns are {', '.join(names)})") from None
    except _BOUNDS as error:
        raise invalid(f"it takes too much memory or time ({type(error).__name__})") from None
    except _FAILURES as error:  # its text may hold a value
        raise invalid(f"it fails on a row of the table ({type(error).__name__})") from None
    return reader.schema, _bounded(chain([first] if first else [], reader))


def _bounded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows = 0
    try:
        for batch in batches:
            rows += batch.num_rows
            if rows > MOST_ROWS:
                raise QueryFailed
            yield batch
    except _FAILURES:
        raise QueryFailed from None


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], answer: BinaryIO) -> None:
    with open(answer.fileno(), "wb", buffering=_WRITE_BYTES, closefd=False) as sink:
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        sink.flush()


def _complaint(error: Exception) -> str:
    """What the data owner is told: the cause, without the row that a library shows with it."""
    lines = [line for line in str(error).splitlines() if not line.startswith(_ROW)]
    return f"{type(error).__name__}: {chr(10).join(lines)}"[:_COMPLAINT_LETTERS] + "\n"


def _say(answer: BinaryIO, line: dict[str, Any]) -> None:
    answer.write(json.dumps(line).encode() + b"\n")
    answer.flush()


if __name__ == "__main__":
    main()
