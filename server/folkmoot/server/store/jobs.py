"""Operations on the database as they wait for a thread, and what became of them.

An operation is a function of a connection. One that is `Joint` says what it is about, and is done at once with all
others of its kind that stand beside it in a group: what takes a dozen statements for each takes a dozen for all.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection

I = TypeVar("I")  # noqa: E741 -- an item
T = TypeVar("T")
Operation = Callable[[Connection], T]
DoneAtOnce = Callable[[Connection, Sequence[I]], Sequence[T]]
"""Does something for each of several items, as if it were done for one after the other; returns what comes of each."""


@dataclass(frozen=True, slots=True)
class Joint(Generic[I, T]):
    """An operation that is done at once with others of its kind."""

    kind: DoneAtOnce[I, T]
    item: I

    def __call__(self, connection: Connection) -> T:
        """Do it alone."""
        (value,) = self.kind(connection, [self.item])
        return value


@dataclass(frozen=True, slots=True)
class Job:
    """An operation that waits for a thread, and where its outcome goes."""

    operation: Operation[Any]
    then: Callable[[Any], None] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    order: Hashable = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an operation: its value when its transaction is over, or the error that undid it."""

    job: Job
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Run the after-commit effect, then answer the caller, who may be gone by now."""
        if self.error is None and self.job.then is not None:
            self.job.then(self.value)
        if self.job.future.done():
            return
        if self.error is None:
            self.job.future.set_result(self.value)
        else:
            self.job.future.set_exception(self.error)


def outcomes(connection: Connection, group: Sequence[Job]) -> Iterator[Outcome]:
    """Do all operations of a group, in their order; raise whatever the first of them raises that fails."""
    for kind, jobs in groupby(group, key=_kind):
        if kind is None:
            yield from (Outcome(job, job.operation(connection)) for job in jobs)
        else:
            together = list(jobs)
            values = kind(connection, [job.operation.item for job in together])  # type: ignore[attr-defined]
            yield from (Outcome(job, value) for job, value in zip(together, values, strict=True))


def _kind(job: Job) -> DoneAtOnce[Any, Any] | None:
    return job.operation.kind if isinstance(job.operation, Joint) else None
