"""Results of other runs: of subtasks, and of the tasks that this one depends on."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, Protocol

from folkmoot.algorithm.errors import ContentInvalid, RunNotCompleted
from folkmoot.algorithm.organizations import Organization, organization
from folkmoot.algorithm.values import decode
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import RunResult
from folkmoot.v1.task_pb2 import RUN_STATE_COMPLETED, ExitClass, RunState


class Result:
    """How a run of another organization ended, and with what value."""

    def __init__(self, run: RunResult, content: bytes) -> None:
        self.run = run
        self._content = content

    @property
    def organization(self) -> Organization:
        """Whose run it was."""
        return organization(self.run.organization)

    @property
    def completed(self) -> bool:
        """Whether there is a value."""
        return self.run.state == RUN_STATE_COMPLETED

    @property
    def state(self) -> str:
        """How it ended: COMPLETED, FAILED, CRASHED, REFUSED, CANCELLED or EXPIRED."""
        return RunState.Name(self.run.state).removeprefix("RUN_STATE_")

    @property
    def proven(self) -> bool:
        """Whether its node signed that it ended so. A value always is; CANCELLED and EXPIRED may be the server's word alone."""
        return self.run.proven

    @property
    def failure(self) -> str:
        """Why there is no value, in words, and whether that is the server's word alone; empty if there is one."""
        if self.completed:
            return ""
        reason = ErrorReason.Name(self.run.reason).removeprefix("ERROR_REASON_") if self.run.reason else ""
        rule = f"rule {self.run.rule}" if self.run.rule else ""
        exit_class = ExitClass.Name(self.run.exit_class).removeprefix("EXIT_CLASS_") if self.run.exit_class else ""
        told = ", ".join(filter(None, (reason, rule, exit_class, self.run.failure))) or self.state
        return told if self.proven else f"{told} (the server says so; no node signed it)"

    @cached_property
    def value(self) -> Any:
        """What the function returned there; RunNotCompleted if it did not."""
        if not self.completed:
            raise RunNotCompleted(f"{self.organization} gave no result, its run is {self.state}: {self.failure}")
        return decode(self.run.content_type, self._content)

    def __repr__(self) -> str:
        doubt = "" if self.proven else ", the server says"
        return f"<Result of {self.organization}: {self.state}{doubt}>"


class Frame(Protocol):
    """A message of WatchSubtask or ReadDependency: a run, or bytes of the content of the run before."""

    @property
    def run(self) -> RunResult:
        """The run."""
        ...

    @property
    def data(self) -> bytes:
        """The bytes."""
        ...

    def WhichOneof(self, oneof_group: Any, /) -> Any:  # noqa: N802 - protobuf's name
        """Say which of the two it is."""
        ...


def assemble(frames: Iterable[Frame]) -> Iterator[Result]:
    """Yield each result as soon as its last byte is there."""
    run: RunResult | None = None
    pieces: list[bytes] = []
    missing = 0
    for frame in frames:
        if frame.WhichOneof("frame") == "run":
            if missing:
                break
            run, pieces, missing = frame.run, [], frame.run.size_bytes
        else:
            pieces.append(frame.data)
            missing -= len(frame.data)
        if run is not None and missing == 0:
            yield Result(run, b"".join(pieces))
            run = None
    if missing:
        raise ContentInvalid(f"a result's content differs from its length by {missing:,} bytes")
