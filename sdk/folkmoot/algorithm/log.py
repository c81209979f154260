"""The run's log: lines go to the node in batches, from a thread of their own, so that no computation waits for them.

Exit-safe: the thread is a daemon, `flush` waits for what is written but never longer than a few seconds, and lines that the
node refuses are dropped rather than the run.
"""

import logging
import sys
import threading
from collections import deque
from itertools import islice
from typing import Literal

from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.algorithm.proxy import Proxy
from folkmoot.v1.proxy_service_pb2 import LogLine, LogLines

# So that a batch stays below the 256 KiB of one call even if every character takes four bytes.
LINE_LIMIT_CHARACTERS = 3_000
BATCH_LINES = 20
WAITING_LINES = 10_000
FLUSH_SECONDS = 5.0

Level = Literal["debug", "info", "warning", "error"]


class RunLog(logging.Handler):
    """Takes lines, from `write` and as a handler of Python's logging, and sends them in order."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._waiting: deque[LogLine] = deque()
        self._sent = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._send, name="folkmoot-log", daemon=True).start()

    def write(self, text: str, *, level: Level = "info") -> None:
        """Add a line, or several. When too many wait, the oldest go."""
        with self._changed:
            for one in text.splitlines():
                line = LogLine(level=level, text=one[:LINE_LIMIT_CHARACTERS])
                line.time.GetCurrentTime()
                if len(self._waiting) == WAITING_LINES:
                    self._waiting.popleft()
                self._waiting.append(line)
            self._changed.notify_all()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record of Python's logging."""
        try:
            self.write(self.format(record), level=_level(record.levelno))
        except Exception:  # noqa: BLE001 - a broken log call must not end the run
            self.handleError(record)

    def flush(self) -> None:
        """Wait until all lines are sent, or the node has taken too long to take them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, FLUSH_SECONDS)

    def _send(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                batch = list(islice(self._waiting, BATCH_LINES))
            try:
                self._proxy.log(LogLines(first_sequence=self._sent + 1, lines=batch))
                self._sent += len(batch)
            except AlgorithmError as error:
                print(f"the node refused {len(batch)} lines of the log: {error.message}", file=sys.stderr)  # noqa: T201
            with self._changed:
                for line in batch:
                    if self._waiting and self._waiting[0] is line:
                        self._waiting.popleft()
                self._changed.notify_all()


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
