"""Limit of a service at rest: a process that imported what it can't do without, and nothing else.

The server can't do without grpc and SQLAlchemy with its SQLite driver, the node not without grpc and sqlite3.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.limits.common import Child, Figure, print_figures, resident_mebibytes

SERVER_MODULES = ("grpc", "sqlalchemy", "sqlalchemy.dialects.sqlite.pysqlite")
NODE_MODULES = ("grpc", "sqlite3")


@dataclass(frozen=True, slots=True)
class AtRest:
    """Resident memory in MiB, and milliseconds from spawning the interpreter until the imports are done."""

    memory: Figure
    start: Figure


def measure(name: str, modules: Sequence[str], *, repetitions: int = 5) -> AtRest:
    """Import `modules` in fresh interpreters; `name` only labels the figures."""
    program = "".join(f"import {module}\n" for module in modules)
    program += "import sys\nsys.stdout.write('{}\\n')\nsys.stdout.flush()\nsys.stdin.read()\n"
    memory: list[float] = []
    start: list[float] = []
    for repetition in range(repetitions + 1):
        with Child("-c", program) as child:
            time.sleep(0.2)
            if repetition:
                memory.append(resident_mebibytes(child.pid))
                start.append(child.seconds_to_ready * 1e3)
    return AtRest(
        memory=Figure(f"{name} memory", "MiB", tuple(memory), {"modules": " ".join(modules)}),
        start=Figure(f"{name} start", "ms", tuple(start), {"modules": " ".join(modules)}),
    )


if __name__ == "__main__":
    for role, needed in (("server at rest", SERVER_MODULES), ("node at rest", NODE_MODULES)):
        figures = measure(role, needed)
        print_figures(figures.memory, figures.start)
