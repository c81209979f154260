"""Wake-ups: hints that rows have changed, never truth.

Whoever waits for rows listens first, then reads, and reads again whenever he is woken. A wake-up that comes for nothing
costs one query; one that is lost costs the time until the next. Topics are words such as "task:…" and "link:…".
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

POLL_SECONDS = 3.0
"""After how long whoever waits looks by himself where wake-ups get lost: that is what a lost one costs."""


class Waker(Protocol):
    """Tells listeners, in whichever instance of the server they are, that rows have changed."""

    poll_seconds: float | None
    """After how long whoever waits should look by himself, because wake-ups get lost; None: they never do."""

    is_connected: bool
    """Whether it reaches other instances; one that has none to reach does."""

    def wake(self, topics: Iterable[str]) -> None:
        """Wake all who listen to any of the topics. Called in the event loop, after the commit."""

    def listen(self, topic: str, wake: Callable[[], None]) -> AbstractContextManager[None]:
        """Call `wake`, in the event loop, at every wake-up from now on until the context ends. It must not raise."""


EVENTS_TOPIC = "events"
"""Topic of the audit trail."""

RIGHTS_TOPIC = "rights"
"""Topic of whatever may have changed who may do what: what is remembered of callers is looked up again."""


def task_topic(task_id: str) -> str:
    """Topic of a task: its runs, their logs."""
    return f"task:{task_id}"


def ledger_topic(genesis: bytes) -> str:
    """Topic of a ledger: its entries."""
    return f"ledger:{genesis.hex()}"


def questions_topic(instance_id: str) -> str:
    """Topic of an instance of the server: questions to nodes whose sessions it has."""
    return f"questions:{instance_id}"


def answer_topic(check_id: str) -> str:
    """Topic of a question: its answer."""
    return f"answer:{check_id}"


def link_topic(link_id: int) -> str:
    """Topic of a node's link: its deliveries."""
    return f"link:{link_id}"
