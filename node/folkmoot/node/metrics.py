"""Metrics of a node, for Prometheus: its links, its runs by state, how long they waited and ran, its slots and its disk.

Each is told apart by collaboration, as node.toml names it: of these there are as many as there are blocks. Only a node that
is told to (`metrics_listen`) imports the library. What counts deliveries begins at nothing with each start of the node.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

from folkmoot.node.execution.outcomes import state_name
from folkmoot.node.journal.records import ASSIGNED, AWAITING_APPROVAL, FIRST_TERMINAL, HELD, RUNNING, RunRecord
from folkmoot.transport.metrics import Exposition, Metric, counter, gauge

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Sample

    from folkmoot.node.link.attachment import Link
    from folkmoot.node.station import Station

LOOKED_FOR_SECONDS = 10.0
"""How long a scrape waits for a journal, before it goes without."""
BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14_400, 86_400)
UNDELIVERED = "UNDELIVERED"
OPEN_STATES = (ASSIGNED, AWAITING_APPROVAL, RUNNING, HELD)

_HERE = ("collaboration",)
ATTACHED = Metric("folkmoot_node_attached", "Whether the node has a session with the server.", _HERE)
SESSIONS = Metric("folkmoot_node_sessions_total", "Sessions with the server that have begun.", _HERE)
FAILURES = Metric("folkmoot_node_link_failures_total", "Sessions that broke, or could not begin.", _HERE)
RUNS = Metric(
    "folkmoot_node_runs",
    "Runs whose end the server does not have, by state; UNDELIVERED have ended.",
    (*_HERE, "state"),
)
DELIVERED = Metric(
    "folkmoot_node_runs_delivered_total", "Runs whose end the server has, by outcome.", (*_HERE, "outcome")
)
REPEATED = Metric("folkmoot_node_runs_repeated_total", "Of those delivered, second and later attempts.", _HERE)
QUEUE_SECONDS = Metric("folkmoot_node_run_queue_seconds", "From the acceptance of a run to its start.", _HERE)
RUN_SECONDS = Metric("folkmoot_node_run_seconds", "From the start of a run to its end.", _HERE)
BYTES_OUT = Metric(
    "folkmoot_node_run_bytes_total", "Bytes that runs let leave: results, messages, logs, counted at delivery.", _HERE
)
SLOTS = Metric("folkmoot_node_slots", "Slots for runs, by kind.", (*_HERE, "kind"))
SLOTS_FREE = Metric("folkmoot_node_slots_free", "Slots that nobody holds, by kind.", (*_HERE, "kind"))
SLOTS_AWAITED = Metric("folkmoot_node_slots_awaited", "Runs that wait for a slot, by kind.", (*_HERE, "kind"))
LEDGER = Metric("folkmoot_node_ledger_sequence", "The newest entry of the verified ledger.", _HERE)
DISK_FREE = Metric("folkmoot_node_disk_free_bytes", "What is free on the disk of the station's folder.", _HERE)
BUILD = Metric("folkmoot_node_build_info", "The release that runs; always 1.", ("version",))
METRICS = (
    ATTACHED,
    SESSIONS,
    FAILURES,
    RUNS,
    DELIVERED,
    REPEATED,
    QUEUE_SECONDS,
    RUN_SECONDS,
    BYTES_OUT,
    SLOTS,
    SLOTS_FREE,
    SLOTS_AWAITED,
    LEDGER,
    DISK_FREE,
    BUILD,
)


class Metrics:
    """The metrics of one node, on a port of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._watched: list[tuple[Station, Link]] = []
        self._exposition = exposition = Exposition(BUILD, version("folkmoot"))
        self._delivered = exposition.counter(DELIVERED)
        self._repeated = exposition.counter(REPEATED)
        self._bytes_out = exposition.counter(BYTES_OUT)
        self._queue_seconds = exposition.histogram(QUEUE_SECONDS, BUCKETS)
        self._run_seconds = exposition.histogram(RUN_SECONDS, BUCKETS)
        exposition.ask(self)

    def serve(self, listen: str) -> str:
        """Serve on host:port; return it, with the port that was taken."""
        return self._exposition.serve(listen)

    async def close(self) -> None:
        """Serve no more."""
        await self._exposition.close()

    def watch(self, station: "Station", link: "Link") -> None:
        """Tell of this station, too."""
        name = _name(station)
        for counting in (self._repeated, self._bytes_out, self._queue_seconds, self._run_seconds):
            counting.labels(name)  # there from the beginning, with nothing in it: a rate needs both
        self._watched.append((station, link))

    def delivered(self, station: "Station", record: RunRecord) -> None:
        """Count a run whose end the server has."""
        name = _name(station)
        self._delivered.labels(name, state_name(record.state)).inc()
        self._bytes_out.labels(name).inc(record.bytes_out)
        if record.attempt > 1:
            self._repeated.labels(name).inc()
        if record.started_at_us:
            self._queue_seconds.labels(name).observe(_seconds(record.accepted_at_us, record.started_at_us))
            self._run_seconds.labels(name).observe(_seconds(record.started_at_us, record.ended_at_us))

    # ---- what is looked up when it is asked for ----------------------------------------------------------------------

    def describe(self) -> Iterator["Sample"]:
        """Name what `collect` gives, without looking."""
        return iter(())

    def collect(self) -> Iterator["Sample"]:
        """Give what is asked for at each scrape. Called in the thread that serves."""
        stations = {_name(station): (station, link) for station, link in self._watched}
        yield gauge(ATTACHED, {(name,): link.is_attached for name, (_, link) in stations.items()})
        yield counter(SESSIONS, {(name,): link.sessions for name, (_, link) in stations.items()})
        yield counter(FAILURES, {(name,): link.failures for name, (_, link) in stations.items()})
        kinds = {
            (name, kind): slots
            for name, (station, _) in stations.items()
            for kind, slots in (("run", station.slots), ("central", station.central_slots))
        }
        yield gauge(SLOTS, {labels: slots.number for labels, slots in kinds.items()})
        yield gauge(SLOTS_FREE, {labels: slots.free for labels, slots in kinds.items()})
        yield gauge(SLOTS_AWAITED, {labels: slots.awaited for labels, slots in kinds.items()})
        positions: dict[tuple[str, ...], float] = {
            (name,): station.state.position.sequence
            for name, (station, _) in stations.items()
            if station.replica.state is not None
        }
        yield gauge(LEDGER, positions)
        yield gauge(DISK_FREE, {(name,): _free_bytes(station) for name, (station, _) in stations.items()})
        yield gauge(
            RUNS,
            {
                (name, state): number
                for name, (station, _) in stations.items()
                for state, number in self._runs(station).items()
            },
        )

    def _runs(self, station: "Station") -> dict[str, int]:
        """How many runs are in which state, by the journal; nothing if it does not answer in time."""
        looking = asyncio.run_coroutine_threadsafe(station.journal.transact(_runs_by_state), self._loop)
        with suppress(Exception):  # what can be told without the journal is told
            return looking.result(LOOKED_FOR_SECONDS)
        looking.cancel()
        return {}


def _runs_by_state(connection: sqlite3.Connection) -> dict[str, int]:
    found = dict.fromkeys((*map(state_name, OPEN_STATES), UNDELIVERED), 0)
    query = "SELECT state, count(*) FROM runs WHERE committed_at_us = 0 GROUP BY state"
    for state, number in connection.execute(query):
        found[UNDELIVERED if state >= FIRST_TERMINAL else state_name(state)] += number
    return found


def _name(station: "Station") -> str:
    return str(station.config.collaboration)


def _seconds(began_at_us: int, ended_at_us: int) -> float:
    """How long something took. A clock that was set back makes it take no time, and not less."""
    return max(0, ended_at_us - began_at_us) / 1_000_000


def _free_bytes(station: "Station") -> int:
    return shutil.disk_usage(station.directory).free
