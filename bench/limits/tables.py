"""Limit of a table's read: DuckDB gives a Parquet file as Arrow in one process, and as many bytes pass over a Unix socket.

The two are measured apart, and their times added. The socket carries one gRPC stream of 1 MiB frames, as a run's does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import grpc

from bench.limits.common import MEBIBYTE, Child, Figure, announce_ready, print_figures, repeat, scratch_folder, seconds

SERVICE = "limit"
BATCH_ROWS = 32_768
UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


def measure(path: Path, *, repetitions: int = 3) -> Figure:
    """MB of Arrow per second; needs a Parquet file."""
    size_bytes = _read(path)
    reads = repeat(repetitions, lambda: seconds(lambda: _read(path)))
    with scratch_folder() as folder, Child("-m", "bench.limits.tables", "--serve", str(folder)) as _:
        streams = repeat(repetitions, lambda: seconds(lambda: _stream(folder, size_bytes)))
    rates = tuple(size_bytes / 1e6 / (read + stream) for read, stream in zip(reads, streams, strict=True))
    detail = {"arrow_mb": size_bytes / 1e6, "duckdb_s": min(reads), "stream_s": min(streams)}
    return Figure("tables", "MB/s", rates, detail)


def _read(path: Path) -> int:
    """Read the whole file batch by batch; return its size as Arrow."""
    with duckdb.connect(":memory:") as connection:
        return sum(batch.nbytes for batch in connection.read_parquet(str(path)).to_arrow_reader(BATCH_ROWS))


def _stream(folder: Path, size_bytes: int) -> None:
    with grpc.insecure_channel(f"unix:{folder / 'limit.sock'}", options=UNLIMITED) as channel:
        read: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/Read")
        if sum(map(len, read(str(size_bytes).encode(), wait_for_ready=True))) < size_bytes:
            raise RuntimeError("the stream ended too soon")


def _serve(folder: Path) -> None:
    frame = bytes(MEBIBYTE)

    def read(request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(-(-int(request) // MEBIBYTE)):
            yield frame

    server = grpc.server(ThreadPoolExecutor(2), options=UNLIMITED)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {"Read": grpc.unary_stream_rpc_method_handler(read)}),)
    )
    server.add_insecure_port(f"unix:{folder / 'limit.sock'}")
    server.start()
    announce_ready()
    server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        _serve(Path(sys.argv[2]))
    else:
        print_figures(measure(Path(sys.argv[1])))
