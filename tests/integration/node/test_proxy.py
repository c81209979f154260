"""ProxyService over its socket: every call, its bounds, and streams that break."""

import asyncio
import hashlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import pytest
import structlog

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy import service as proxy_module
from folkmoot.node.proxy.limiter import CALL_LIMITS, CallLimit, Limiter
from folkmoot.node.proxy.service import Proxy
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.transport.status import error_from_rpc
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub
from tests.integration.node.fakes import FakeRun
from tests.polling import until

if TYPE_CHECKING:
    from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceAsyncStub

RUN = "0123456789ab"
UUID = "01990000-0000-7000-8000-000000000000"


@pytest.fixture
async def run() -> FakeRun:
    return FakeRun(RUN, labels=("patients",))


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    await proxy.close(RUN)


@pytest.fixture
async def tables() -> AsyncIterator[SourceTables]:
    tables = SourceTables({})
    yield tables
    await tables.close()


@pytest.fixture
async def stub(
    proxy: Proxy, run: FakeRun, tables: SourceTables, directory: Path
) -> AsyncIterator["ProxyServiceAsyncStub"]:
    await proxy.open(run, tables, directory / RUN)
    async with connect(directory) as stub:
        yield stub


@asynccontextmanager
async def connect(directory: Path) -> AsyncIterator["ProxyServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(f"unix:{directory / RUN / 'proxy.sock'}") as channel:
        yield ProxyServiceStub(channel)


async def refusal(call) -> FolkmootError:
    """What a call is refused with, whether it answers once or streams."""
    try:
        await (anext(aiter(call)) if hasattr(call, "read") else call)
    except grpc.aio.AioRpcError as error:
        return error_from_rpc(error)
    pytest.fail("it was not refused")


async def reason(call) -> str:
    return (await refusal(call)).reason_name


def result_frames(*data: bytes, digest: bytes | None = None) -> Iterator[pb.WriteResultRequest]:
    yield pb.WriteResultRequest(head=pb.ResultHead(content_type="text/plain"))
    for part in data:
        yield pb.WriteResultRequest(data=part)
    if digest is not None:
        yield pb.WriteResultRequest(digest=digest)


def subtask_frames(size_bytes: int, *data: bytes) -> Iterator[pb.CreateSubtaskRequest]:
    head = pb.SubtaskHead(key="one", organization_ids=["a"], inputs=[pb.SubtaskInput(size_bytes=size_bytes)])
    yield pb.CreateSubtaskRequest(head=head)
    for part in data:
        yield pb.CreateSubtaskRequest(data=part)


class TestCalls:
    """Each call reaches the run's port, and its answer comes back."""

    async def test_context_and_input(self, stub, run):
        context = await stub.GetContext(pb.GetContextRequest())
        assert context.input.function == "result"
        assert [frame.data async for frame in stub.ReadInput(pb.ReadInputRequest(offset=2))] == [b"put"]

    async def test_results_of_others_come_as_runs_and_bytes(self, stub):
        frames = [frame async for frame in stub.ReadDependency(pb.ReadDependencyRequest(task_id=UUID))]
        assert [frame.WhichOneof("frame") for frame in frames] == ["run", "data"]
        watched = [f async for f in stub.WatchSubtask(pb.WatchSubtaskRequest(task_id=UUID, after_revision=4))]
        assert (watched[0].run.revision, watched[1].data) == (5, b"data")

    async def test_subtask_is_created_and_cancelled(self, stub, run):
        answer = await stub.CreateSubtask(subtask_frames(6, b"abc", b"def"))
        assert answer.task_id == "subtask one"
        assert run.subtasks[0][1] == b"abcdef"
        await stub.CancelSubtask(pb.CancelSubtaskRequest(task_id=UUID))
        assert run.subtasks == []

    async def test_messages(self, stub, run):
        await stub.SendMessage(pb.SendMessageRequest(organization_id="a" * 56, sequence=1, content=b"hello"))
        assert run.messages[0].content == b"hello"
        cursor = pb.MessageCursor(organization_id="b", after_sequence=7)
        received = [m async for m in stub.ReceiveMessages(pb.ReceiveMessagesRequest(cursors=[cursor]))]
        assert (received[0].organization_id, received[0].sequence) == ("b", 8)

    async def test_messages_together(self, stub, run):
        requests = [pb.SendMessageRequest(organization_id="a" * 56, sequence=n) for n in (1, 2, 3)]
        answer = await stub.SendMessages(pb.SendMessagesRequest(messages=requests))
        assert (answer.journaled, run.messages) == (2, requests[:2])
        cursors = [pb.MessageCursor(organization_id=each, after_sequence=7) for each in ("b", "c")]
        taken = await stub.TakeMessages(pb.TakeMessagesRequest(cursors=cursors))
        assert [(each.organization_id, each.sequence) for each in taken.messages] == [("b", 8), ("c", 8)]

    async def test_result_failure_progress_and_log(self, stub, run):
        await stub.WriteResult(result_frames(b"ab", b"c", digest=hashlib.sha256(b"abc").digest()))
        assert await run.result == ("text/plain", b"abc")
        await stub.WriteFailure(pb.WriteFailureRequest(message="no", reason=ErrorReason.ERROR_REASON_ARGUMENTS_INVALID))
        assert run.failures == [("no", 84)]
        await stub.ReportProgress(pb.ReportProgressRequest(fraction=0.5, text="half"))
        assert run.progress.get_nowait() == (0.5, "half")
        await stub.Log(pb.LogRequest(log=pb.LogLines(first_sequence=1, lines=[pb.LogLine(text="line")])))
        assert run.lines[0].lines[0].text == "line"

    async def test_table_that_the_task_does_not_name_is_not_found(self, stub):
        refused = await refusal(stub.ReadTable(pb.ReadTableRequest(label="salaries")))
        assert refused.reason_name == "TABLE_NOT_FOUND"
        assert "patients" in str(refused)


class TestBounds:
    async def test_field_rules_of_the_contract_hold_for_algorithms_too(self, stub):
        refused = await refusal(stub.ReadDependency(pb.ReadDependencyRequest(task_id="x")))
        assert refused.reason_name == "INVALID_FIELD"
        assert [field for field, _ in refused.violations] == ["task_id"]

    async def test_field_rules_hold_for_the_head_of_a_stream(self, stub):
        assert await reason(stub.WriteResult(iter([pb.WriteResultRequest(head=pb.ResultHead())]))) == "INVALID_FIELD"

    @pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan"), float("inf")])
    async def test_progress_is_a_fraction(self, stub, fraction):
        assert await reason(stub.ReportProgress(pb.ReportProgressRequest(fraction=fraction))) == "INVALID_FIELD"

    async def test_frames_are_bounded(self, stub, run):
        large = b"x" * (FRAME_BYTES + 1)
        assert await reason(stub.WriteResult(result_frames(large))) == "TOO_LARGE"
        assert await reason(stub.CreateSubtask(subtask_frames(len(large), large))) == "TOO_LARGE"
        assert not run.result.done()

    async def test_log_is_bounded(self, stub, run):
        lines = pb.LogLines(first_sequence=1, lines=[pb.LogLine(text="x")] * 1001)
        assert await reason(stub.Log(pb.LogRequest(log=lines))) == "TOO_LARGE"
        lines = pb.LogLines(first_sequence=1, lines=[pb.LogLine(text="x" * 300_000)])
        assert await reason(stub.Log(pb.LogRequest(log=lines))) == "TOO_LARGE"
        assert run.lines == []

    async def test_message_is_bounded(self, stub, run):
        request = pb.SendMessageRequest(organization_id="a" * 56, sequence=1, content=b"x" * 256_001)
        assert await reason(stub.SendMessage(request)) == "INVALID_FIELD"
        assert run.messages == []

    async def test_messages_together_are_bounded(self, stub, run):
        large = pb.SendMessageRequest(organization_id="a" * 56, sequence=1, content=b"x" * 250_000)
        assert await reason(stub.SendMessages(pb.SendMessagesRequest(messages=[large] * 5))) == "TOO_LARGE"
        small = pb.SendMessageRequest(organization_id="a" * 56, sequence=1)
        assert await reason(stub.SendMessages(pb.SendMessagesRequest(messages=[small] * 101))) == "INVALID_FIELD"
        assert await reason(stub.SendMessages(pb.SendMessagesRequest())) == "INVALID_FIELD"
        nameless = pb.SendMessageRequest(organization_id="a", sequence=1)
        assert await reason(stub.SendMessages(pb.SendMessagesRequest(messages=[small, nameless]))) == "INVALID_FIELD"
        assert run.messages == []

    async def test_calls_that_come_too_fast_wait_their_turn(self, proxy, tables, run, directory, monkeypatch):
        limits = {**CALL_LIMITS, "ReportProgress": CallLimit(per_second=1e6, burst=1, at_once=4)}
        waited = []

        async def wait(seconds: float) -> None:
            waited.append(seconds)

        monkeypatch.setattr(proxy_module, "Limiter", lambda _: Limiter(lambda: 0.0, limits))
        await proxy.open(run, tables, directory / RUN)
        monkeypatch.setattr(asyncio, "sleep", wait)
        async with connect(directory) as stub:
            for _ in range(3):
                await stub.ReportProgress(pb.ReportProgressRequest())
        assert waited == pytest.approx([1e-6, 2e-6])
        assert run.progress.qsize() == 3

    async def test_open_calls_are_counted(self, tables, proxy, directory):
        await proxy.reserve(directory / RUN)
        async with connect(directory) as stub:
            open_calls = [asyncio.ensure_future(stub.GetContext(pb.GetContextRequest())) for _ in range(5)]
            done, waiting = await asyncio.wait(open_calls, return_when=asyncio.FIRST_COMPLETED)
            assert [await reason(call) for call in done] == ["TOO_MANY"]
            assert len(waiting) == 4
            await proxy.open(FakeRun(RUN), tables, directory / RUN)
            assert len(await asyncio.gather(*waiting)) == 4


class TestBrokenStreams:
    """What breaks off is no result and no subtask."""

    async def test_result_without_digest(self, stub, run):
        assert await reason(stub.WriteResult(result_frames(b"half"))) == "PROTOCOL_VIOLATION"
        assert not run.result.done()

    async def test_result_with_a_digest_of_other_bytes(self, stub, run):
        assert (
            await reason(stub.WriteResult(result_frames(b"abc", digest=hashlib.sha256(b"abd").digest()))) == "MALFORMED"
        )
        assert not run.result.done()

    @pytest.mark.parametrize(
        "frames",
        [
            [],
            [pb.WriteResultRequest(data=b"x")],
            [pb.WriteResultRequest()],
            [*result_frames(), *result_frames()],
        ],
        ids=["nothing", "no head", "empty frame", "two heads"],
    )
    async def test_result_out_of_order(self, stub, run, frames):
        assert await reason(stub.WriteResult(iter(frames))) == "PROTOCOL_VIOLATION"
        assert not run.result.done()

    async def test_result_whose_sender_goes_away(self, stub, run):
        async def frames():
            for frame in result_frames(b"half"):
                yield frame
            await asyncio.Event().wait()

        call = stub.WriteResult(frames())
        await run.receiving.wait()
        call.cancel()
        assert isinstance(await run.write_error, FolkmootError | asyncio.CancelledError)
        assert not run.result.done()

    @pytest.mark.parametrize("data", [[], [b"abc"], [b"abcd", b"efg"]], ids=["none", "too few", "too many"])
    async def test_subtask_with_other_bytes_than_its_head_says(self, stub, run, data):
        assert await reason(stub.CreateSubtask(subtask_frames(6, *data))) == "PROTOCOL_VIOLATION"
        assert run.subtasks == []

    async def test_fault_of_ours_tells_the_algorithm_nothing(self, stub, run):
        run.report_progress = None
        refused = await refusal(stub.ReportProgress(pb.ReportProgressRequest()))
        assert refused.reason_name == "INTERNAL"
        assert "NoneType" not in str(refused)

    async def test_refusal_of_the_port_arrives_with_its_reason(self, stub, run):
        async def refuse(request):
            raise FolkmootError(ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED, "not granted")

        run.send_message = refuse
        request = pb.SendMessageRequest(organization_id="a" * 56, sequence=1)
        assert await reason(stub.SendMessage(request)) == "MESSAGES_NOT_ALLOWED"


class TestHostile:
    async def test_connections_of_one_run_take_few_descriptors_of_the_node(self, stub, run, directory):
        await stub.GetContext(pb.GetContextRequest())
        ends = [socket.socket(socket.AF_UNIX) for _ in range(3 * proxy_module.CONNECTIONS)]
        for end in ends:
            await asyncio.to_thread(end.connect, str(directory / RUN / "proxy.sock"))
        await until(lambda: sum(map(turned_away, ends)) >= 2 * proxy_module.CONNECTIONS)
        await stub.GetContext(pb.GetContextRequest())  # its own connection stays
        for end in ends:
            end.close()

    async def test_refusals_are_logged_by_reason_and_fill_no_log(self, stub, run):
        with structlog.testing.capture_logs() as logs:
            for _ in range(25):
                assert await reason(stub.ReadTable(pb.ReadTableRequest(label="secret"))) == "TABLE_NOT_FOUND"
        said = [each for each in logs if each["event"] == "proxy.refused"]
        assert [(each["run"], each["call"], each["reason"], each["times"]) for each in said] == [
            (RUN, "ReadTable", "ERROR_REASON_TABLE_NOT_FOUND", times) for times in (1, 10)
        ]


def turned_away(end: socket.socket) -> bool:
    try:
        return end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except ConnectionResetError:
        return True
    except BlockingIOError:
        return False


class TestSocket:
    async def test_modes_let_another_user_connect_and_nothing_else(self, stub, directory):
        modes = [
            stat.S_IMODE(path.stat().st_mode) for path in (directory, directory / RUN, directory / RUN / "proxy.sock")
        ]
        assert modes == [0o700, 0o711, 0o666]

    async def test_path_that_is_too_long_is_said_before_binding(self, tables, proxy, run, tmp_path):
        with pytest.raises(FolkmootError, match=r"bytes too long.*shorter runtime_directory"):
            await proxy.open(run, tables, tmp_path / ("x" * 108) / RUN)

    async def test_runtime_directory_that_others_can_enter_is_refused(self, tables, proxy, run, directory):
        directory.chmod(0o755)
        with pytest.raises(FolkmootError, match="chmod 700"):
            await proxy.open(run, tables, directory / RUN)

    async def test_runtime_directory_that_another_user_has_made_is_refused(
        self, tables, proxy, run, directory, monkeypatch
    ):
        """In a folder where everybody may make some, such as /tmp, it is the other one who comes past it."""
        monkeypatch.setattr(os, "geteuid", lambda: directory.stat().st_uid + 1)
        with pytest.raises(FolkmootError, match="chown"):
            await proxy.open(run, tables, directory / RUN)

    async def test_stale_socket_is_bound_anew(self, tables, proxy, run, stub, directory):
        await stub.GetContext(pb.GetContextRequest())
        await proxy.open(run, tables, directory / RUN)
        async with connect(directory) as again:
            await again.GetContext(pb.GetContextRequest())

    async def test_closed_run_is_out_of_reach_and_its_folder_stays(self, proxy, stub, directory):
        await proxy.close(RUN)
        await proxy.close(RUN)
        assert (directory / RUN).is_dir()
        assert await reason(stub.GetContext(pb.GetContextRequest())) == "SHUTTING_DOWN"

    async def test_reserved_socket_waits_for_its_run(self, tables, proxy, directory):
        await proxy.reserve(directory / RUN)
        async with connect(directory) as stub:
            waiting = stub.GetContext(pb.GetContextRequest())
            await proxy.open(FakeRun(RUN, "later"), tables, directory / RUN)
            assert (await waiting).input.function == "later"
