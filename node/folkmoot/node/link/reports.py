"""What a run tells while it runs: its state, what it waits for, progress and log.

Log lines and progress texts are sealed to the receivers of the results. They are gathered for a moment, so that a talkative algorithm
costs one envelope per moment and not one per line. They are told once and may be lost with the link (where the run stands is told again at each attach), when one of their readers has
left or has no key, or when a quota is used up; results never are. Of a run whose result a person is to look at first, neither lines nor progress are told at all.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from folkmoot.node.journal.records import RunRecord, moment
from folkmoot.node.station import Station
from folkmoot.node.storage.egress import Departure
from folkmoot.trust import FolkmootError, Sealed, timestamp
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.link_pb2 import NodeFrame, RunUpdate
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines
from folkmoot.v1.task_pb2 import RunState, Waiting, WaitReason

log = structlog.get_logger()

GATHER_SECONDS = 0.2
GATHER_LINES = 100
GATHER_BYTES = 128 * 1024
LINE_CHARACTERS = 16_000
VISIBLE_AFTER_SECONDS = 0.2
LOG_CONTENT_TYPE = "application/vnd.folkmoot.log"
PROGRESS_CONTENT_TYPE = "text/plain; charset=utf-8"


class Reporting(Protocol):
    """The run that tells."""

    @property
    def record(self) -> RunRecord:
        """As it stands."""

    @property
    def result_receivers(self) -> tuple[str, ...]:
        """Who may read what it says."""

    @property
    def held(self) -> bool:
        """Whether a person looks at what it says before it leaves."""

    async def count_report(self, departure: Departure, **counters: int) -> None:
        """Keep how far log or progress has come, and let an envelope leave."""


class Reports:
    """The voice of one run."""

    def __init__(self, station: Station, run: Reporting, send: Callable[[NodeFrame], None]) -> None:
        self._station = station
        self._run = run
        self._send = send
        self._state: RunState.ValueType = RunState.RUN_STATE_PREPARING
        self._fraction = 0.0
        self._text: str | None = None
        self._waiting: Waiting | None = None
        self._lines: list[LogLine] = []
        self._first_sequence = 1
        self._next_sequence = run.record.log_lines + 1
        self._flushing = asyncio.Lock()
        self._flushes: set[asyncio.Task[None]] = set()
        self._flush_later: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def state(self) -> RunState.ValueType:
        """Where the run stands now."""
        return self._state

    @property
    def waits_for(self) -> Waiting | None:
        """What it waits for now, if that takes more than a moment."""
        return self._waiting

    def standing(self) -> NodeFrame:
        """Where the run stands, as the server is told."""
        record = self._run.record
        update = RunUpdate(
            run_id=record.run_id,
            attempt=record.attempt,
            state=self._state,
            fraction=self._fraction,
            waiting=self._waiting,
            started_at=timestamp(moment(record.started_at_us)) if record.started_at_us else None,
        )
        return NodeFrame(run_update=update)

    def begins(self) -> None:
        """Nothing is in the way any more: from here on the run counts as begun, wherever it is asked for."""
        self._state = RunState.RUN_STATE_RUNNING

    @asynccontextmanager
    async def being(self, state: RunState.ValueType) -> AsyncIterator[None]:
        """Tell the server that the run is in a state, if that takes more than a moment."""
        self._state = state
        telling = asyncio.get_running_loop().call_later(VISIBLE_AFTER_SECONDS, self._update)
        try:
            yield
        finally:
            telling.cancel()

    @asynccontextmanager
    async def waiting(self, reason: WaitReason.ValueType) -> AsyncIterator[Callable[[str], None]]:
        """Tell what the run waits for, if it takes more than a moment; gives what tells a few words about it."""
        waiting = Waiting(reason=reason, since=timestamp(self._station.now()))
        showing = asyncio.get_running_loop().call_later(VISIBLE_AFTER_SECONDS, self._show, waiting)

        def tell(detail: str) -> None:
            waiting.detail = detail
            if self._waiting is waiting:
                self._update()

        try:
            yield tell
        finally:
            showing.cancel()
            if self._waiting is waiting:
                self._show(None)

    async def progress(self, fraction: float, text: str) -> None:
        """Tell how far the run is; the newest words count. Of a held run nothing is told.

        The fraction is not sealed, and no record counts it: it goes on by hundredths, and never back, so that it carries nothing else.
        """
        if self._run.held:
            return
        self._fraction, self._text = max(self._fraction, round(fraction, 2)), text
        self._schedule()

    async def log(self, lines: LogLines) -> None:
        """Take lines of the log; those that came before are dropped, and those of a held run."""
        if self._run.held:
            return
        known = max(0, self._next_sequence - lines.first_sequence)
        fresh = lines.lines[known:]
        if not fresh:
            return
        first = lines.first_sequence + known
        if self._lines and first != self._next_sequence:
            await self.flush()
        if not self._lines:
            self._first_sequence = first
        for line in fresh:
            self._lines.append(LogLine(time=line.time, level=line.level, text=line.text[:LINE_CHARACTERS]))
        self._next_sequence = first + len(fresh)
        if len(self._lines) >= GATHER_LINES or sum(line.ByteSize() for line in self._lines) >= GATHER_BYTES:
            await self.flush()
        else:
            self._schedule()

    async def flush(self) -> None:
        """Seal and send what is gathered; who asks for it may go away meanwhile, a call of an algorithm that ends for one."""
        flush = asyncio.create_task(self._flush_all())
        self._flushes.add(flush)
        flush.add_done_callback(self._flushes.discard)
        await asyncio.shield(flush)

    async def _flush_all(self) -> None:
        async with self._flushing:
            if self._closed:
                return
            lines, first = self._lines, self._first_sequence
            self._lines = []
            text, self._text = self._text, None
            if self._run.held:
                return
            try:
                logs = [await self._seal_lines(first + at, part) for at, part in _parts(lines)]
                progress = await self._seal_progress(text) if text else b""
            except FolkmootError as error:
                log.warning("run.report_dropped", run_id=self._run.record.run_id, detail=str(error))
                return
            if logs or progress or text is not None:
                self._update(progress_envelope=progress, log_envelopes=logs)

    async def close(self) -> None:
        """Send what is left; from here on the run has ended, and says no more."""
        if self._flush_later is not None:
            self._flush_later.cancel()
        await self.flush()
        self._closed = True

    def _schedule(self) -> None:
        if self._flush_later is None or self._flush_later.done():
            self._flush_later = asyncio.create_task(_later(GATHER_SECONDS, self.flush))

    def _show(self, waiting: Waiting | None) -> None:
        self._waiting = waiting
        self._update()

    def _update(self, *, progress_envelope: bytes = b"", log_envelopes: Sequence[bytes] = ()) -> None:
        if not self._closed:
            frame = self.standing()
            frame.run_update.MergeFrom(RunUpdate(progress_envelope=progress_envelope, log_envelopes=log_envelopes))
            self._send(frame)

    async def _seal_lines(self, first_sequence: int, lines: list[LogLine]) -> bytes:
        sequence = self._run.record.log_sequence + 1
        content = LogLines(first_sequence=first_sequence, lines=lines).SerializeToString()
        sealed, departure = self._seal(content, EnvelopeKind.ENVELOPE_KIND_LOG, LOG_CONTENT_TYPE, sequence)
        last_line = first_sequence + len(lines) - 1
        await self._run.count_report(departure, log_sequence=sequence, log_lines=last_line)
        return sealed.envelope

    async def _seal_progress(self, text: str) -> bytes:
        sequence = self._run.record.progress_sequence + 1
        sealed, departure = self._seal(
            text.encode(), EnvelopeKind.ENVELOPE_KIND_PROGRESS, PROGRESS_CONTENT_TYPE, sequence
        )
        await self._run.count_report(departure, progress_sequence=sequence)
        return sealed.envelope

    def _seal(
        self, content: bytes, kind: EnvelopeKind.ValueType, content_type: str, sequence: int
    ) -> tuple[Sealed, Departure]:
        context = self._station.context(kind, self._run.record, content_type=content_type, sequence=sequence)
        sealed = self._station.seal_small(content, context, self._run.result_receivers)
        receivers = self._run.result_receivers
        return sealed, self._station.departure(kind, sealed.digest, len(sealed.envelope), receivers)


def _parts(lines: list[LogLine]) -> Iterator[tuple[int, list[LogLine]]]:
    """Cut lines into parts that fit into an envelope that rides along, each with its position."""
    begin, size_bytes = 0, 0
    for at, line in enumerate(lines):
        if at > begin and size_bytes + line.ByteSize() > GATHER_BYTES:
            yield begin, lines[begin:at]
            begin, size_bytes = at, 0
        size_bytes += line.ByteSize()
    if lines[begin:]:
        yield begin, lines[begin:]


async def _later(seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await call()
