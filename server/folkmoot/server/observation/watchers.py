"""Who takes notice of calls, as the settings say: metrics, traces. What nobody asks for is not even imported."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from folkmoot.server.core import Core
from folkmoot.server.nodes.dispatch import Dispatch
from folkmoot.server.observation.health import Health
from folkmoot.server.observation.observing import Observer


@dataclass(frozen=True, slots=True)
class Watchers:
    """What takes notice, and where its metrics are read."""

    observers: tuple[Observer, ...]
    metrics_address: str
    """host:port, with the port that was taken; empty: nowhere."""


def begin(core: Core, dispatch: Dispatch, health: Health, parts: AsyncExitStack, *, version: str) -> Watchers:
    """Take notice from now on, until `parts` ends. Raises INVALID_FIELD for settings that can't be followed."""
    observers: list[Observer] = []
    metrics_address = ""
    if core.config.traces:
        from folkmoot.server.observation.traces import CallTraces
        from folkmoot.transport.tracing import Tracer

        tracer = Tracer(core.config.traces, service="folkmoot-server", one_in=core.config.traces_one_in)
        parts.push_async_callback(asyncio.to_thread, tracer.close)
        observers.append(CallTraces(tracer))
    if core.config.metrics_listen:
        from folkmoot.server.observation.metrics import Metrics

        metrics = Metrics(core, dispatch, health, version=version)
        parts.push_async_callback(metrics.close)
        metrics_address = metrics.serve(core.config.metrics_listen)
        core.log.info("metrics.served", address=metrics_address)
        observers.append(metrics)
    return Watchers(tuple(observers), metrics_address)
