"""Metrics, for Prometheus: how they are called, what they count, and the port that serves them.

Only a server that is told to (`metrics_listen`) imports the library. Metrics name methods, states and codes; no person, no
organization, no task. Those of the whole database are the same at every instance that shares it: take their maximum, not
their sum.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, select

from folkmoot.server.audit import chain
from folkmoot.server.core import Core
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.observation.health import Health
from folkmoot.server.observation.observing import Ended
from folkmoot.server.observation.totals import Totals, Used
from folkmoot.server.store.tables import IS_UNCHAINED, events
from folkmoot.server.store.task_tables import IS_OPEN, runs
from folkmoot.server.tasks.states import TERMINAL
from folkmoot.transport.metrics import Exposition, Metric, counter, gauge
from folkmoot.v1.task_pb2 import RunState

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Sample

LOOKED_FOR_SECONDS = 10.0
"""How long a scrape waits for the database, before it goes without."""
OPEN_STATES = tuple(
    state for state in RunState.values() if state not in TERMINAL and state != RunState.RUN_STATE_UNSPECIFIED
)
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


CALLS = Metric("folkmoot_calls_total", "Calls that have ended, by method and status code.", ("method", "code"))
CALL_SECONDS = Metric(
    "folkmoot_call_seconds", "How long calls took, by method; streams while they lasted.", ("method",)
)
NODES_ATTACHED = Metric("folkmoot_nodes_attached", "Nodes that are attached to this instance.")
DEPENDENCY_UP = Metric(
    "folkmoot_dependency_up", "Whether what this instance needs was there when it last looked.", ("dependency",)
)
STORE_QUEUED = Metric("folkmoot_store_queued", "Operations that wait for a thread of the store.", ("lane",))
RUNS_OPEN = Metric("folkmoot_runs_open", "Runs that have not ended, by state; of the whole database.", ("state",))
RUNS_ENDED = Metric("folkmoot_runs_ended_total", "Runs that have ended; of the whole database.")
RUN_SECONDS = Metric("folkmoot_run_seconds_total", "Running time of runs that have ended; of the whole database.")
BYTES = Metric("folkmoot_payload_bytes_total", "Sealed bytes, by direction; of the whole database.", ("direction",))
EVENTS = Metric("folkmoot_events_total", "Events that are chained; of the whole database.")
EVENTS_UNCHAINED = Metric("folkmoot_events_unchained", "Events that wait to be chained; of the whole database.")
BUILD = Metric("folkmoot_build_info", "The release that runs; always 1.", ("version",))
METRICS = (
    CALLS,
    CALL_SECONDS,
    NODES_ATTACHED,
    DEPENDENCY_UP,
    STORE_QUEUED,
    RUNS_OPEN,
    RUNS_ENDED,
    RUN_SECONDS,
    BYTES,
    EVENTS,
    EVENTS_UNCHAINED,
    BUILD,
)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database says."""

    open_runs: dict[str, int]
    used: Used
    events_chained: int
    events_unchained: int


def _look(connection: Connection, used: Used) -> _Found:
    by_state = dict.fromkeys(OPEN_STATES, 0)  # a state that nobody is in is told, too: a series that ends is no zero
    for state, number in connection.execute(select(runs.c.state, func.count()).where(IS_OPEN).group_by(runs.c.state)):
        by_state[state] = number
    waiting = connection.execute(select(func.count()).select_from(events).where(IS_UNCHAINED)).scalar_one()
    return _Found(
        open_runs={RunState.Name(state).removeprefix("RUN_STATE_"): number for state, number in by_state.items()},
        used=used,
        events_chained=chain.head(connection).position,
        events_unchained=waiting,
    )


class Metrics:
    """The metrics of one server. Observes calls; serves all of it on a port of its own."""

    def __init__(self, core: Core, dispatch: Dispatch, health: Health, *, version: str) -> None:
        self._core = core
        self._dispatch = dispatch
        self._health = health
        self._totals = Totals()
        self._loop = asyncio.get_running_loop()
        self._exposition = Exposition(BUILD, version)
        self._calls = self._exposition.counter(CALLS)
        self._seconds = self._exposition.histogram(CALL_SECONDS, BUCKETS)
        self._exposition.ask(self)

    def ended(self, call: Ended) -> None:
        """Count a call."""
        self._calls.labels(call.method, call.code).inc()
        self._seconds.labels(call.method).observe(call.seconds)

    def serve(self, listen: str) -> str:
        """Serve on host:port; return it, with the port that was taken."""
        return self._exposition.serve(listen)

    async def close(self) -> None:
        """Serve no more."""
        await self._exposition.close()

    # ---- what is looked up when it is asked for ----------------------------------------------------------------------

    def describe(self) -> Iterator["Sample"]:
        """Name what `collect` gives, without looking."""
        return iter(())

    def collect(self) -> Iterator["Sample"]:
        """Give what is asked for at each scrape. Called in the thread that serves."""
        yield gauge(NODES_ATTACHED, {(): len(self._dispatch.link_ids)})
        yield gauge(DEPENDENCY_UP, {(name,): is_there for name, is_there in self._health.dependencies.items()})
        yield gauge(STORE_QUEUED, {(lane,): number for lane, number in self._core.store.queued.items()})
        looking = asyncio.run_coroutine_threadsafe(self._core.store.read(self._look), self._loop)
        try:
            found = looking.result(LOOKED_FOR_SECONDS)
        except Exception:  # noqa: BLE001 -- what can be told without the database is told
            looking.cancel()
            return
        yield gauge(RUNS_OPEN, {(state,): number for state, number in found.open_runs.items()})
        yield counter(RUNS_ENDED, {(): found.used.runs_asked_for})
        yield counter(RUN_SECONDS, {(): found.used.run_milliseconds / 1000})
        yield counter(BYTES, {("stored",): found.used.bytes_stored, ("fetched",): found.used.bytes_fetched})
        yield counter(EVENTS, {(): found.events_chained})
        yield gauge(EVENTS_UNCHAINED, {(): found.events_unchained})

    def _look(self, connection: Connection) -> _Found:
        return _look(connection, self._totals.look(connection, self._core.clock()))
