"""Tests: how long `make test` takes, stage by stage. Measured only when asked for, with `--only tests`."""

from __future__ import annotations

import subprocess
import sys

from bench.context import Context
from bench.limits.common import REPOSITORY, seconds
from bench.report import Budget, Row, at_most

ONLY_WHEN_ASKED = True
UNIT = "unit"
"""The stage that has a budget of its own."""


def measure(_context: Context) -> list[Row]:
    stages = sorted(folder.name for folder in (REPOSITORY / "tests").iterdir() if any(folder.rglob("test_*.py")))
    taken = {stage: seconds(lambda stage=stage: _run(stage)) for stage in stages}  # type: ignore[misc]
    rows = [_row(stage, lasted, (at_most(20),) if stage == UNIT else ()) for stage, lasted in taken.items()]
    return [*rows, _row("all", sum(taken.values()), (at_most(600),))]


def _row(stage: str, lasted: float, budgets: tuple[Budget, ...]) -> Row:
    return Row(f"tests: {stage}", "s", lasted, budgets=budgets, peers="vantage6: minutes for one file")


def _run(stage: str) -> None:
    command = [sys.executable, "-m", "pytest", "--quiet", f"tests/{stage}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"tests/{stage} failed:\n{done.stdout[-2000:]}")
