"""Rows and their verdicts, as an aligned text table and as JSON.

A row is passed when every one of its budgets is met. Ratios are ours / limit, both measured in the same run.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal, Self

from bench.limits.common import Detail, significant

Verdict = Literal["pass", "over", "skipped", "failed"]


class Bound(Enum):
    """How a budget limits a figure; the value is how the table prints it."""

    RATIO_AT_MOST = "<= {} x limit"
    RATIO_AT_LEAST = ">= {} x limit"
    AT_MOST = "<= {} {}"
    AT_LEAST = ">= {} {}"

    @property
    def is_ratio(self) -> bool:
        return self in {Bound.RATIO_AT_MOST, Bound.RATIO_AT_LEAST}

    @property
    def is_ceiling(self) -> bool:
        return self in {Bound.RATIO_AT_MOST, Bound.AT_MOST}


@dataclass(frozen=True, slots=True)
class Budget:
    """One condition on a row: on ours / limit for the ratio bounds, on ours in the row's unit for the others."""

    bound: Bound
    value: float

    def is_met(self, ours: float, limit: float | None) -> bool:
        """Raises ValueError for a ratio without a positive limit: such a row would pass or fail by accident."""
        figure = ours
        if self.bound.is_ratio:
            if not limit or limit <= 0:
                raise ValueError(f"a budget of '{self.text('')}' needs a positive limit, got {limit}")
            figure = ours / limit
        return figure <= self.value if self.bound.is_ceiling else figure >= self.value

    def text(self, unit: str) -> str:
        return self.bound.value.format(number(self.value), unit).rstrip()


def ratio_at_most(value: float) -> Budget:
    return Budget(Bound.RATIO_AT_MOST, value)


def ratio_at_least(value: float) -> Budget:
    return Budget(Bound.RATIO_AT_LEAST, value)


def at_most(value: float) -> Budget:
    return Budget(Bound.AT_MOST, value)


def at_least(value: float) -> Budget:
    return Budget(Bound.AT_LEAST, value)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the report. `ours` and `limit` are in `unit`; `peers` says what others reach on the same work."""

    name: str
    unit: str
    ours: float | None
    limit: float | None = None
    budgets: tuple[Budget, ...] = ()
    peers: str = ""
    note: str = ""
    error: str = ""
    detail: Mapping[str, Detail] = field(default_factory=dict)

    @classmethod
    def skipped(cls, name: str, why: str) -> Self:
        """A row that can't be measured here, for instance without a container engine."""
        return cls(name=name, unit="", ours=None, note=why)

    @classmethod
    def failed(cls, name: str, error: BaseException) -> Self:
        """A row whose measurement raised."""
        return cls(name=name, unit="", ours=None, error=f"{type(error).__name__}: {error}")

    @property
    def ratio(self) -> float | None:
        return self.ours / self.limit if self.ours is not None and self.limit else None

    @property
    def verdict(self) -> Verdict:
        """A row without a budget passes: it is there for information."""
        if self.error:
            return "failed"
        if self.ours is None:
            return "skipped"
        return "pass" if all(budget.is_met(self.ours, self.limit) for budget in self.budgets) else "over"

    @property
    def budget_text(self) -> str:
        return " and ".join(budget.text(self.unit) for budget in self.budgets)

    def as_record(self) -> dict[str, object]:
        def rounded(value: float | None) -> float | None:
            return None if value is None else significant(value)

        return {
            "name": self.name,
            "ours": rounded(self.ours),
            "limit": rounded(self.limit),
            "unit": self.unit,
            "ratio": rounded(self.ratio),
            "budget": self.budget_text,
            "verdict": self.verdict,
            "peers": self.peers,
            "note": self.note,
            "error": self.error,
            "detail": dict(self.detail),
        }


def number(value: float | None) -> str:
    """Four significant digits, thousands separated, no trailing zeros; a dash for nothing."""
    if value is None:
        return "-"
    rounded = significant(value)
    return f"{rounded:,.0f}" if rounded == int(rounded) else f"{rounded:,}"


def render_table(header: Sequence[str], lines: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> str:
    """Columns as wide as their widest cell; those in `right` are aligned to the right."""
    widths = [max(len(line[column]) for line in (header, *lines)) for column in range(len(header))]

    def render(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join([render(header), "  ".join("-" * width for width in widths), *(render(line) for line in lines)])


def render_text(rows: Sequence[Row]) -> str:
    """The table, then the notes and errors, then the count of verdicts."""
    header = ("row", "ours", "limit", "unit", "ours/limit", "budget", "verdict", "peers")
    lines = [
        (
            row.name,
            number(row.ours),
            number(row.limit),
            row.unit,
            f"{row.ratio:.2f}" if row.ratio is not None else "-",
            row.budget_text,
            row.verdict,
            row.peers,
        )
        for row in rows
    ]
    remarks = [f"{row.name}: {row.error or row.note}" for row in rows if row.error or row.note]
    verdicts: tuple[Verdict, ...] = ("pass", "over", "skipped", "failed")
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in verdicts}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    parts = [render_table(header, lines, right=frozenset({1, 2, 4})), "\n".join(remarks), summary or "no rows"]
    return "\n\n".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a report was made; absolute figures mean little without it."""

    cpus: int
    memory_gib: float
    kernel: str
    python: str
    load_before: float

    @classmethod
    def here(cls) -> Self:
        return cls(
            cpus=len(os.sched_getaffinity(0)),
            memory_gib=significant(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), digits=3),
            kernel=platform.release(),
            python=platform.python_version(),
            load_before=round(os.getloadavg()[0], 2),
        )

    def text(self) -> str:
        told = f"{self.cpus} CPUs, {number(self.memory_gib)} GiB, Linux {self.kernel}, Python {self.python}"
        busy = self.load_before > self.cpus / 2
        return f"{told}\nThis machine was busy (load {self.load_before}): expect noise." if busy else told


def write_json(path: Path, machine: Machine, rows: Sequence[Row]) -> None:
    record = {
        "machine": {name: getattr(machine, name) for name in machine.__slots__},
        "rows": [row.as_record() for row in rows],
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
