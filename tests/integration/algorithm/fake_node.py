"""A node for one run, as an algorithm sees it: a real ProxyService on a real socket, over a state that outlives restarts.

`python fake_node.py FOLDER SOCKET` serves a state from a folder, for tests that kill the node's process.
"""

import hashlib
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from folkmoot.algorithm.table import Table
from folkmoot.algorithm.values import encode_input
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceServicer, add_ProxyServiceServicer_to_server
from folkmoot.v1.task_pb2 import RUN_STATE_COMPLETED

HALF = 1000  # frames are small, so that every stream has several
Outcome = tuple[pb.RunResult, bytes]


@dataclass
class State:
    """What a real node has in its journal."""

    context: pb.GetContextResponse = field(default_factory=pb.GetContextResponse)
    content: bytes = b""
    tables: dict[str, bytes] = field(default_factory=dict)
    reads: list[pb.ReadTableRequest] = field(default_factory=list)
    answers: dict[str, bytes] = field(default_factory=dict)
    dependencies: dict[str, list[Outcome]] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    incoming: list[pb.ReceiveMessagesResponse] = field(default_factory=list)
    subtasks: dict[str, tuple[pb.SubtaskHead, bytes]] = field(default_factory=dict)
    room: int = 64  # for so many messages of one call
    sent: list[pb.SendMessageRequest] = field(default_factory=list)
    cursors: list[dict[str, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    progress: list[tuple[float, str]] = field(default_factory=list)
    log: dict[int, pb.LogLine] = field(default_factory=dict)
    result: tuple[str, bytes] | None = None
    failure: tuple[str, str] | None = None
    dataframe: bytes = b""
    on_result: Callable[[bytes], object] = bool

    calls: Counter[str] = field(default_factory=Counter)
    refuse: dict[str, str] = field(default_factory=dict)  # method -> status message
    cut: set[str] = field(default_factory=set)  # methods that stop in the middle, once
    in_the_middle: threading.Event = field(default_factory=threading.Event)

    def give(self, function: str, /, **arguments: object) -> None:
        """Make a function with its arguments the run's input."""
        encoded = encode_input(function, arguments)
        self.content = b"".join(encoded.content())
        self.context.input.ParseFromString(encoded.head[4:])
        self.context.attachments_offset = len(encoded.head)


def completed(run_id: str, organization: pb.Peer, content: bytes, content_type: str = "application/json") -> Outcome:
    run = pb.RunResult(
        run_id=run_id,
        organization=organization,
        state=RUN_STATE_COMPLETED,
        content_type=content_type,
        size_bytes=len(content),
        revision=int(run_id),
        proven=True,
    )
    return run, content


class FakeNode(ProxyServiceServicer):
    def __init__(self, state: State, socket: Path) -> None:
        self.state = state
        self._socket = socket
        self._server: grpc.Server | None = None
        self._stopped = threading.Event()
        self.start()

    def start(self) -> None:
        self._stopped.clear()
        self._server = grpc.server(ThreadPoolExecutor(16))
        add_ProxyServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(f"unix:{self._socket}")
        self._server.start()

    def stop(self) -> None:
        assert self._server is not None
        cut = self._server.stop(None)  # first, or a handler could still answer
        self._stopped.set()
        cut.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    # ---- the calls ----

    def GetContext(self, request, context):
        assert request.toolkit.startswith("folkmoot.algorithm/")
        self._enter("GetContext", context)
        return self.state.context

    def ReadInput(self, request, context):
        for data in self._halves("ReadInput", self.state.content[request.offset :], context):
            yield pb.ReadInputResponse(data=data)

    def ListTables(self, request, context):
        self._enter("ListTables", context)
        return pb.ListTablesResponse(
            tables=[pb.Table(label=label, columns=[pb.Column(name="age", type="int64")]) for label in self.state.tables]
        )

    def ReadTable(self, request, context):
        self.state.reads.append(request)
        if request.label not in self.state.tables:
            context.abort(grpc.StatusCode.NOT_FOUND, f"TABLE_NOT_FOUND: there is no {request.label}")
        for data in self._halves("ReadTable", self.state.tables[request.label], context):
            yield pb.ReadTableResponse(data=data)

    def Query(self, request, context):
        if request.sql not in self.state.answers:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "QUERY_INVALID: write one SELECT")
        for data in self._halves("Query", self.state.answers[request.sql], context):
            yield pb.QueryResponse(data=data)

    def ReadDependency(self, request, context):
        for frame in self._outcomes("ReadDependency", self.state.dependencies[request.task_id], 0, context):
            yield pb.ReadDependencyResponse(**frame)

    def CreateSubtask(self, request_iterator, context):
        head = next(request_iterator).head
        content = b"".join(request.data for request in request_iterator)
        known = self.state.subtasks.setdefault(head.key, (head, content))
        self._enter("CreateSubtask", context)
        if known != (head, content):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "REPEAT_DIFFERS: the key was used for another subtask")
        return pb.CreateSubtaskResponse(task_id=f"task of {head.key}")

    def WatchSubtask(self, request, context):
        for frame in self._outcomes("WatchSubtask", self.state.outcomes, request.after_revision, context):
            yield pb.WatchSubtaskResponse(**frame)

    def CancelSubtask(self, request, context):
        self._enter("CancelSubtask", context)
        self.state.cancelled.append(request.task_id)
        return pb.CancelSubtaskResponse()

    def SendMessage(self, request, context):
        self.SendMessages(pb.SendMessagesRequest(messages=[request]), context)
        return pb.SendMessageResponse()

    def SendMessages(self, request, context):
        journaled = request.messages[: self.state.room]
        self.state.sent += [each for each in journaled if each not in self.state.sent]
        self._enter("SendMessages", context)
        return pb.SendMessagesResponse(journaled=len(journaled))

    def ReceiveMessages(self, request, context):
        yield from self.TakeMessages(pb.TakeMessagesRequest(cursors=request.cursors), context).messages

    def TakeMessages(self, request, context):
        cursors = {cursor.organization_id: cursor.after_sequence for cursor in request.cursors}
        self.state.cursors.append(cursors)
        found = [each for each in self.state.incoming if each.sequence > cursors.get(each.organization_id, 0)]
        self._enter("TakeMessages", context)
        if not found:
            self._until_it_ends(context)
        return pb.TakeMessagesResponse(messages=found)

    def WriteResult(self, request_iterator, context):
        self._enter("WriteResult", context)
        frames = list(request_iterator)
        content = b"".join(frame.data for frame in frames)
        if not frames or frames[-1].digest != hashlib.sha256(content).digest():
            context.abort(grpc.StatusCode.ABORTED, "the result has no end")
        if self.state.result not in (None, (frames[0].head.content_type, content)):
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "RESULT_WRITTEN: there is one")
        self.state.result = (frames[0].head.content_type, content)
        self.state.on_result(content)
        self._enter("WriteResult answer", context)
        return pb.WriteResultResponse()

    def WriteDataframe(self, request_iterator, context):
        self._enter("WriteDataframe", context)
        frames = list(request_iterator)
        content = b"".join(frame.data for frame in frames)
        if not frames or frames[-1].digest != hashlib.sha256(content).digest():
            context.abort(grpc.StatusCode.ABORTED, "the dataframe has no end")
        self.state.dataframe = content
        self._enter("WriteDataframe answer", context)
        return pb.WriteDataframeResponse(rows=len(Table.from_ipc(content)))

    def WriteFailure(self, request, context):
        self._enter("WriteFailure", context)
        self.state.failure = (ErrorReason.Name(request.reason), request.message)
        return pb.WriteFailureResponse()

    def ReportProgress(self, request, context):
        self._enter("ReportProgress", context)
        self.state.progress.append((request.fraction, request.text))
        return pb.ReportProgressResponse()

    def Log(self, request, context):
        self._enter("Log", context)
        for position, line in enumerate(request.log.lines, request.log.first_sequence):
            assert self.state.log.setdefault(position, line) == line
        return pb.LogResponse()

    # ---- the same for all ----

    def _enter(self, method: str, context: grpc.ServicerContext) -> None:
        self.state.calls[method] += 1
        if method in self.state.refuse:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, self.state.refuse[method])
        if method in self.state.cut:
            self.state.cut.remove(method)
            self.state.in_the_middle.set()
            self._until_it_ends(context)
            raise ConnectionAbortedError("this node is gone")

    def _until_it_ends(self, context: grpc.ServicerContext) -> None:
        ended = threading.Event()
        if context.add_callback(ended.set):
            while not (ended.is_set() or self._stopped.is_set()):
                ended.wait(0.01)

    def _halves(self, method: str, content: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        cut = method in self.state.cut
        for start in range(0, len(content), HALF):
            yield content[start : start + HALF]
            if cut and start + HALF >= len(content) / 2:
                self._enter(method, context)
        self._enter(method, context)

    def _outcomes(self, method: str, outcomes: list[Outcome], after: int, context: grpc.ServicerContext):
        for run, content in outcomes:
            if run.revision > after:
                yield {"run": run}
                for data in self._halves(method, content, context):
                    yield {"data": data}
        self._enter(method, context)


def main(folder: Path, socket: Path) -> None:
    """Serve until killed. A file `cut` names a method to stop in, `in_the_middle` appears when it did, `result` holds the result."""
    state = State(context=pb.GetContextResponse.FromString((folder / "context").read_bytes()))
    state.tables = {path.stem: path.read_bytes() for path in folder.glob("*.arrow")}
    state.cut = set((folder / "cut").read_text().split())
    state.on_result = (folder / "result").write_bytes
    FakeNode(state, socket)
    state.in_the_middle.wait()
    (folder / "in_the_middle").touch()
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
