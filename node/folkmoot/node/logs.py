"""The log: one JSON object per line on standard error. Nothing secret goes in: no keys, tokens or payloads, nothing that algorithms say."""

import logging
import sys

import structlog
from structlog.typing import Processor


def log_to_standard_error() -> None:
    """Let this process's log begin; what libraries have to say is part of it."""
    seen: list[Processor] = [structlog.processors.add_log_level, structlog.processors.TimeStamper(fmt="iso", utc=True)]
    shown: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    structlog.configure(
        processors=[*seen, *shown],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shown], foreign_pre_chain=seen
        )
    )
    logging.getLogger().addHandler(handler)
