"""What would become of a task: one verdict for each organization, asked before anything is created.

A verdict is a forecast, told over the server and signed by nobody. A node's promise is the receipt of a run that it executed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from folkmoot.client.limits import Limits, approval_text, release_text, size_text
from folkmoot.client.names import name_of
from folkmoot.client.waiting import waiting_text
from folkmoot.trust import State
from folkmoot.trust.reasons import reason_name, rule_of
from folkmoot.v1 import link_pb2
from folkmoot.v1.task_pb2 import TaskSpec


class Forecast(StrEnum):
    """What would become of a run."""

    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    UNREACHABLE = "UNREACHABLE"
    """No node of the organization is connected that could tell."""
    UNDECIDED = "UNDECIDED"
    """Its node did not say: it is busy, can't rely on its ledger, or is of a release that can't be asked."""


@dataclass(frozen=True)
class Verdict:
    """What one organization's node says would become of the run, and what it would be given."""

    organization: str
    organization_id: str
    node: str
    """The name of the node that says so; empty if none does."""
    forecast: Forecast
    reason: str
    """Why it would be refused (an ErrorReason), such as "FUNCTION_NOT_ALLOWED"; empty otherwise."""
    rule: str
    """The policy's rule that would refuse it, or that accepts it, such as "allow[0]"."""
    limits: Limits
    result_bytes: int
    """The largest result; 0: it does not say."""
    minimum_rows: int
    """The fewest rows that a read may give."""
    approval: str
    """When a person at the station would be asked before it starts: "never", "first use", "every run"."""
    release: str
    """Whether its result would leave by itself: "automatic", or "held" until a person has looked at it."""
    waiting: str
    """What it would wait for first, in words; empty: for nothing that the node knows of."""
    advice: str
    """What to do about a refusal."""

    @property
    def refused(self) -> bool:
        """Whether the node would refuse it."""
        return self.forecast is Forecast.REFUSED

    @property
    def text(self) -> str:
        """The verdict in words, without the organization's name."""
        match self.forecast:
            case Forecast.ACCEPTED:
                return "; ".join(filter(None, (f"would accept{_in_brackets(self.rule)}", *self._given())))
            case Forecast.REFUSED:
                why = f"{self.rule}{_in_brackets(self.reason)}" if self.rule else self.reason
                return ". ".join(filter(None, (f"would refuse: {why}", self.advice)))
            case Forecast.UNREACHABLE:
                return "can't be asked: no node of it is connected"
            case _:
                return "did not say: its node is busy, can't rely on its ledger, or is of a release that can't be asked"

    def _given(self) -> tuple[str, ...]:
        limits = str(self.limits)
        return (
            f"gives {limits}" if limits else "",
            f"results of at most {size_text(self.result_bytes)}" if self.result_bytes else "",
            f"reads of at least {self.minimum_rows} rows" if self.minimum_rows else "",
            "" if self.approval == "never" else f"a person approves ({self.approval})",
            "" if self.release == "automatic" else "a person looks at the result before it leaves",
            f"it {self.waiting}" if self.waiting else "",
        )

    def __str__(self) -> str:
        return f"{self.organization} {self.text}"


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def verdicts(told: Iterable[link_pb2.Verdict], spec: TaskSpec, state: State) -> list[Verdict]:
    """The verdicts on a task's runs, in their order; what was not asked for is left out, what is not told is undecided."""
    by_run = {one.run_id: one for one in told}
    undecided = link_pb2.Verdict(forecast=link_pb2.FORECAST_UNDECIDED)
    return [_verdict(by_run.get(one.run_id, undecided), one.organization_id, state) for one in spec.receivers]


def _verdict(told: link_pb2.Verdict, organization_id: str, state: State) -> Verdict:
    node = state.nodes.get(told.node_id)
    forecast = _FORECASTS.get(told.forecast, Forecast.UNDECIDED)
    is_refused = forecast is Forecast.REFUSED
    return Verdict(
        organization=name_of(state, organization_id),
        organization_id=organization_id,
        node=node.name if node and node.organization_id == organization_id else "",
        forecast=forecast,
        reason=reason_name(told.reason) if is_refused and told.reason else "",
        rule=told.rule,
        limits=Limits.of(told.limits),
        result_bytes=told.result_bytes,
        minimum_rows=told.minimum_rows,
        approval=approval_text(told.approval),
        release=release_text(told.release),
        waiting=waiting_text(told.waiting) if told.HasField("waiting") else "",
        advice=rule_of(told.reason).help if is_refused and told.reason else "",
    )


_FORECASTS = {value: Forecast(name.removeprefix("FORECAST_")) for name, value in link_pb2.Forecast.items() if value}
