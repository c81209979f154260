"""The log: one JSON object per line on standard error, with the request id of the call that it is about.

Nothing secret goes in: no passwords, tokens or keys, no payloads, no arguments of calls.
"""

import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from folkmoot.server import context


def make(level: str, stream: TextIO | None = None) -> FilteringBoundLogger:
    """Return a logger to the stream, None: standard error; it belongs to one server, so that several in one process don't share settings."""
    logger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            _add_request_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    return cast("FilteringBoundLogger", logger)


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if request_id := context.request_id():
        event["request_id"] = request_id
    return event
