"""Limit of container runs: an engine alone creates, starts, awaits and removes containers, as many side by side as asked for.

The containers are of the image that the runs have, confined by the host config that the runs get, and only import grpc,
which every algorithm does before it can speak to its proxy.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.limits.cold_round_trip import PROGRAM
from bench.limits.common import Figure

USER = "65532:65532"


def measure(image: str, host_config: Mapping[str, Any], *, containers: int = 1, repetitions: int = 5) -> Figure:
    """Milliseconds until the last of `containers` is removed.

    Raises docker.errors.DockerException without an engine, RuntimeError when the image can't run the command.
    """
    docker: Any = importlib.import_module("docker")  # it ships no types
    engine = docker.APIClient(version="auto", max_pool_size=containers, **docker.utils.kwargs_from_env())
    totals: list[float] = []
    with ThreadPoolExecutor(containers) as threads:
        for _ in range(1 + repetitions):
            started = time.perf_counter()
            list(threads.map(lambda _: _run_one(engine, image, host_config), range(containers)))
            totals.append((time.perf_counter() - started) * 1e3)
    engine.close()
    return Figure("container runs", "ms", tuple(totals[1:]), {"image": image, "containers": containers})


def _run_one(engine: Any, image: str, host_config: Mapping[str, Any]) -> None:
    entrypoint, *arguments = PROGRAM
    name = engine.create_container(
        image,
        arguments,
        entrypoint=[entrypoint],
        user=USER,
        host_config=dict(host_config),
        healthcheck={"test": ["NONE"]},
    )["Id"]
    try:
        engine.start(name)
        status = engine.wait(name)["StatusCode"]
    finally:
        engine.remove_container(name, force=True, v=True)
    if status != 0:
        raise RuntimeError(f"{image}: {' '.join(PROGRAM)} ended with status {status}; does the image have grpcio?")
