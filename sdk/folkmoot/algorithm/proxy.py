"""Calls to the node: one thin method per call of the contract, each repeated until the node is there again.

A node may be restarted while its algorithms run. Every call survives that: the channel connects again within a second, and
what was cut off is asked for anew, with the same key, offset, sequence or cursor. There is no limit to how often: how long
a run may take is the node's to say.
"""

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from folkmoot.algorithm.errors import DataUnreadable, refusal
from folkmoot.algorithm.results import Result, assemble
from folkmoot.algorithm.version import TOOLKIT
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub

ADDRESS_VARIABLE = "FOLKMOOT_PROXY"
USUAL_ADDRESS = "unix:/run/folkmoot/proxy.sock"
FRAME_BYTES = 1024 * 1024
MESSAGES_AT_ONCE = 64
"""Most messages of one call."""

_FIELD_BYTES = 5
"""What a message takes besides its own bytes: a tag and a length."""

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),  # despite its name, how long an attempt to connect may take
    ("grpc.enable_http_proxy", 0),
)

Item = TypeVar("Item")


class Proxy:
    """The node, as one run sees it. What it refuses raises AlgorithmError."""

    def __init__(self, address: str | None = None) -> None:
        target = address or os.environ.get(ADDRESS_VARIABLE) or USUAL_ADDRESS
        self._channel = grpc.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = ProxyServiceStub(self._channel)

    # ---- what the run is ----

    def context(self) -> pb.GetContextResponse:
        """Wait until there is a run, and return what it is."""
        return self._repeat(lambda: self._stub.GetContext(pb.GetContextRequest(toolkit=TOOLKIT), wait_for_ready=True))

    def read_input(self, offset: int) -> Iterator[bytes]:
        """Yield the input's content from an offset on."""

        def rest() -> Iterator[bytes]:
            nonlocal offset
            request = pb.ReadInputRequest(offset=offset)
            for response in _read(self._stub.ReadInput, request):
                offset += len(response.data)
                yield response.data

        return self._resume(rest)

    # ---- data ----

    def tables(self) -> Sequence[pb.Table]:
        """Return the tables that the run may read."""
        return self._repeat(lambda: self._stub.ListTables(pb.ListTablesRequest(), wait_for_ready=True)).tables

    def read_table(self, request: pb.ReadTableRequest) -> Iterator[bytes]:
        """Yield a table as an Arrow IPC stream."""
        return self._read_whole(self._stub.ReadTable, request)

    def query(self, request: pb.QueryRequest) -> Iterator[bytes]:
        """Yield a query's answer as an Arrow IPC stream."""
        return self._read_whole(self._stub.Query, request)

    def _read_whole(self, method: Any, request: pb.ReadTableRequest | pb.QueryRequest) -> Iterator[bytes]:
        """Yield a stream that has no offset: what was had is read again, and must be the same."""
        had_bytes, had_checksum = 0, 0

        def rest() -> Iterator[bytes]:
            nonlocal had_bytes, had_checksum
            again_bytes, again_checksum = had_bytes, 0
            for response in _read(method, request):
                data = response.data
                if again_bytes:
                    again_checksum = zlib.crc32(data[:again_bytes], again_checksum)
                    again_bytes, data = max(0, again_bytes - len(data)), data[again_bytes:]
                    if not again_bytes and again_checksum != had_checksum:
                        raise DataUnreadable(f"the table {request.label} changed while it was being read")
                if data:
                    had_bytes += len(data)
                    had_checksum = zlib.crc32(data, had_checksum)
                    yield data

        return self._resume(rest)

    # ---- other runs ----

    def read_dependency(self, task_id: str) -> Iterator[Result]:
        """Yield the results of a task that this one depends on. It has no cursor: what was had is passed over."""
        had: set[str] = set()

        def rest() -> Iterator[Result]:
            request = pb.ReadDependencyRequest(task_id=task_id)
            for result in assemble(_read(self._stub.ReadDependency, request)):
                if result.run.run_id not in had:
                    had.add(result.run.run_id)
                    yield result

        return self._resume(rest)

    def create_subtask(self, head: pb.SubtaskHead, contents: Iterable[bytes]) -> str:
        """Create a subtask, once per key, and return its id."""
        pieces = list(contents)

        def requests() -> Iterator[pb.CreateSubtaskRequest]:
            yield pb.CreateSubtaskRequest(head=head)
            for data in frames(pieces):
                yield pb.CreateSubtaskRequest(data=data)

        return self._repeat(lambda: self._stub.CreateSubtask(requests(), wait_for_ready=True)).task_id

    def watch_subtask(self, task_id: str, after_revision: int) -> Iterator[Result]:
        """Yield a subtask's results as its runs end, from a cursor on."""

        def rest() -> Iterator[Result]:
            nonlocal after_revision
            request = pb.WatchSubtaskRequest(task_id=task_id, after_revision=after_revision)
            for result in assemble(_read(self._stub.WatchSubtask, request)):
                after_revision = result.run.revision
                yield result

        return self._resume(rest)

    def cancel_subtask(self, task_id: str) -> None:
        """Cancel a subtask."""
        self._repeat(lambda: self._stub.CancelSubtask(pb.CancelSubtaskRequest(task_id=task_id), wait_for_ready=True))

    def send_messages(self, requests: Sequence[pb.SendMessageRequest]) -> Iterator[pb.SendMessageRequest]:
        """Send messages, as many at once as one call takes, and yield each when it is journaled."""
        left = list(requests)
        while left:
            request = pb.SendMessagesRequest(messages=_together(left))
            journaled = self._repeat(lambda: self._stub.SendMessages(request, wait_for_ready=True)).journaled  # noqa: B023
            yield from left[:journaled]
            del left[:journaled]

    def take_messages(self, cursors: Mapping[str, int]) -> Sequence[pb.ReceiveMessagesResponse]:
        """Wait for messages of sibling runs, and return those that there are; `cursors` says how far each sender's were had."""
        after = [pb.MessageCursor(organization_id=one, after_sequence=last) for one, last in cursors.items()]
        request = pb.TakeMessagesRequest(cursors=after)
        return self._repeat(lambda: self._stub.TakeMessages(request, wait_for_ready=True)).messages

    # ---- what comes out ----

    def write_result(self, content_type: str, content: bytes) -> None:
        """Write the result; when this returns, it stands."""
        digest = hashlib.sha256(content).digest()

        def requests() -> Iterator[pb.WriteResultRequest]:
            yield pb.WriteResultRequest(head=pb.ResultHead(content_type=content_type))
            for data in frames([content]):
                yield pb.WriteResultRequest(data=data)
            yield pb.WriteResultRequest(digest=digest)

        self._repeat(lambda: self._stub.WriteResult(requests(), wait_for_ready=True))

    def write_dataframe(self, content: Callable[[], Iterable[bytes]]) -> int:
        """Leave a dataframe, an Arrow IPC stream, at the node as it is made; return its number of rows."""

        def requests() -> Iterator[pb.WriteDataframeRequest]:
            digest = hashlib.sha256()
            for data in frames(content()):
                digest.update(data)
                yield pb.WriteDataframeRequest(data=data)
            yield pb.WriteDataframeRequest(digest=digest.digest())

        return self._repeat(lambda: self._stub.WriteDataframe(requests(), wait_for_ready=True)).rows

    def write_failure(self, message: str, reason: ErrorReason.ValueType) -> None:
        """Say that the algorithm failed, and why."""
        request = pb.WriteFailureRequest(message=message, reason=reason)
        self._repeat(lambda: self._stub.WriteFailure(request, wait_for_ready=True))

    def report_progress(self, fraction: float, text: str) -> None:
        """Tell how far the run is."""
        request = pb.ReportProgressRequest(fraction=fraction, text=text)
        self._repeat(lambda: self._stub.ReportProgress(request, wait_for_ready=True))

    def log(self, lines: pb.LogLines) -> None:
        """Write lines to the run's log."""
        self._repeat(lambda: self._stub.Log(pb.LogRequest(log=lines), wait_for_ready=True))

    # ---- again and again ----

    def _repeat(self, call: Callable[[], Item]) -> Item:
        """Make a call until the node answers it."""
        for pause_seconds in _pauses():
            try:
                return call()
            except grpc.RpcError as error:
                _pause_or_refuse(error, pause_seconds)
        raise AssertionError("pauses end never")

    def _resume(self, rest: Callable[[], Iterator[Item]]) -> Iterator[Item]:
        """Yield what `rest` gives; when that is cut off, go on with what a new `rest` gives."""
        for pause_seconds in _pauses():
            try:
                yield from rest()
            except grpc.RpcError as error:
                _pause_or_refuse(error, pause_seconds)
            else:
                return


def _together(messages: Iterable[pb.SendMessageRequest]) -> list[pb.SendMessageRequest]:
    """Those from the first one on that one call takes."""
    fitting: list[pb.SendMessageRequest] = []
    size_bytes = 0
    for message in messages:
        size_bytes += message.ByteSize() + _FIELD_BYTES
        if fitting and (size_bytes > FRAME_BYTES or len(fitting) == MESSAGES_AT_ONCE):
            break
        fitting.append(message)
    return fitting


def frames(contents: Iterable[bytes]) -> Iterator[bytes]:
    """Cut contents into pieces that fit into one message each."""
    for content in contents:
        for start in range(0, len(content), FRAME_BYTES):
            yield content[start : start + FRAME_BYTES]


def _read(method: Any, request: Any) -> Iterator[Any]:
    """Yield a stream's responses; whoever stops reading ends the call."""
    call = method(request, wait_for_ready=True)
    try:
        yield from call
    finally:
        call.cancel()


def _pauses() -> Iterator[float]:
    seconds = _FIRST_PAUSE_SECONDS
    while True:
        yield seconds
        seconds = min(_LONGEST_PAUSE_SECONDS, seconds * 2)


def _pause_or_refuse(error: grpc.RpcError, seconds: float) -> None:
    """Wait a little if the node went away, killed or stopped, or has no room on its disk; raise what it said if it refused."""
    assert isinstance(error, grpc.Call)  # noqa: S101 - so it is for every error of a call; grpc does not type it
    refused = refusal(error.details() or error.code().name)
    if error.code() is not grpc.StatusCode.UNAVAILABLE and refused.reason != ErrorReason.ERROR_REASON_DISK_FULL:
        raise refused from None
    time.sleep(seconds)
