"""Keepalive of a connection, both sides of it in one place, because they have to agree.

Either side probes (an HTTP/2 PING) a connection on which nothing has come for KEEPALIVE_SECONDS, with or without calls on it,
and gives it up when no answer has come KEEPALIVE_ANSWER_SECONDS later: a peer that froze, or that a firewall has forgotten,
is noticed after the sum of both, on either side. Without `ping_timeout_ms` it would take 69 seconds, whatever the others say.

A server that counts pings as strikes throws out who probes "too often" (GOAWAY, `too_many_pings`), and by its defaults a
client of another release, or with another interval, is such a one. Ours has no strikes: a ping costs it next to nothing.

A server may also ask its connections to end when they reach an age, so that nodes and people spread over instances that came
later. It sends GOAWAY and takes no new calls on the connection; those that are there go on (see `rpc.aging` in the server).
"""

from typing import TypeAlias

from folkmoot.transport import timeouts

Options: TypeAlias = tuple[tuple[str, int | str], ...]

LEAST_BETWEEN_PINGS_SECONDS = 5.0
"""How often a client may ping at most before the server counts it; it counts to no end."""


def probing(every_seconds: float, answer_seconds: float) -> Options:
    """Return the options of a side that probes so often and waits so long for the answer."""
    return (
        ("grpc.keepalive_time_ms", int(every_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", int(answer_seconds * 1000)),
        ("grpc.http2.ping_timeout_ms", int(answer_seconds * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    )


CLIENT: Options = probing(timeouts.KEEPALIVE_SECONDS, timeouts.KEEPALIVE_ANSWER_SECONDS)
"""Of whoever opens a connection: SDK, command, node."""

SERVER: Options = (
    *CLIENT,
    ("grpc.http2.min_recv_ping_interval_without_data_ms", int(LEAST_BETWEEN_PINGS_SECONDS * 1000)),
    ("grpc.http2.max_ping_strikes", 0),
)
"""Of whoever takes connections in."""


def ageing(most_seconds: float) -> Options:
    """Return the options by which a server lets its connections end at an age, a tenth more or less; none for 0."""
    return (("grpc.max_connection_age_ms", int(most_seconds * 1000)),) if most_seconds else ()
