"""The rows of the report: what Folkmoot reaches, beside its limit and its budget.

To add rows, add a module here. Nothing else needs to know of it. It has one public function:

    def measure(context: Context) -> list[Row]

which sets up what it needs, measures ours and the limit **in the same call** (limits are in `bench.limits`), tears
everything down again and returns finished rows. `--only` takes the module's name, so name the module after its rows.
What can't be measured here is returned as `Row.skipped(name, why)`; an exception becomes a failed row, and the
other modules still run. Modules whose name begins with an underscore are shared helpers, not rows. A module that says
`ONLY_WHEN_ASKED = True` is left out unless `--only` names it.

    def measure(context: Context) -> list[Row]:
        limit = delivery.measure()
        ours = ...
        return [Row("delivery", limit.unit, ours, limit.value, (at_most(5),), peers="vantage6 64 ms")]
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.context import Context
from bench.report import Row

Measure = Callable[[Context], list[Row]]


@dataclass(frozen=True, slots=True)
class RowModule:
    """What the command line needs to know of a row module."""

    measure: Measure
    only_when_asked: bool


def discover() -> Mapping[str, RowModule]:
    """All row modules by name, in alphabetical order. Raises AttributeError for one without `measure`."""
    found: dict[str, RowModule] = {}
    for listed in pkgutil.iter_modules(__path__):
        if not listed.name.startswith("_"):
            module = importlib.import_module(f"{__name__}.{listed.name}")
            found[listed.name] = RowModule(module.measure, getattr(module, "ONLY_WHEN_ASKED", False))
    return found
