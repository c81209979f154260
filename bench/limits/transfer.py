"""Limits of upload and download: 1 MiB frames over TLS between a client process and a bare server process.

Up: every frame goes to the open file as it comes, fdatasync after every 8 MiB and before the answer; the sync of
one part overlaps the frames of the next, so the disk is waited for once. Down: the same file, read in frames.
Every upload is a file of its own that stays, as payloads are. No protobuf, no hashing. The client is a synchronous one, which is the faster kind. Expect at least 350 to 450 MB/s
up and 1.2 GB/s down on two cores with a fast disk; the disk decides, and is noisy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from bench.limits.common import (
    MEBIBYTE,
    Child,
    Figure,
    TlsFiles,
    announce_ready,
    make_tls_files,
    print_figures,
    scratch_folder,
)

SERVICE = "limit"
FRAME_BYTES = MEBIBYTE
PART_BYTES = 8 * MEBIBYTE
_OPTIONS = [("grpc.max_receive_message_length", 2 * FRAME_BYTES), ("grpc.max_send_message_length", 2 * FRAME_BYTES)]


@dataclass(frozen=True, slots=True)
class Transfer:
    """MB/s (10^6 bytes) both ways."""

    upload: Figure
    download: Figure


def measure(
    *, size_bytes: int = 100_000_000, repetitions: int = 5, folder: Path | None = None, overlap: bool = True
) -> Transfer:
    """Send `size_bytes` and fetch them back; the file is written below `folder`, default the temporary folder.

    `overlap=False` syncs each part before the next frame is read, as a server does that has one thread.
    """
    with scratch_folder(folder) as scratch:
        make_tls_files(scratch)
        with (
            Child("-m", "bench.limits.transfer", "--serve", str(scratch), str(int(overlap))) as server,
            Child("-m", "bench.limits.transfer", "--call", str(scratch), str(server.ready["port"])) as client,
        ):
            up: list[float] = []
            down: list[float] = []
            for repetition in range(repetitions + 1):
                answer = client.ask({"size_bytes": size_bytes})
                if repetition:
                    up.append(size_bytes / 1e6 / float(answer["up_seconds"]))
                    down.append(size_bytes / 1e6 / float(answer["down_seconds"]))
    return Transfer(
        upload=Figure("upload", "MB/s", tuple(up), {"size_bytes": size_bytes}),
        download=Figure("download", "MB/s", tuple(down), {"size_bytes": size_bytes}),
    )


def _call(folder: Path, port: int) -> None:
    credentials = grpc.ssl_channel_credentials(TlsFiles.within(folder).trusted)
    frame = os.urandom(FRAME_BYTES)
    with grpc.secure_channel(f"localhost:{port}", credentials, options=_OPTIONS) as channel:
        upload: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(f"/{SERVICE}/Upload")
        download: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/Download")
        print("{}", flush=True)
        for line in sys.stdin:
            size_bytes = int(json.loads(line)["size_bytes"])
            started = time.perf_counter()
            upload(_frames(frame, size_bytes))
            uploaded = time.perf_counter()
            received = sum(len(part) for part in download(b""))
            downloaded = time.perf_counter()
            if received != size_bytes:
                raise RuntimeError(f"sent {size_bytes} bytes, got {received} back")
            print(json.dumps({"up_seconds": uploaded - started, "down_seconds": downloaded - uploaded}), flush=True)
    os._exit(0)


def _frames(frame: bytes, size_bytes: int) -> Iterator[bytes]:
    for _ in range(size_bytes // FRAME_BYTES):
        yield frame
    if rest := size_bytes % FRAME_BYTES:
        yield frame[:rest]


async def _serve(folder: Path, *, overlap: bool) -> None:
    stored: list[Path] = []

    async def upload(frames: AsyncIterator[bytes], _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        loop = asyncio.get_running_loop()
        stored.append(folder / f"payload{len(stored)}")
        file = os.open(stored[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        syncing: asyncio.Future[None] | None = None
        unsynced_bytes = 0
        async for frame in frames:
            unsynced_bytes += os.write(file, frame)
            if unsynced_bytes >= PART_BYTES:
                unsynced_bytes = 0
                if not overlap:
                    os.fdatasync(file)
                    continue
                if syncing:
                    await syncing
                syncing = loop.run_in_executor(None, os.fdatasync, file)
        if syncing:
            await syncing
        os.fdatasync(file)
        os.close(file)
        return b""

    async def download(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> AsyncIterator[bytes]:
        file = os.open(stored[-1], os.O_RDONLY)
        while frame := os.read(file, FRAME_BYTES):
            yield frame
        os.close(file)

    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                SERVICE,
                {
                    "Upload": grpc.stream_unary_rpc_method_handler(upload),
                    "Download": grpc.unary_stream_rpc_method_handler(download),
                },
            ),
        )
    )
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([TlsFiles.within(folder).pair]))
    await server.start()
    announce_ready(port=port)
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(_serve(Path(sys.argv[2]), overlap=sys.argv[3] == "1"))
    elif sys.argv[1:2] == ["--call"]:
        _call(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--size-bytes", type=int, default=100_000_000)
        parser.add_argument("--folder", type=Path, default=None, help="where the server writes")
        parser.add_argument("--in-turn", action="store_true", help="do not overlap the sync of a part with the next")
        chosen = parser.parse_args()
        figures = measure(size_bytes=chosen.size_bytes, folder=chosen.folder, overlap=not chosen.in_turn)
        print_figures(figures.upload, figures.download)
