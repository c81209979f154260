"""What a run may become, and what a task then is: pure decisions, which the store carries out by compare-and-set.

A run is open until it reaches exactly one terminal state, and that never changes: no report, no cancellation, no second
receipt and no passing of time touches a run that has ended. While PENDING it is the server's: it may be expired or
cancelled here. From the acknowledgement of its delivery on it belongs to one node, and only that node's receipt ends it,
unless the signed task allows another attempt and the run is given to another node: then nothing of the former one counts.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import TypeAlias

from folkmoot.trust.encoding import timestamp
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import RunState, TaskState, Waiting, WaitReason

State: TypeAlias = RunState.ValueType

PENDING = RunState.RUN_STATE_PENDING
ASSIGNED = RunState.RUN_STATE_ASSIGNED
COMPLETED = RunState.RUN_STATE_COMPLETED
CANCELLED = RunState.RUN_STATE_CANCELLED
EXPIRED = RunState.RUN_STATE_EXPIRED

OPEN = frozenset(state for state in RunState.values() if PENDING <= state < COMPLETED)
TERMINAL = frozenset(state for state in RunState.values() if state >= COMPLETED)
OF_A_NODE = OPEN - {PENDING}
NODE_OUTCOMES = TERMINAL - {EXPIRED}
"""What a receipt may say. EXPIRED is the server's word alone."""


@dataclass(frozen=True, slots=True)
class Run:
    """What decisions about a run rest on. `link_id` is where it is placed, and whom it belongs to once it is not PENDING."""

    run_id: str
    task_id: str
    state: State
    attempt: int = 1
    link_id: int | None = None
    cancelling: bool = False
    receipt: bytes | None = None
    attempts_allowed: int = 1

    @property
    def ended(self) -> bool:
        """Whether its state is its last one."""
        return self.state in TERMINAL

    def held_by(self, link_id: int) -> bool:
        """Whether it belongs to that node now."""
        return self.state in OF_A_NODE and self.link_id == link_id


class Commit(Enum):
    """What a receipt does to a run."""

    ENDS = auto()
    REPEATED = auto()


class Cancel(Enum):
    """What a cancellation does to a run."""

    ENDS = auto()
    ASKS_NODE = auto()
    NOTHING = auto()


class Verdict(Enum):
    """What the runs of the tasks that a task depends on mean for it."""

    WAIT = auto()
    START = auto()
    FAIL = auto()


def task_state(states: Collection[State]) -> TaskState.ValueType:
    """Derive a task's state from its runs'."""
    if not all(state in TERMINAL for state in states):
        pending = all(state == PENDING for state in states)
        return TaskState.TASK_STATE_PENDING if pending else TaskState.TASK_STATE_RUNNING
    if CANCELLED in states:
        return TaskState.TASK_STATE_CANCELLED
    if all(state == COMPLETED for state in states):
        return TaskState.TASK_STATE_COMPLETED
    return TaskState.TASK_STATE_FAILED


def accepts(run: Run, link_id: int, attempt: int) -> bool:
    """Whether a node's acknowledgement of the delivery of an attempt makes the run the node's."""
    return run.state == PENDING and run.link_id == link_id and run.attempt == attempt


def may_be_tried_again(run: Run, *, only_unstarted: bool) -> bool:
    """Whether the signed task allows that another node begins the run anew, because the one that has it does not end it.

    A result that stands and waits for a person's release is not replaced.
    """
    if run.ended or run.cancelling or run.state == RunState.RUN_STATE_HELD or run.attempt >= run.attempts_allowed:
        return False
    return run.state < RunState.RUN_STATE_RUNNING if only_unstarted else True


def reports(run: Run, *, link_id: int, attempt: int, state: State) -> bool:
    """Whether a node's report of an open state counts; late, foreign and terminal ones don't."""
    return run.held_by(link_id) and run.attempt == attempt and state in OF_A_NODE


def last_words(run: Run, *, link_id: int, attempt: int) -> bool:
    """Whether a node speaks of a run that has ended with it: its commit may overtake the last lines of its log."""
    return run.ended and run.link_id == link_id and run.attempt == attempt


def commit(run: Run, *, link_id: int, attempt: int, receipt: bytes) -> Commit:
    """Whether a verified receipt ends the run, or repeats the one that did; raise RUN_CONFLICT otherwise.

    A run may be committed before its delivery's acknowledgement has arrived: that takes another way.
    """
    if run.receipt == receipt:
        return Commit.REPEATED
    if run.ended:
        raise run_conflict(f"The run {run.run_id} has ended otherwise: {RunState.Name(run.state)}.")
    if run.link_id != link_id:
        raise run_conflict(f"The run {run.run_id} is not this node's.")
    if run.attempt != attempt:
        raise run_conflict(f"The run {run.run_id} is in attempt {run.attempt}, not {attempt}.")
    return Commit.ENDS


def cancel(run: Run) -> Cancel:
    """What a cancellation does: a run that a node holds ends when the node says so, and a result that comes first wins."""
    if run.ended or run.cancelling:
        return Cancel.NOTHING
    return Cancel.ENDS if run.state == PENDING else Cancel.ASKS_NODE


def verdict(dependencies: Iterable[State]) -> Verdict:
    """What the states of all runs of all tasks that a task depends on mean for it."""
    states = set(dependencies)
    if states & (TERMINAL - {COMPLETED}):
        return Verdict.FAIL
    return Verdict.START if states <= {COMPLETED} else Verdict.WAIT


@dataclass(frozen=True, slots=True)
class Station:
    """What the server knows of the node, or the nodes, that a run may be executed by."""

    admitted: bool
    away_since: datetime | None
    """None while (one of them is) attached."""
    node_id: str = ""
    """The one node that it is placed at."""
    draining_since: datetime | None = None
    """Of nodes that could have it, all that are attached take nothing new."""


def waiting(
    state: State, *, blocked: bool, created_at: datetime, station: Station, reported: Waiting | None
) -> Waiting | None:
    """Say what a run waits for and since when; None if for nothing. A node that is away keeps even its own runs waiting."""
    if state in TERMINAL:
        return None
    if state == PENDING and blocked:
        return _wait(WaitReason.WAIT_REASON_DEPENDENCY, created_at, "for the tasks that it depends on")
    if not station.admitted:
        return _wait(WaitReason.WAIT_REASON_NO_NODE, created_at, "for a node of the organization to be admitted")
    if station.away_since is not None:
        which = f"the node {station.node_id}" if station.node_id else "a node that offers its data"
        return _wait(WaitReason.WAIT_REASON_NODE_OFFLINE, station.away_since, f"for {which} to connect")
    if station.draining_since is not None:
        return _wait(WaitReason.WAIT_REASON_PAUSED, station.draining_since, "for a node that takes new runs")
    if state == PENDING:
        return _wait(WaitReason.WAIT_REASON_ACCEPTANCE, created_at, "for the node to accept it")
    return reported


def _wait(reason: WaitReason.ValueType, since: datetime, detail: str) -> Waiting:
    return Waiting(reason=reason, since=timestamp(since), detail=detail)


def run_conflict(text: str) -> FolkmootError:
    """Return the error of a run that is not this node's, not in this attempt, or has ended otherwise."""
    return FolkmootError(ErrorReason.ERROR_REASON_RUN_CONFLICT, text)
