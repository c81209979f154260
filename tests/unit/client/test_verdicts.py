"""Verdicts, limits and offers in words, whatever a server makes of them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from folkmoot.client.limits import Limits, approval_text, release_text, size_text, time_text
from folkmoot.client.offers import Offer, availability_text
from folkmoot.client.verdicts import Forecast, verdicts
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1 import link_pb2
from folkmoot.v1.task_pb2 import Resources, Waiting, WaitReason
from tests.builders import World, world


@pytest.fixture(scope="module")
def lung() -> World:
    return world()


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2 << 30, "2 GiB"), (2**64 - 1, "1.638e+04 PiB")],
)
def test_sizes(size: int, text: str):
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(seconds=5400), "1 h 30 min"),
        (timedelta(days=1, seconds=1), "1 d 1 s"),
        (timedelta(seconds=0.5), "0.5 s"),
    ],
)
def test_durations(duration: timedelta, text: str):
    assert time_text(duration) == text


def test_limits_in_words():
    assert str(Limits(0, 0, None)) == ""
    assert str(Limits(0, 0, None, "large")) == "large"
    assert (
        str(Limits(1 << 30, 1000, timedelta(minutes=1), "large"))
        == "large: 1 GiB of memory, 1 processor, 1 min of running time"
    )


def test_modes_of_earlier_and_later_releases():
    assert (approval_text(0), approval_text(99), approval_text(link_pb2.APPROVAL_MODE_FIRST_USE)) == (
        "never",
        "never",
        "first use",
    )
    assert (release_text(0), release_text(link_pb2.RELEASE_MODE_HELD)) == ("automatic", "held")
    assert (availability_text(0), availability_text(99), availability_text(link_pb2.AVAILABILITY_DRAINING)) == (
        "open",
        "open",
        "draining",
    )


def test_verdicts_are_of_the_runs_that_were_asked_about(lung: World):
    spec = lung.spec("Alpha", ("Beta", "Gamma"))
    beta, gamma = spec.receivers
    told = [
        link_pb2.Verdict(
            run_id=gamma.run_id, forecast=link_pb2.FORECAST_ACCEPTED, organization_id=beta.organization_id
        ),
        link_pb2.Verdict(run_id="nobody's", forecast=link_pb2.FORECAST_REFUSED),
    ]
    of_beta, of_gamma = verdicts(told, spec, lung.state)
    assert (of_beta.organization, of_beta.forecast) == ("Beta", Forecast.UNDECIDED)
    assert (of_gamma.organization, of_gamma.forecast) == ("Gamma", Forecast.ACCEPTED)


def test_node_of_another_organization_speaks_for_nobody(lung: World):
    spec = lung.spec("Alpha", ("Beta",))
    told = link_pb2.Verdict(run_id=spec.receivers[0].run_id, node_id=lung["Gamma"].nodes["gamma-1"].fingerprint)
    [verdict] = verdicts([told], spec, lung.state)
    assert verdict.node == ""


def test_refusals_name_the_rule_or_else_the_reason(lung: World):
    spec = lung.spec("Alpha", ("Beta",))
    told = link_pb2.Verdict(
        run_id=spec.receivers[0].run_id,
        forecast=link_pb2.FORECAST_REFUSED,
        reason=reasons.ERROR_REASON_ALGORITHM_NOT_VOTED,
    )
    [verdict] = verdicts([told], spec, lung.state)
    assert verdict.text.startswith("would refuse: ALGORITHM_NOT_VOTED. ")
    told.rule = "voted_list"
    [verdict] = verdicts([told], spec, lung.state)
    assert str(verdict).startswith("Beta would refuse: voted_list (ALGORITHM_NOT_VOTED). ")
    assert verdict.refused


def _resources(memory: int, cpu: int, seconds: int, name: str) -> Resources:
    told = Resources(memory_bytes=memory, cpu_millis=cpu, resource_class=name)
    told.run_time.seconds = seconds
    return told


numbers = some.integers(min_value=0, max_value=2**32 - 1)
resources = some.builds(
    _resources,
    some.integers(min_value=0, max_value=2**64 - 1),
    numbers,
    some.integers(min_value=-(2**63), max_value=2**63 - 1),
    some.text(max_size=8),
)


@given(limits=resources, mode=some.integers(min_value=-(2**31), max_value=2**31 - 1), waiting=numbers)
def test_whatever_is_told_can_be_read(lung: World, limits: Resources, mode: int, waiting: int):
    spec = lung.spec("Alpha", ("Beta",))
    told = link_pb2.Verdict(run_id=spec.receivers[0].run_id, limits=limits, rule="x", minimum_rows=waiting)
    told.MergeFromString(_numbered(told, ("forecast", "reason", "approval", "release"), mode))
    told.waiting.CopyFrom(Waiting(reason=WaitReason.WAIT_REASON_SLOT, detail="x"))
    [verdict] = verdicts([told], spec, lung.state)
    assert str(verdict).startswith("Beta ")
    summary = link_pb2.PolicySummary(limits=limits, resource_classes=[limits], slots=waiting)
    summary.MergeFromString(_numbered(summary, ("isolation", "approval", "release", "voted_list"), mode))
    assert dict(Offer.of(summary).lines())


def _numbered(message: link_pb2.Verdict | link_pb2.PolicySummary, fields: tuple[str, ...], value: int) -> bytes:
    """Enums with a number that this release may not know."""
    other = type(message)()
    for field in fields:
        setattr(other, field, value)
    return other.SerializeToString()
