"""Failpoints: named places in node and server where a test has the process die, fail or freeze.

They exist so that crash safety can be checked rather than believed: each one stands at a step where a crash could matter, FAILPOINTS
says which, and the tests crash a process at every one of them. A process obeys only the environment that it was started with:

    FOLKMOOT_FAILPOINTS="node.run.started=kill@3,server.commit.stored=freeze"

    kill     the process is gone at once, as after SIGKILL or a power cut
    error    the step fails as a disk or a library fails: with an OSError
    freeze   the process stops answering, as a suspended machine does, until it gets SIGCONT

`@3` means the third time that the place is reached, in this process; without it the first. Whoever sets the variable is told so, loudly;
what it can't mean is refused. Where it is not set, a failpoint costs one comparison.
"""

import errno
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

VARIABLE = "FOLKMOOT_FAILPOINTS"

ACTIONS = ("kill", "error", "freeze")

FAILPOINTS: Mapping[str, str] = {
    "node.delivery.received": "a delivery has come, the journal does not know of it",
    "node.run.judged": "an assignment is verified and judged, and not journaled",
    "node.delivery.journaled": "deliveries are journaled, and not acknowledged",
    "node.delivery.acknowledged": "the acknowledgement has left",
    "node.run.input_opened": "the input is here and opened",
    "node.run.image_prepared": "the image is there and is the one that was signed for",
    "node.run.journaled_as_started": "the journal says that the run was started, and nothing is started yet",
    "node.run.socket_bound": "the run's socket is served, its process is not there",
    "node.run.process_begun": "the process runs, and is not written down (process runtime)",
    "node.run.container_created": "the container exists and does not run (container runtime)",
    "node.run.started": "the algorithm runs",
    "node.envelope.written": "a large envelope is written under a passing name",
    "node.envelope.named": "a large envelope has its name, which is not synced",
    "node.dataframe.written": "a dataframe is checked and written under a passing name",
    "node.dataframe.named": "a dataframe has its name, which is not synced",
    "node.dataframe.journaled": "a dataframe waits for its run's end, and the algorithm was not told",
    "node.dataframe.settled": "a run's end stands, and with it its dataframe; the file of the one before is there still",
    "node.dataframe.dropped": "the journal says that dataframes are not wanted, and their files are there",
    "node.result.sealed": "the result is sealed, and not journaled",
    "node.result.journaled": "the result stands, and nobody was told",
    "node.result.held": "the result stands and waits for a person, and nobody was told",
    "node.result.dropped": "a held result that does not leave is removed, the run's end is not journaled",
    "node.approval.journaled": "a person's decision is journaled, and nothing acts on it yet",
    "node.result.uploaded": "the server has the bytes of a large result, and not its receipt",
    "node.result.committed": "the server has the run's end, the journal does not say so",
    "node.result.commit_journaled": "the journal says that the server has the run's end",
    "node.run.process_removed": "the process or container of a run that ended is removed, its folder is there",
    "node.message.journaled": "a message is journaled, and not sent",
    "node.message.accepted": "the server says that it has a message, the journal does not",
    "node.subtask.journaled": "a subtask is signed and journaled, the server does not know of it",
    "node.subtask.created": "the server has a subtask, the journal does not say so",
    "upload.part_sent": "a part of a large envelope has been sent and answered",
    "server.task.stored": "a task is written, its transaction is open",
    "server.task.committed": "a task is durable, and its creator was not told",
    "server.delivery.sent": "a frame has gone to a node",
    "server.acknowledgement.stored": "a node's acknowledgement is written, its transaction is open",
    "server.commit.stored": "a run's end is written, its transaction is open",
    "server.commit.committed": "a run's end is durable, and its node was not told",
    "server.part.written": "a part of a payload is written under a passing name",
    "server.part.named": "a part has its name, which is not synced",
    "server.part.synced": "a part is durable, and its sender was not told",
    "server.payload.checked": "all parts are there and make up the envelope, which no row says",
    "server.deletion.stored": "a task's rows are gone and its payloads marked, the transaction is open",
    "server.removal.claimed": "an instance is about to remove a deleted payload's bytes",
    "server.removal.done": "a deleted payload's bytes are gone, its row says that they are to go",
    "server.message.stored": "a message is written, its transaction is open",
    "server.message.committed": "a message is durable, and its sender was not told",
    "server.ledger.stored": "an entry is written, its transaction is open",
    "server.ledger.committed": "an entry is durable, and nobody was told",
    "server.cancellation.committed": "a cancellation is durable, and nobody was told",
}
"""Every failpoint, and what is the case when it is reached."""


@dataclass
class _Plan:
    """What is to happen at one failpoint, and how many times it still has to be reached for that."""

    action: str
    missing: int


class _Plans:
    """The plans of this process. Failpoints are reached in several threads."""

    def __init__(self, plans: Mapping[str, _Plan]) -> None:
        self._plans = plans
        self._counting = threading.Lock()

    def reach(self, name: str) -> None:
        plan = self._plans.get(name)
        if plan is None:
            return
        with self._counting:
            plan.missing -= 1
            if plan.missing:
                return
        tell(f"failpoint {name}: {plan.action}")
        match plan.action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            case _:
                raise OSError(errno.EIO, f"failpoint {name}")


_plans: _Plans | None = None


def failpoint(name: str) -> None:
    """Tell that this place was reached; here the process may end, fail or freeze, if it was started to do so."""
    if _plans is not None:
        _plans.reach(name)


def obey_environment() -> None:
    """Arm what the environment asks for; called once, when a node or server starts. Raises INVALID_FIELD for what it can't mean."""
    global _plans  # noqa: PLW0603 - a process has one environment
    text = os.environ.get(VARIABLE, "")
    _plans = _Plans(read_plans(text)) if text else None
    if text:
        tell(
            f"{VARIABLE}={text}: this process was started to crash. That is for tests alone; unset the variable otherwise"
        )


def read_plans(text: str) -> dict[str, _Plan]:
    """Read `name=action@number,...`. Raises INVALID_FIELD."""
    plans: dict[str, _Plan] = {}
    for part in text.split(","):
        name, _, rest = part.strip().partition("=")
        action, _, number = rest.partition("@")
        if name not in FAILPOINTS or action not in ACTIONS or not (number or "1").isdecimal() or number == "0":
            raise FolkmootError(
                ErrorReason.ERROR_REASON_INVALID_FIELD,
                f"{VARIABLE}: {part!r} is no plan: write NAME={'|'.join(ACTIONS)}, with @NUMBER behind it for a later time; "
                f"the names stand in docs/robustness.md",
            )
        plans[name] = _Plan(action, int(number or 1))
    return plans


def tell(text: str) -> None:
    """Write a line to standard error past every buffer: the process may be gone with the next instruction."""
    os.write(2, f"{text}\n".encode())
