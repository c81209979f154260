"""What the pooled data says: the answers that the demo's federated results must equal.

Computed with other people's software wherever there is some (lifelines for Kaplan-Meier), never with the code under test.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from folkmoot.cli.demo.data import Row

TOLERANCE = 1e-9


@dataclass(frozen=True)
class Curve:
    """A Kaplan-Meier curve: survival probability and patients at risk at each distinct time (days)."""

    times: Sequence[float]
    survival: Sequence[float]
    at_risk: Sequence[int]


def average(rows: Sequence[Row], column: str) -> float:
    """The mean of a column's values; missing ones don't count."""
    values = [float(row[column]) for row in rows if row[column]]
    return sum(values) / len(values)


def survival(rows: Sequence[Row], time: str, event: str) -> Curve:
    """lifelines' Kaplan-Meier estimate. `event` is 1 for patients who died, 0 for those lost from sight."""
    from lifelines import KaplanMeierFitter

    fitter = KaplanMeierFitter().fit([float(row[time]) for row in rows], [int(float(row[event])) for row in rows])
    table = fitter.event_table
    curve = fitter.survival_function_["KM_estimate"]
    later = [moment for moment in curve.index if moment > 0]
    return Curve(
        times=[float(moment) for moment in later],
        survival=[float(curve[moment]) for moment in later],
        at_risk=[int(table.at_risk[moment]) for moment in later],
    )


def equal(ours: float, pooled: float) -> bool:
    """Whether two numbers agree to the tolerance, relative to their size."""
    return abs(ours - pooled) <= TOLERANCE * max(1.0, abs(pooled))


def equal_curves(ours: Curve, pooled: Curve) -> bool:
    """Whether two curves agree at every time."""
    return (
        list(ours.times) == list(pooled.times)
        and list(ours.at_risk) == list(pooled.at_risk)
        and all(equal(mine, theirs) for mine, theirs in zip(ours.survival, pooled.survival, strict=True))
    )
