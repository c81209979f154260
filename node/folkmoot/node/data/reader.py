"""The child process that reads one table: `python -I -m folkmoot.node.data.reader PARENT_PID`.

It holds no key, no credential and no network of anybody; its environment is empty, it can open no file for writing, and its
DuckDB can open the one file that it was told, and nothing else. It ends with its parent.

1. It imports what it needs, then waits for one line of JSON on standard input: kind, path, types, request (a serialized
   ReadTableRequest in base64; absent if only the columns are wanted).
2. It answers with one line of JSON on standard output: {} or {"reason", "message", "field"} or {"columns": [[name, type]]}.
3. After {} follows an Arrow IPC stream. It is whole if the exit code is 0. What went wrong otherwise is on standard error.
"""

import base64
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import pyarrow as pa

from folkmoot.node.data.filters import Refused, select
from folkmoot.v1.proxy_service_pb2 import ReadTableRequest

MEMORY = "128MB"
"""What DuckDB may hold. It streams; this bounds row groups and strings, not the table."""

ADDRESS_SPACE_BYTES = 8 << 30
THREADS = 2
BATCH_ROWS = 32_768
SAMPLE_ROWS = 204_800
"""Rows by which types of CSV columns are guessed."""

_WRITE_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve one job, and leave the process: nothing of the libraries' own shutdown is waited for."""
    confine(parent=int(sys.argv[1]))
    code = 0
    try:
        if line := sys.stdin.buffer.readline():
            serve(json.loads(line), sys.stdout.buffer)
    except BrokenPipeError:
        code = 1  # nobody listens any more
    except Exception as error:  # noqa: BLE001 - the last line of defence; the parent logs it
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        code = 1
    os._exit(code)


def confine(*, parent: int) -> None:
    """Give up what reading doesn't need."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before the line above


def serve(job: dict[str, Any], answer: BinaryIO) -> None:
    """Do one job. Everything that the algorithm may know goes to `answer`."""
    connection = open_engine(job["path"])
    relation = open_source(connection, job["kind"], job["path"], job["types"])
    if "request" not in job:
        schema = relation.limit(0).to_arrow_reader(1).schema
        _say(answer, {"columns": [[field.name, str(field.type)] for field in schema]})
        return
    request = ReadTableRequest.FromString(base64.b64decode(job["request"]))
    try:
        batches = select(connection, relation, request).to_arrow_reader(BATCH_ROWS)
    except Refused as refused:
        _say(answer, {"reason": refused.reason, "message": str(refused), "field": refused.field})
        return
    _say(answer, {})
    with open(answer.fileno(), "wb", buffering=_WRITE_BYTES, closefd=False) as sink:
        with pa.ipc.new_stream(pa.PythonFile(sink, "w"), batches.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        sink.flush()


def open_engine(path: str) -> duckdb.DuckDBPyConnection:
    """Return an engine that can open one file, and can't be told otherwise."""
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": MEMORY,
            "threads": THREADS,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    for setting in (
        "TimeZone = 'UTC'",
        "disable_parquet_prefetching = true",  # it would hold a row group at once, and those can be of any size
        "disabled_optimizers = 'statistics_propagation'",  # it takes a file's smallest and largest value for all: NaN is neither
        "allowed_paths = ['{}']".format(path.replace("'", "''")),
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection


def open_source(
    connection: duckdb.DuckDBPyConnection, kind: str, path: str, types: dict[str, str]
) -> duckdb.DuckDBPyRelation:
    """Return the file as a relation, of which nothing but its columns is read yet."""
    Path(path).open("rb").close()  # says plainly if it is not there
    if kind == "parquet":
        return connection.read_parquet(path, hive_partitioning=False)
    return connection.read_csv(path, header=True, sample_size=SAMPLE_ROWS, dtype=types, hive_partitioning=False)


def _say(answer: BinaryIO, line: dict[str, Any]) -> None:
    answer.write(json.dumps(line).encode() + b"\n")
    answer.flush()


if __name__ == "__main__":
    main()
