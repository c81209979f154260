"""Why the policy accepts or refuses a run: every condition by itself, as the decision weighs them. Pure.

Promises: an explanation says what `decide` says. A run is accepted if and only if no point of the station, of its limits and of its quotas
fails, and there is a rule of which none fails.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from folkmoot.node.policy.policy_file import Policy, Rule
from folkmoot.node.policy.verdict import CONDITIONS, Condition, Decision, Facts, decide

MEASURES = ("memory_bytes", "cpu_millis", "run_time_seconds")
NOT_SAID = "not said"
NOT_KNOWN = "what was used today is not known"


@dataclass(frozen=True)
class Point:
    """A key of the policy, and whether what it says holds for the run. None: that is not known."""

    key: str
    holds: bool | None
    asked: str = ""
    """What the run is, or wants, there."""


@dataclass(frozen=True)
class RulePoints:
    """A rule, point by point."""

    rule: str
    points: tuple[Point, ...]

    @property
    def covers(self) -> bool:
        """Whether the rule covers the run, as far as is known."""
        return all(point.holds is not False for point in self.points)


@dataclass(frozen=True)
class Explanation:
    """A decision, with everything that it rests on."""

    decision: Decision
    station: tuple[Point, ...]
    rules: tuple[RulePoints, ...]
    limits: tuple[Point, ...]
    quotas: tuple[Point, ...]

    @property
    def failing(self) -> Sequence[Point]:
        """Points beside the rules that fail."""
        return [point for point in (*self.station, *self.limits, *self.quotas) if point.holds is False]


def explain(facts: Facts, policy: Policy) -> Explanation:
    """Say why a run is accepted or refused."""
    return Explanation(
        decision=decide(facts, policy),
        station=tuple(_station(facts, policy)),
        rules=tuple(
            RulePoints(
                f"allow[{number}]",
                tuple(Point(each.name, _holds(each, facts, rule), _asked(each.name, facts)) for each in CONDITIONS),
            )
            for number, rule in enumerate(policy.allow)
        ),
        limits=tuple(_limits(facts, policy)),
        quotas=tuple(_quotas(facts, policy)),
    )


def _station(facts: Facts, policy: Policy) -> Iterable[Point]:
    yield Point("runtimes", facts.runtime in policy.runtimes, facts.runtime)
    yield Point("runtime of node.toml", facts.runtime == facts.station_runtime, facts.runtime)
    yield Point("data of node.toml", facts.offered_labels.issuperset(facts.labels), ", ".join(facts.labels) or "none")
    if policy.voted_list == "required":
        yield Point("voted_list", facts.voted, facts.image)


def _holds(condition: Condition, facts: Facts, rule: Rule) -> bool | None:
    if condition.name == "signers" and rule.signers and facts.image_signers is None:
        return None
    if condition.name == "functions" and facts.function is None and rule.functions != ("*",):
        return None
    return condition.holds(facts, rule)


def _asked(key: str, facts: Facts) -> str:
    """What a run is, under a key of a rule."""
    match key:
        case "images":
            return facts.image
        case "signers" if facts.image_signers is None:
            return NOT_SAID
        case "signers":
            return ", ".join(sorted(facts.image_signers or ())) or "nobody"
        case "initiators":
            return "; ".join(name or address for address, name in facts.initiators)
        case "users":
            return facts.user_id or NOT_SAID
        case "labels":
            return ", ".join(facts.labels) or "none"
        case "functions":
            return facts.function or NOT_SAID
        case "resource_classes":
            return facts.resource_class or "none"
        case _:
            return "wanted" if getattr(facts, key) else "not wanted"


def _limits(facts: Facts, policy: Policy) -> Iterable[Point]:
    name, limits = "limits", policy.limits
    if facts.resource_class:
        name = f"resource_classes.{facts.resource_class}"
        if facts.resource_class not in policy.resource_classes:
            yield Point(name, holds=False)
            return
        limits = policy.resource_classes[facts.resource_class]
    for measure in MEASURES:
        asked = getattr(facts, measure)
        yield Point(f"{name}.{measure}", asked <= getattr(limits, measure), f"{asked:,}" if asked else "no wish")


def _quotas(facts: Facts, policy: Policy) -> Iterable[Point]:
    used = facts.used_today
    for name, most, number in (
        ("runs_per_day", policy.quotas.runs_per_day, used.runs if used else None),
        ("bytes_out_per_day", policy.quotas.bytes_out_per_day, used.bytes_out if used else None),
    ):
        if most:
            yield Point(
                f"quotas.{name}",
                None if number is None else number < most,
                NOT_KNOWN if number is None else f"{number:,} used today",
            )
