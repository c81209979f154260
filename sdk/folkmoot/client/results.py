"""What came of one run: its state, whether a node proved it, and its value.

A result is local and final: everything in it was received, and verified as far as it can be, before it was made. Large values
rest sealed in a temporary file and are decrypted when they are asked for, chunk by chunk.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from folkmoot.algorithm import values
from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.trust import FolkmootError, Opened
from folkmoot.trust.reasons import reason_name
from folkmoot.v1 import errors_pb2, task_pb2


class RunState(StrEnum):
    """States of a run. Those from COMPLETED on are terminal and never change."""

    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    DELIVERING = "DELIVERING"
    HELD = "HELD"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    REFUSED = "REFUSED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def ended(self) -> bool:
        """Whether this is a terminal state."""
        return self in _ENDED


_ENDED = frozenset(list(RunState)[list(RunState).index(RunState.COMPLETED) :])


def run_state(value: int) -> RunState:
    """The contract's state as ours."""
    return RunState(task_pb2.RunState.Name(task_pb2.RunState.ValueType(value)).removeprefix("RUN_STATE_"))


class Proof(StrEnum):
    """On whose word a state rests. True in a condition only if it is proven."""

    PROVEN = "proven"
    """The node that executed or refused the run signed it."""
    SERVER_SAYS = "server says"
    """No node signed it, or not as it must be."""

    def __bool__(self) -> bool:
        return self is Proof.PROVEN


class RunFailed(FolkmootError):  # noqa: N818 - what it says, without the word "error"
    """A run ended without a value. `state` says how, the message why."""

    def __init__(self, reason: int, message: str, *, state: RunState) -> None:
        super().__init__(reason, message)
        self.state = state


@dataclass(frozen=True)
class Result:
    """What came of one organization's run."""

    organization: str
    """The organization's name, by the verified ledger."""
    organization_id: str
    run_id: str
    attempt: int
    state: RunState
    proven: Proof
    exit_class: str = ""
    """How an algorithm without a result ended, such as "OUT_OF_MEMORY"; empty otherwise."""
    reason: int = errors_pb2.ERROR_REASON_UNSPECIFIED
    """Why the run was refused, cancelled or expired: a value of ErrorReason."""
    rule: str = ""
    """The rule of the node's policy that refused the run."""
    failure: str = ""
    """What the algorithm said when it failed."""
    receipt: task_pb2.Receipt | None = field(default=None, repr=False)
    """What the node signed, verified; None unless `proven`."""
    problem: FolkmootError | None = None
    """Why receipt or content were not accepted, if they were not: somebody altered or withheld them."""
    content: Opened | None = field(default=None, repr=False)
    """The verified envelope; None if there is no value, or none for this organization."""

    @property
    def has_value(self) -> bool:
        """Whether there is a value that this organization can read."""
        return self.state is RunState.COMPLETED and self.content is not None

    @cached_property
    def value(self) -> Any:
        """What the function returned. Raises RunFailed, or what kept the value from being accepted."""
        opened = self._opened()
        try:
            return values.decode(opened.context.content_type, opened.content())
        except AlgorithmError as error:
            raise FolkmootError(error.reason, f"the result of {self.organization} can't be read: {error}") from error

    @property
    def content_type(self) -> str:
        """Media type of the value."""
        return self._opened().context.content_type

    @property
    def size_bytes(self) -> int:
        """Length of the value as it travelled."""
        return self._opened().total_length

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the value's bytes to a file, in bounded memory; the file is there whole or not at all."""
        target = Path(path)
        with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            try:
                for chunk in self.chunks():
                    file.write(chunk)
                file.close()
                Path(file.name).replace(target)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def chunks(self) -> Iterator[bytes]:
        """Stream the value's bytes."""
        yield from self._opened().read()

    def raise_for_state(self) -> None:
        """Raise RunFailed unless the run is completed, and proven to be; raise what kept its value from being accepted."""
        if self.problem is not None:
            raise self.problem
        if self.state is not RunState.COMPLETED:
            raise RunFailed(self.reason, f"{self.organization}: {explain(self)}", state=self.state)
        if not self.proven:
            raise RunFailed(
                errors_pb2.ERROR_REASON_SIGNATURE_INVALID,
                f"{self.organization}: the server says that the run is completed, but shows no node's receipt",
                state=self.state,
            )

    def _opened(self) -> Opened:
        self.raise_for_state()
        if self.content is None:
            raise RunFailed(
                errors_pb2.ERROR_REASON_NOT_ALLOWED,
                f"{self.organization}: the result is sealed to other organizations only",
                state=self.state,
            )
        return self.content


_CRASHES = {
    "NO_RESULT": "exited without a result",
    "ERROR": "exited with an error code, without a result",
    "OUT_OF_MEMORY": "took more memory than it may, and was killed",
    "OUT_OF_TIME": "took more time than it may, and was killed",
    "OUT_OF_SCRATCH": "took more disk than it may, with its job, and was killed",
    "NOT_STARTED": "could not be started",
    "LOST": "was lost: its machine restarted, or somebody removed it",
}


def explain(result: Result) -> str:
    """Say in a sentence how a run ended."""
    doubt = "" if result.proven else " (the server says so; no node signed it)"
    match result.state:
        case RunState.FAILED:
            text = f"the algorithm failed: {result.failure or 'what it said is sealed to others'}"
        case RunState.CRASHED:
            tail = f": {result.failure}" if result.failure else ""
            text = f"the algorithm {_CRASHES.get(result.exit_class, 'ended without a result')}{tail}"
        case RunState.REFUSED:
            text = f"the node refused it: {reason_name(result.reason)}" + (
                f" (rule: {result.rule})" if result.rule else ""
            )
        case RunState.EXPIRED:
            text = "its time was over before it began"
        case state:
            text = state.lower()
    return text + doubt
