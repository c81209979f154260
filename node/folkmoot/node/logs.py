"""The log: one JSON object per line on standard error. Nothing secret goes in: no keys, tokens or payloads, nothing that algorithms say."""

import logging
import sys

import structlog


def log_to_standard_error() -> None:
    """Let this process's log begin."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
