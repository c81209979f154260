"""Limit of the cold round trip: the engine creates, starts, awaits and removes three containers side by side.

The containers are hardened as a run's are (no network, read-only root, no capabilities, no new privileges, limits,
non-root user) and only import grpc, which every algorithm does before it can speak to its proxy.
Where an engine starts one plain python in 186 ms, three take 0.32 s on two cores, and 0.4 s with the import.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bench.limits.common import Figure, print_figures

PROGRAM = ("python3", "-c", "import grpc, os; os._exit(0)")


@dataclass(frozen=True, slots=True)
class _Life:
    """Seconds that one container spent in each engine call, and when its exit was seen."""

    create: float
    start: float
    wait: float
    remove: float
    exit_seen_at: float


def measure(image: str, *, containers: int = 3, command: tuple[str, ...] = PROGRAM, repetitions: int = 10) -> Figure:
    """Milliseconds until the last of `containers` is removed; needs an engine that has `image`.

    Raises docker.errors.DockerException without an engine, RuntimeError when the image can't run the command.
    """
    docker: Any = importlib.import_module("docker")  # it ships no types
    engine = docker.from_env()
    totals: list[float] = []
    exits: list[float] = []
    lives: list[_Life] = []
    with ThreadPoolExecutor(containers) as threads:
        for repetition in range(repetitions + 1):
            started = time.perf_counter()
            together = list(threads.map(lambda _: _run_one(engine, image, command), range(containers)))
            finished = time.perf_counter()
            if repetition == 0:
                continue
            totals.append((finished - started) * 1e3)
            exits.append((max(life.exit_seen_at for life in together) - started) * 1e3)
            lives.extend(together)
    engine.close()
    detail: dict[str, float | int | str] = {
        "image": image,
        "containers": containers,
        "until_last_exit_ms": statistics.median(exits),
    }
    for phase in ("create", "start", "wait", "remove"):
        detail[f"{phase}_ms"] = statistics.median(getattr(life, phase) for life in lives) * 1e3
    return Figure("cold round trip", "ms", tuple(totals), detail)


def _run_one(engine: Any, image: str, command: tuple[str, ...]) -> _Life:
    marks = [time.perf_counter()]
    container = engine.containers.create(
        image,
        list(command[1:]),
        entrypoint=list(command[:1]),  # in place of the image's own, if it has one
        network_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        pids_limit=256,
        mem_limit="512m",
        user="65532:65532",
        tmpfs={"/tmp": "size=64m"},
        log_config={"type": "none"},
    )
    try:
        marks.append(time.perf_counter())
        container.start()
        marks.append(time.perf_counter())
        status = container.wait()["StatusCode"]
        marks.append(time.perf_counter())
    finally:
        container.remove(force=True)
    marks.append(time.perf_counter())
    if status != 0:
        raise RuntimeError(f"{image}: {' '.join(command)} ended with status {status}; does the image have grpcio?")
    create, start, wait, remove = (after - before for before, after in pairwise(marks))
    return _Life(create, start, wait, remove, exit_seen_at=marks[3])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", required=True, help="an image whose python3 can import grpc")
    parser.add_argument("--repetitions", type=int, default=10)
    options = parser.parse_args()
    print_figures(measure(options.image, repetitions=options.repetitions))
