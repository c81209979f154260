"""Kaplan-Meier survival over organizations: each gives counts per time, never a row.

Equal to the estimate on the pooled data (Kaplan and Meier, 1958), because that needs nothing but the counts: how many had
the event at a time, how many were lost from sight at it, and so how many were still at risk.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from folkmoot.algorithm import Context, central, partial

Counts = Mapping[str, Mapping[str, list[float]]]
"""By stratum: `times`, and at each of them the number of `events` and of `censored`. The stratum is "" if there is only one."""


@central(tables=1, columns=["$time", "$event", "$by"])
def survival(
    ctx: Context,
    time: str,
    event: str,
    by: str | None = None,
    at: list[float] | None = None,
    organizations: list[str] | None = None,
) -> dict[str, Any]:
    """Return the survival curve: `times`, and at each of them `survival`, `at_risk`, `events`, `censored`.

    `time` is the column of durations; `event` the column that is 1 where the event was seen and 0 where the row was censored. With the
    column `by`, there is a curve for each of its values, by that value as text. With the times `at`, each curve also
    tells the numbers `at_risk_at` them. Rows without a time, an event or a stratum do not count.
    """
    task = ctx.subtask("count_events", {"time": time, "event": event, "by": by}, organizations)
    strata = pool(result.value for result in task.results())
    curves = {stratum: curve(events, censored, at) for stratum, (events, censored) in sorted(strata.items())}
    return curves if by is not None else curves.get("", curve(Counter(), Counter(), at))


@partial(tables=1, columns=["$time", "$event", "$by"])
def count_events(ctx: Context, time: str, event: str, by: str | None = None) -> Counts:
    """Return how many rows had the event, and how many were censored, at each distinct time."""
    table = ctx.table(ctx.labels[0], columns=list(dict.fromkeys([time, event] + ([by] if by else []))))
    strata = table.column(by) if by else [""] * len(table)
    events: dict[str, Counter[float]] = {}
    censored: dict[str, Counter[float]] = {}
    for stratum, moment, seen in zip(strata, table.column(time), table.column(event), strict=True):
        if stratum is None or moment is None or seen is None:
            continue
        if seen not in (0, 1):
            raise ValueError(f"the column {event} holds {seen!r}: it must be 1 (event) or 0 (censored)")
        counted = events if seen else censored
        counted.setdefault(str(stratum), Counter())[moment] += 1
    return {stratum: _counts(events.get(stratum, {}), censored.get(stratum, {})) for stratum in {*events, *censored}}


def pool(parts: Iterable[Counts]) -> dict[str, tuple[Counter[float], Counter[float]]]:
    """Add up what organizations counted: events and censored by time, for each stratum."""
    strata: dict[str, tuple[Counter[float], Counter[float]]] = {}
    for part in parts:
        for stratum, counts in part.items():
            events, censored = strata.setdefault(stratum, (Counter(), Counter()))
            events.update(dict(zip(counts["times"], counts["events"], strict=True)))
            censored.update(dict(zip(counts["times"], counts["censored"], strict=True)))
    return strata


def curve(
    events: Counter[float], censored: Counter[float], at: Iterable[float] | None = None
) -> dict[str, list[float]]:
    """Return the Kaplan-Meier estimate for the numbers of events and censored rows by time."""
    left = [events[moment] + censored[moment] for moment in sorted({*events, *censored})]
    result = {**_counts(events, censored), "survival": [], "at_risk": []}
    at_risk, alive = sum(left), 1.0
    for happened, leaving in zip(result["events"], left, strict=True):
        alive *= 1 - happened / at_risk
        result["survival"].append(alive)
        result["at_risk"].append(at_risk)
        at_risk -= leaving
    if at is not None:
        result["at_risk_at"] = [
            sum(number for moment, number in zip(result["times"], left, strict=True) if moment >= asked) for asked in at
        ]
    return result


def _counts(events: Mapping[float, int], censored: Mapping[float, int]) -> dict[str, list[float]]:
    times = sorted({*events, *censored})
    return {
        "times": times,
        "events": [events.get(moment, 0) for moment in times],
        "censored": [censored.get(moment, 0) for moment in times],
    }
