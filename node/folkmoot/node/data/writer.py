"""The child process that checks one dataframe: `python -I -m folkmoot.node.data.writer PARENT_PID MOST_BYTES`.

What an algorithm writes is read by nobody but this process, which holds nothing: no key, an empty environment, no file that it could
write, no socket, and no more memory than `MEMORY_BYTES`. It ends with its parent.

1. It reads an Arrow IPC stream from standard input, batch by batch, and checks each: offsets, lengths, text.
2. It writes Parquet to standard output. That is whole if the exit code is 0.
3. At last it says one line of JSON on standard error: {"rows", "columns": [[name, type]]}, or {"reason", "message"}.
"""

import contextlib
import fcntl
import json
import os
import resource
import sys
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from folkmoot.node.data.confinement import confine, forbid_network

MEMORY_BYTES = 2 << 30
MOST_COLUMNS = 2000
LONGEST_NAME_BYTES = 256
GROUP_ROWS, GROUP_BYTES = 1 << 17, 16 << 20
"""A row group has so many rows, or takes so much: what comes in crumbs is read as fast as what came at once."""

_PIPE_BYTES = 1 << 20


class Refused(Exception):  # noqa: N818 - says what is wrong
    """What came is no dataframe; the reason is one of the catalogue."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def main() -> None:
    """Store one dataframe, and leave the process: nothing of the libraries' own shutdown is waited for."""
    confine(parent=int(sys.argv[1]))
    forbid_network()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    with contextlib.suppress(OSError):  # the kernel may not have room for more
        fcntl.fcntl(sys.stdout.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    code = 1
    try:
        told = store(sys.stdin.buffer, sys.stdout.buffer, most_bytes=int(sys.argv[2]))
        sys.stdout.buffer.flush()
        code = 0
    except Refused as refused:
        told = {"reason": refused.reason, "message": str(refused)}
    except (pa.ArrowMemoryError, MemoryError):
        told = {"reason": "TOO_LARGE", "message": "a batch takes more memory than there is: write smaller ones"}
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        told = {"reason": "MALFORMED", "message": f"this is no Arrow stream that can be kept: {str(error)[:300]}"}
    sys.stderr.write(json.dumps(told) + "\n")
    sys.stderr.flush()
    os._exit(code)


def store(source: BinaryIO, target: BinaryIO, *, most_bytes: int) -> dict[str, Any]:
    """Turn an Arrow IPC stream into Parquet; return what there is to tell of it. Raises Refused, and what Arrow raises."""
    reader = pa.ipc.open_stream(pa.PythonFile(source, mode="r"))
    schema = kept_schema(reader.schema)
    rows = 0
    with pq.ParquetWriter(
        pa.PythonFile(target, mode="w"), schema, compression="zstd", use_dictionary=_texts(schema)
    ) as writer:
        for group in _groups(_bounded(reader, most_bytes), schema):
            writer.write_table(group)
            rows += group.num_rows
    if source.read(1):
        raise Refused("MALFORMED", "there is something behind the end of the Arrow stream")
    return {"rows": rows, "columns": [[field.name, str(field.type)] for field in schema]}


def kept_schema(schema: pa.Schema) -> pa.Schema:
    """What is kept of a schema: names and types. Raises Refused for columns that no table could have."""
    if not 1 <= len(schema) <= MOST_COLUMNS:
        raise Refused("MALFORMED", f"a dataframe has 1 to {MOST_COLUMNS} columns, this has {len(schema)}")
    if len({name.lower() for name in schema.names}) < len(schema):
        raise Refused("MALFORMED", "two columns have the same name, but for the case of letters")
    for name in schema.names:
        if not 0 < len(name.encode()) <= LONGEST_NAME_BYTES or not name.isprintable():
            raise Refused(
                "MALFORMED", f"a column's name has 1 to {LONGEST_NAME_BYTES} bytes, all of which can be printed"
            )
    return pa.schema([pa.field(field.name, _storage_type(field.type)) for field in schema])


def _bounded(reader: pa.RecordBatchReader, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Check each batch; stop as soon as there is more than the node gives room for."""
    missing_bytes = most_bytes
    for batch in reader:
        batch.validate(full=True)
        missing_bytes -= batch.nbytes
        if missing_bytes < 0:
            raise Refused("TOO_LARGE", f"the node has room for {most_bytes} bytes of this session's dataframe")
        yield batch


def _groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Gather batches until they make a row group."""
    gathered: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        gathered.append(pa.RecordBatch.from_arrays(_storage(batch), schema=schema))
        rows, size_bytes = rows + batch.num_rows, size_bytes + batch.nbytes
        if rows >= GROUP_ROWS or size_bytes >= GROUP_BYTES:
            yield pa.Table.from_batches(gathered, schema=schema)
            gathered, rows, size_bytes = [], 0, 0
    if gathered:
        yield pa.Table.from_batches(gathered, schema=schema)


def _texts(schema: pa.Schema) -> list[str]:
    """The columns in which values come again and again; looking for that in numbers costs more than it saves."""
    return [field.name for field in schema if not (pa.types.is_primitive(field.type) or pa.types.is_nested(field.type))]


def _storage(batch: pa.RecordBatch) -> list[pa.Array]:
    """The columns, without what packages make of their types."""
    return [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]


def _storage_type(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


if __name__ == "__main__":
    main()
