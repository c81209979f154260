"""A run's log, opened line by line. Who sealed it and in which order is verified; lines that were lost on the way are said."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from folkmoot.client.connection import Connection
from folkmoot.client.names import moment, printable
from folkmoot.client.opening import open_from_run
from folkmoot.trust import EnvelopeRejected, VerifiedTask, parse
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.proxy_service_pb2 import LogLines
from folkmoot.v1.task_service_pb2 import WatchRunLogRequest, WatchRunLogResponse

SETTLED_SECONDS = 0.5
"""After how much silence a log that is not followed is taken for read to its present end."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class LogLine:
    """A line of a run's log."""

    organization: str
    time: datetime
    level: str
    """One of debug, info, warning and error."""
    text: str

    def __str__(self) -> str:
        return f"{self.time.astimezone():%H:%M:%S} {self.organization} {printable(self.level)}: {printable(self.text)}"


async def run_log(
    connection: Connection, task: VerifiedTask, run_id: str, organization: str, *, follow: bool
) -> AsyncIterator[LogLine]:
    """Stream a run's log: to its end if followed, else as far as it is there."""
    position = 0

    async def request() -> WatchRunLogRequest:
        return WatchRunLogRequest(run_id=run_id, after_position=position)

    session = connection.session
    stream = session.follow(session.tasks.WatchRunLog, request)
    order = _Order()
    async for piece in stream if follow else until_silent(stream, SETTLED_SECONDS):
        position = piece.position
        lines = await _lines(connection, task, run_id, piece, order)
        if missing := order.missing(lines):
            first = moment(lines.lines[0].time)
            yield LogLine(organization, first, "warning", f"({missing} lines were lost on the way)")
        for line in lines.lines:
            yield LogLine(organization, moment(line.time), line.level, line.text)


class _Order:
    """Where a log stands: envelopes must come in order, and lines are counted."""

    def __init__(self) -> None:
        self._attempt = 0
        self._sequence = 0
        self._next_line = 1

    def check(self, attempt: int, sequence: int) -> None:
        """Refuse an envelope that is not newer than the ones before it."""
        if attempt > self._attempt:
            self._attempt, self._sequence, self._next_line = attempt, 0, 1
        if attempt < self._attempt or sequence <= self._sequence:
            raise EnvelopeRejected("a log envelope came again, or out of order")
        self._sequence = sequence

    def missing(self, lines: LogLines) -> int:
        """How many lines should have come before these."""
        missing = lines.first_sequence - self._next_line
        self._next_line = lines.first_sequence + len(lines.lines)
        return max(0, missing) if lines.lines else 0


async def _lines(
    connection: Connection, task: VerifiedTask, run_id: str, piece: WatchRunLogResponse, order: _Order
) -> LogLines:
    kind = EnvelopeKind.ENVELOPE_KIND_LOG
    opened = await open_from_run(connection, task, run_id, piece.attempt, kind, piece.envelope)
    order.check(piece.attempt, opened.context.sequence)
    return parse(LogLines, opened.content())


async def until_silent(stream: AsyncIterator[Item], seconds: float) -> AsyncIterator[Item]:
    """Pass a stream on until it ends, or nothing has come for so long."""

    async def following() -> Item:
        return await anext(stream)

    while True:
        step = asyncio.ensure_future(following())
        await asyncio.wait({step}, timeout=seconds)
        if not step.done():
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
            return
        try:
            yield step.result()
        except StopAsyncIteration:
            return
