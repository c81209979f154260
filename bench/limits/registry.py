"""All limits by name, each with what it reached on a quiet machine with two cores of an AMD EPYC and a fast disk.

A limit program that is needlessly slow would flatter the product. So a limit that falls far below its reference on
such a machine voids its row; on another kind of machine the references say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.context import Context
from bench.limits import (
    at_rest,
    bare_install,
    cold_round_trip,
    create,
    crowd,
    delivery,
    messages,
    process_round_trip,
    receivers,
    seal_open,
    signatures,
    tables,
    transfer,
)
from bench.limits.common import Figure
from bench.limits.parquet import table


def _cold_round_trip(context: Context) -> tuple[Figure, ...]:
    return (cold_round_trip.measure(context.image),) if context.image else ()


def _at_rest(_context: Context) -> tuple[Figure, ...]:
    server = at_rest.measure("server at rest", at_rest.SERVER_MODULES)
    node = at_rest.measure("node at rest", at_rest.NODE_MODULES)
    return server.memory, server.start, node.memory, node.start


def _transfer(context: Context) -> tuple[Figure, ...]:
    both = transfer.measure(size_bytes=context.payload_bytes, folder=context.folder)
    return both.upload, both.download


def _messages(_context: Context) -> tuple[Figure, ...]:
    both = messages.measure()
    return both.latency, both.rate


def _bare_install(_context: Context) -> tuple[Figure, ...]:
    both = bare_install.measure()
    return both.size, both.importing


def _crowd(_context: Context) -> tuple[Figure, ...]:
    limits = crowd.measure()
    return limits.calls, limits.push, limits.memory, limits.handshakes


LIMITS: Mapping[str, Callable[[Context], tuple[Figure, ...]]] = {
    "cold_round_trip": _cold_round_trip,
    "process_round_trip": lambda _context: (process_round_trip.measure(),),
    "delivery": lambda _context: (delivery.measure(),),
    "create": lambda _context: (create.measure(),),
    "crowd": _crowd,
    "at_rest": _at_rest,
    "transfer": _transfer,
    "seal_open": lambda context: (seal_open.measure(size_bytes=context.payload_bytes),),
    "receivers": lambda _context: (receivers.measure("x-wing"), receivers.measure("rsa")),
    "ledger": lambda _context: (signatures.measure("ledger", lengths=[400] * 15_000),),
    "bare_install": _bare_install,
    "tables": lambda _context: (tables.measure(table()),),
    "messages": _messages,
}

REFERENCES: Mapping[str, tuple[float, str]] = {
    "cold round trip": (320, "plain python, without the import of grpc"),
    "process round trip": (6, "sum: 12 calls of 0.4 ms, 6 commits of 0.2 ms"),
    "delivery": (0.75, "sum: call 0.43, hop 0.16, commit 0.15 ms"),
    "create": (1790, "the same rows through SQLAlchemy Core"),
    "server at rest memory": (43, "grpc.aio server with TLS and protobuf, idle"),
    "node at rest memory": (36, "empty grpc.aio server"),
    "upload": (400, "350 to 450 with protobuf and hashing"),
    "download": (1200, ""),
    "seal and open": (2000, "1,955 to 2,074"),
    "receivers (x-wing)": (71, "14,100 wraps/s"),
    "receivers (rsa)": (62, "16,000 wraps/s"),
    "ledger": (910, "16,500 verifications/s"),
    "bare install import": (47, "grpc alone"),
    "messages": (0.47, "sum: two hops of 0.16, commit 0.15 ms"),
}
"""By figure name: the value in the figure's unit, and what it was."""


def higher_is_better(unit: str) -> bool:
    """Rates are to be high; times and sizes low."""
    return unit.endswith("/s")


def speed_against_reference(figure: Figure) -> float | None:
    """1.0 is as good as the reference, 0.5 half as good; None where there is none."""
    if figure.name not in REFERENCES:
        return None
    reference, _ = REFERENCES[figure.name]
    return figure.value / reference if higher_is_better(figure.unit) else reference / figure.value
