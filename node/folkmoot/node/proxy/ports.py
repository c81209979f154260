"""Where the two halves of the node meet.

The executor knows runs, proofs and journals; runtimes, proxy and data know engines, sockets and files. Each side is written against the
protocols of this file alone, so that a runtime can be a container engine or a plain process, and a run can be a test's.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from folkmoot.node.execution.patience import Tell
from folkmoot.v1.proxy_service_pb2 import (
    GetContextResponse,
    LogLines,
    QueryRequest,
    ReadTableRequest,
    ReceiveMessagesResponse,
    ReceiveUntil,
    RunResult,
    SendMessageRequest,
    SubtaskHead,
    Table,
)
from folkmoot.v1.task_pb2 import ExitClass, Image, Isolation

if TYPE_CHECKING:
    from folkmoot.node.data.sources import Source


class RunPort(Protocol):
    """What the proxy asks of one run. Errors are FolkmootErrors whose reasons proxy_service.proto lists per call."""

    @property
    def run_name(self) -> str:
        """12 characters; names the socket folder and the container."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the data that the run may read: labels, and dataframes of its session."""

    @property
    def minimum_rows(self) -> int:
        """The fewest rows that a read may give; 0: any."""

    def called(self, method: str, *, began_at: float, failed: str) -> None:
        """Take notice of a call of the algorithm's that has ended, with the reason if it failed."""

    async def context(self) -> GetContextResponse:
        """Wait until there is a run, and tell what it is."""

    def read_input(self, offset: int) -> AsyncIterator[bytes]:
        """Stream the verified, decrypted input from an offset on."""

    def read_dependency(self, task_id: str) -> AsyncIterator[RunResult | bytes]:
        """Stream results of a task that this one depends on: a run, then its content, then the next run."""

    async def create_subtask(self, head: SubtaskHead, content: AsyncIterator[bytes]) -> str:
        """Create a subtask, once per key, and give its task id."""

    def watch_subtask(self, task_id: str, after_revision: int) -> AsyncIterator[RunResult | bytes]:
        """Stream results of a subtask as its runs end: a run, then its content, then the next run."""

    async def cancel_subtask(self, task_id: str) -> None:
        """Cancel a subtask of this run."""

    async def send_message(self, request: SendMessageRequest) -> None:
        """Journal a message to a sibling run."""

    async def send_messages(self, requests: Sequence[SendMessageRequest]) -> int:
        """Journal messages to sibling runs, as many from the first one on as there is room for; return how many."""

    async def take_messages(self, cursors: Mapping[str, int]) -> list[ReceiveMessagesResponse]:
        """Wait for messages of sibling runs behind the cursors, and return those that there are."""

    def receive_messages(
        self, cursors: Mapping[str, int], *, until: ReceiveUntil.ValueType
    ) -> AsyncIterator[ReceiveMessagesResponse]:
        """Stream messages of sibling runs; cursors give the last received sequence by organization."""

    async def write_result(self, content_type: str, content: AsyncIterator[bytes]) -> None:
        """Journal the result. The content raises if the stream broke before its digest; then there is no result."""

    async def write_dataframe(self, content: AsyncIterator[bytes]) -> int:
        """Check and keep a dataframe (Arrow IPC), which stands when the run completes; give its number of rows."""

    async def write_failure(self, message: str, reason: int) -> None:
        """Journal what the algorithm says of its failure."""

    async def report_progress(self, fraction: float, text: str) -> None:
        """Tell how far the run is."""

    async def log(self, lines: LogLines) -> None:
        """Write lines to the run's log."""


@dataclass(frozen=True)
class Limits:
    """What a run may use."""

    memory_bytes: int
    cpu_millis: int
    run_time_seconds: int
    pids: int = 256
    scratch_bytes: int = 10 << 30
    temporary_bytes: int = 64 << 20
    gpus: int = 0


@dataclass(frozen=True)
class PreparedImage:
    """An image that the runtime can start."""

    image_id: str  # as the engine names it; the module's tree hash in a process
    functions: tuple[str, ...] | None  # those that the image says it has; None: it does not say


@dataclass(frozen=True)
class RunStart:
    """Everything that a runtime needs to start a run."""

    run_name: str
    run_id: str
    task_id: str
    attempt: int
    image: Image
    image_id: str
    module: str  # in the process runtime; empty in a container, whose image knows
    socket_directory: Path  # holds proxy.sock
    scratch: Path | None
    limits: Limits
    labels: Mapping[str, str] = field(default_factory=dict)  # put on the container, for re-adoption
    folders: Mapping[str, Path] = field(default_factory=dict)  # of data, by label: the run may read them


@dataclass(frozen=True)
class Exit:
    """How an algorithm ended."""

    exit_class: ExitClass.ValueType  # UNSPECIFIED: code 0
    code: int | None
    detail: str  # the tail of its output: for the local log, and sealed in a failure; never for the server


class Runtime(Protocol):
    """Starts algorithms and tells how they ended."""

    @property
    def isolation(self) -> Isolation.ValueType:
        """What keeps an algorithm apart."""

    async def prepare(self, image: Image, tell: Tell) -> PreparedImage:
        """Get the image and check that it is the one. Errors: IMAGE_NOT_FOUND, IMAGE_UNAVAILABLE, IMAGE_ALTERED."""

    def name_run(self) -> str:
        """Name the next run: after a warm worker that waits behind its bound socket, or anew. No name is given twice."""

    def scratch_path(self, scratch: Path) -> str:
        """Where a run sees its job's scratch folder."""

    def folder_path(self, label: str, folder: Path) -> str:
        """Where a run sees a folder of data."""

    async def start(self, start: RunStart) -> None:
        """Start a run whose socket is open. What fails because of the image or the machine, wait() tells as NOT_STARTED."""

    async def wait(self, run_name: str) -> None:
        """Wait for its end; for adopted ones too, and as often as wanted."""

    async def exit(self, run_name: str) -> Exit:
        """Tell how it ended, once it has, and as often as wanted; LOST if there is nothing of it."""

    async def stop(self, run_name: str) -> None:
        """Kill it, if it is there."""

    async def remove(self, run_name: str) -> None:
        """Remove what is left of it, if anything is."""

    async def adopt(self) -> frozenset[str]:
        """Names of runs that are there after a restart, ended or not. Called once, before anything else."""

    async def close(self) -> None:
        """Let go at the node's end: runs go on, warm workers without a run end."""


class Tables(Protocol):
    """The data that one run may read."""

    def expect_reads(self) -> None:
        """Get ready: a run that may read is about to start."""

    def including(self, sources: "Mapping[str, Source]") -> "Tables":
        """The same, and other tables in the place of those of the same names."""

    async def list_tables(self, labels: Sequence[str]) -> list[Table]:
        """Describe the tables behind labels."""

    async def folders(self, labels: Sequence[str]) -> Mapping[str, Path]:
        """Where the folders among the labels are on this machine."""

    def read(self, request: ReadTableRequest, *, minimum_rows: int = 0) -> AsyncIterator[bytes]:
        """Stream a table as Arrow IPC, or refuse if it has fewer rows."""

    def query(self, request: QueryRequest, *, minimum_rows: int = 0) -> AsyncIterator[bytes]:
        """Stream a query's answer as Arrow IPC, or refuse if it is computed from fewer rows."""

    async def close(self) -> None:
        """End what waits in advance."""


class ProxyPort(Protocol):
    """Serves ProxyService, one socket per run."""

    async def open(self, port: RunPort, tables: Tables, directory: Path) -> None:
        """Bind directory/proxy.sock, over a stale one too; if a warm worker waits behind it, its run is this one."""

    async def close(self, run_name: str) -> None:
        """Unbind a run's socket, if it is bound. The folder stays: a container that goes on has it mounted."""
