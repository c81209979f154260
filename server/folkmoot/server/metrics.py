"""Metrics, for Prometheus: how they are called, what they count, and the port that serves them.

Only a server that is told to (`metrics_listen`) imports the library. Metrics name methods, states and codes; no person, no
organization, no task. Those of the whole database are the same at every instance that shares it: take their maximum, not
their sum.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, func, select

from folkmoot.server import event_chain
from folkmoot.server.config_rules import host_and_port
from folkmoot.server.core import Core
from folkmoot.server.dispatch import Dispatch
from folkmoot.server.observing import Ended
from folkmoot.server.store.tables import IS_UNCHAINED, events, usage
from folkmoot.server.store.task_tables import IS_OPEN, runs
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.task_pb2 import RunState

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Sample

LOOKED_FOR_SECONDS = 10.0
"""How long a scrape waits for the database, before it goes without."""
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name as Prometheus knows it, what it says, by what it is told apart."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


CALLS = Metric("folkmoot_calls_total", "Calls that have ended, by method and status code.", ("method", "code"))
CALL_SECONDS = Metric(
    "folkmoot_call_seconds", "How long calls took, by method; streams while they lasted.", ("method",)
)
NODES_ATTACHED = Metric("folkmoot_nodes_attached", "Nodes that are attached to this instance.")
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
    runs_ended: int
    run_milliseconds: int
    bytes_stored: int
    bytes_fetched: int
    events_chained: int
    events_unchained: int


def _look(connection: Connection) -> _Found:
    by_state = connection.execute(select(runs.c.state, func.count()).where(IS_OPEN).group_by(runs.c.state))
    columns = usage.c.runs_asked_for, usage.c.run_milliseconds, usage.c.bytes_stored, usage.c.bytes_fetched
    used = connection.execute(select(*(func.coalesce(func.sum(column), 0) for column in columns))).one()
    ended, milliseconds, stored, fetched = (int(number) for number in used)
    waiting = connection.execute(select(func.count()).select_from(events).where(IS_UNCHAINED)).scalar_one()
    return _Found(
        open_runs={RunState.Name(state).removeprefix("RUN_STATE_"): number for state, number in by_state},
        runs_ended=ended,
        run_milliseconds=milliseconds,
        bytes_stored=stored,
        bytes_fetched=fetched,
        events_chained=event_chain.head(connection).position,
        events_unchained=waiting,
    )


class Metrics:
    """The metrics of one server. Observes calls; serves all of it on a port of its own."""

    def __init__(self, core: Core, dispatch: Dispatch, *, version: str) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise _lacking() from error
        self._core = core
        self._dispatch = dispatch
        self._loop = asyncio.get_running_loop()
        self._registry = prometheus_client.CollectorRegistry()
        self._calls = prometheus_client.Counter(CALLS.name, CALLS.help, CALLS.labels, registry=self._registry)
        self._seconds = prometheus_client.Histogram(
            CALL_SECONDS.name, CALL_SECONDS.help, CALL_SECONDS.labels, buckets=BUCKETS, registry=self._registry
        )
        build = prometheus_client.Gauge(BUILD.name, BUILD.help, BUILD.labels, registry=self._registry)
        build.labels(version).set(1)
        prometheus_client.ProcessCollector(registry=self._registry)
        self._registry.register(self)
        self._server: Any = None

    def ended(self, call: Ended) -> None:
        """Count a call."""
        self._calls.labels(call.method, call.code).inc()
        self._seconds.labels(call.method).observe(call.seconds)

    def serve(self, listen: str) -> str:
        """Serve on host:port, in a thread; return host:port, with the port that was taken."""
        import prometheus_client

        host, port = host_and_port(listen)
        try:
            self._server, _ = prometheus_client.start_http_server(port, host, registry=self._registry)
        except OSError as error:
            text = f"the address {listen} can't be listened on: {error}"
            raise FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"metrics_listen: {text}") from error
        return f"{host}:{self._server.server_port}"

    async def close(self) -> None:
        """Serve no more. A scrape that is under way may need the event loop to end."""
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()

    # ---- what is looked up when it is asked for ----------------------------------------------------------------------

    def describe(self) -> Iterator["Sample"]:
        """Name what `collect` gives, without looking."""
        return iter(())

    def collect(self) -> Iterator["Sample"]:
        """Give what is asked for at each scrape. Called in the thread that serves."""
        yield _gauge(NODES_ATTACHED, {(): len(self._dispatch.link_ids)})
        yield _gauge(STORE_QUEUED, {(lane,): number for lane, number in self._core.store.queued.items()})
        looking = asyncio.run_coroutine_threadsafe(self._core.store.read(_look), self._loop)
        try:
            found = looking.result(LOOKED_FOR_SECONDS)
        except Exception:  # noqa: BLE001 -- what can be told without the database is told
            looking.cancel()
            return
        yield _gauge(RUNS_OPEN, {(state,): number for state, number in found.open_runs.items()})
        yield _counter(RUNS_ENDED, {(): found.runs_ended})
        yield _counter(RUN_SECONDS, {(): found.run_milliseconds / 1000})
        yield _counter(BYTES, {("stored",): found.bytes_stored, ("fetched",): found.bytes_fetched})
        yield _counter(EVENTS, {(): found.events_chained})
        yield _gauge(EVENTS_UNCHAINED, {(): found.events_unchained})


def _gauge(metric: Metric, values: dict[tuple[str, ...], float]) -> "Sample":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, values: dict[tuple[str, ...], float]) -> "Sample":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _lacking() -> FolkmootError:
    text = "metrics_listen needs a library that is not installed: pip install 'folkmoot[metrics]'"
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, text)
