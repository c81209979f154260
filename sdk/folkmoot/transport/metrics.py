"""Metrics for Prometheus, as server and node serve them: what a metric is called, and the port on which it is read.

The library is imported by who makes an Exposition, and never else. Metrics name methods, states and codes; no person, no
organization, no task, and nothing that people write: so there are as many series as there are states, whatever happens.
"""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Sample

SETTING = "metrics_listen"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name as Prometheus knows it, what it says, by what it is told apart."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


class Source(Protocol):
    """Looks things up when they are asked for."""

    def describe(self) -> Iterator["Sample"]:
        """Name what `collect` gives, without looking."""

    def collect(self) -> Iterator["Sample"]:
        """Give what is asked for at each scrape. Called in the thread that serves."""


class Exposition:
    """A registry of metrics, and the port that serves it. Raises INVALID_FIELD where the library is missing."""

    def __init__(self, build: Metric, version: str) -> None:
        try:
            import prometheus_client
        except ImportError as error:
            raise _wrong("it needs a library that is not installed: pip install 'folkmoot[metrics]'") from error
        self._registry = prometheus_client.CollectorRegistry()
        self._server: Any = None
        prometheus_client.ProcessCollector(registry=self._registry)
        prometheus_client.Gauge(build.name, build.help, build.labels, registry=self._registry).labels(version).set(1)

    def counter(self, metric: Metric) -> Any:
        """Return a counter, to be added to."""
        import prometheus_client

        return prometheus_client.Counter(metric.name, metric.help, metric.labels, registry=self._registry)

    def histogram(self, metric: Metric, buckets: tuple[float, ...]) -> Any:
        """Return a histogram, to be told of what was observed."""
        import prometheus_client

        return prometheus_client.Histogram(
            metric.name, metric.help, metric.labels, buckets=buckets, registry=self._registry
        )

    def ask(self, source: Source) -> None:
        """Ask this source, too, at each scrape."""
        self._registry.register(source)

    def serve(self, listen: str) -> str:
        """Serve on host:port, in a thread; return host:port, with the port that was taken."""
        import prometheus_client

        host, _, port = listen.rpartition(":")
        try:
            self._server, _ = prometheus_client.start_http_server(
                int(port), host.strip("[]") or "127.0.0.1", registry=self._registry
            )
        except (OSError, ValueError, OverflowError) as error:
            raise _wrong(f"'{listen}' can't be listened on: {error}") from error
        return f"{host}:{self._server.server_port}"

    async def close(self) -> None:
        """Serve no more. A scrape that is under way may need the event loop to end."""
        if self._server is not None:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()


def gauge(metric: Metric, values: Mapping[tuple[str, ...], float]) -> "Sample":
    """Return what a gauge says, by the values of its labels."""
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def counter(metric: Metric, values: Mapping[tuple[str, ...], float]) -> "Sample":
    """Return what a counter says, by the values of its labels."""
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _wrong(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"{SETTING}: {text}", violations=((SETTING, text),))
