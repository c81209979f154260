"""A run as the proxy sees it, without the rest of a node."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence

from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.task_pb2 import TaskInput


class FakeRun:
    """Implements `ports.RunPort`; what the algorithm did can be awaited."""

    def __init__(self, run_name: str, function: str = "result", *, labels: tuple[str, ...] = (), **arguments) -> None:
        self.run_name = run_name
        self.labels = labels
        self.minimum_rows = 0
        self.scratch_path = ""
        self.module = ""
        self.task_input = TaskInput(function=function, arguments_json=json.dumps(arguments))
        self.input = b"input"
        self.result: asyncio.Future[tuple[str, bytes]] = asyncio.get_running_loop().create_future()
        self.write_error: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self.receiving = asyncio.Event()
        self.progress: asyncio.Queue[tuple[float, str]] = asyncio.Queue()
        self.context_asked = asyncio.Event()
        self.failures: list[tuple[str, int]] = []
        self.lines: list[pb.LogLines] = []
        self.subtasks: list[tuple[pb.SubtaskHead, bytes]] = []
        self.messages: list[pb.SendMessageRequest] = []

    def called(self, method: str, *, began_at: float, failed: str) -> None:
        """Nobody asks."""

    async def context(self) -> pb.GetContextResponse:
        self.context_asked.set()
        return pb.GetContextResponse(
            task_id="task",
            run_id="run",
            attempt=1,
            input=self.task_input,
            scratch_path=self.scratch_path,
            module=self.module,
        )

    async def read_input(self, offset: int) -> AsyncIterator[bytes]:
        yield self.input[offset:]

    async def read_dependency(self, task_id: str) -> AsyncIterator[pb.RunResult | bytes]:
        yield pb.RunResult(run_id=task_id, size_bytes=4)
        yield b"data"

    async def create_subtask(self, head: pb.SubtaskHead, content: AsyncIterator[bytes]) -> str:
        self.subtasks.append((head, b"".join([data async for data in content])))
        return f"subtask {head.key}"

    async def watch_subtask(self, task_id: str, after_revision: int) -> AsyncIterator[pb.RunResult | bytes]:
        yield pb.RunResult(run_id=task_id, size_bytes=4, revision=after_revision + 1)
        yield b"data"

    async def cancel_subtask(self, task_id: str) -> None:
        self.subtasks.clear()

    async def send_message(self, request: pb.SendMessageRequest) -> None:
        self.messages.append(request)

    async def send_messages(self, requests: Sequence[pb.SendMessageRequest]) -> int:
        self.messages += requests[:2]
        return len(requests[:2])

    async def take_messages(self, cursors: Mapping[str, int]) -> list[pb.ReceiveMessagesResponse]:
        return [each async for each in self.receive_messages(cursors, until=pb.RECEIVE_UNTIL_IDLE)]

    async def receive_messages(
        self, cursors: Mapping[str, int], *, until: pb.ReceiveUntil.ValueType
    ) -> AsyncIterator[pb.ReceiveMessagesResponse]:
        for organization_id, after in cursors.items():
            yield pb.ReceiveMessagesResponse(organization_id=organization_id, sequence=after + 1, content=b"hello")

    async def write_result(self, content_type: str, content: AsyncIterator[bytes]) -> None:
        received = b""
        try:
            async for data in content:
                received += data
                self.receiving.set()
        except BaseException as error:
            self.write_error.set_result(error)
            raise
        self.result.set_result((content_type, received))

    async def write_dataframe(self, content: AsyncIterator[bytes]) -> int:
        return sum([1 async for _ in content])

    async def write_failure(self, message: str, reason: int) -> None:
        self.failures.append((message, reason))

    async def report_progress(self, fraction: float, text: str) -> None:
        self.progress.put_nowait((fraction, text))

    async def log(self, lines: pb.LogLines) -> None:
        self.lines.append(lines)
