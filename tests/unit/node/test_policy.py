"""The policy: default deny, one rule must cover everything, and never more than the limits."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.policy import Accepted, Facts, Refused, decide
from folkmoot.node.policy_file import Policy, PolicyLimits, Rule, load_policy
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

FACTS = Facts(
    image="local:sha256:aa",
    runtime="container",
    station_runtime="container",
    initiators=(("address-of-alpha", "Alpha"), ("address-of-beta", "Beta")),
    labels=("patients",),
    offered_labels=frozenset({"patients", "staff"}),
    subtasks=True,
    messages=True,
)
RULE = Rule(
    images=("local:sha256:aa",),
    initiators=("Alpha", "address-of-beta"),
    labels=("patients",),
    subtasks=True,
    messages=True,
)
POLICY = Policy(runtimes=("container",), allow=(RULE,))

names = st.sampled_from(["Alpha", "Beta", "address-of-alpha", "address-of-beta", "*", "Gamma"])
rules = st.builds(
    Rule,
    images=st.lists(st.sampled_from(["local:*", "local:sha256:aa", "process:*", "*"])).map(tuple),
    initiators=st.lists(names).map(tuple),
    labels=st.lists(st.sampled_from(["patients", "staff", "*"])).map(tuple),
    subtasks=st.booleans(),
    messages=st.booleans(),
)
policies = st.builds(
    Policy, runtimes=st.lists(st.sampled_from(["container", "process"])).map(tuple), allow=st.lists(rules).map(tuple)
)
facts = st.builds(
    Facts,
    image=st.sampled_from(["local:sha256:aa", "process:examples.average"]),
    runtime=st.sampled_from(["container", "process"]),
    station_runtime=st.sampled_from(["container", "process"]),
    initiators=st.sampled_from([FACTS.initiators, FACTS.initiators[:1]]),
    labels=st.lists(st.sampled_from(["patients", "staff"]), unique=True).map(tuple),
    offered_labels=st.frozensets(st.sampled_from(["patients", "staff"])),
    subtasks=st.booleans(),
    messages=st.booleans(),
    memory_bytes=st.integers(0, 1 << 31),
    cpu_millis=st.integers(0, 2000),
    run_time_seconds=st.integers(0, 7200),
    resource_class=st.sampled_from(["", "gpu"]),
)


def test_what_one_rule_covers_is_accepted_with_the_limits():
    decision = decide(FACTS, POLICY)
    assert isinstance(decision, Accepted)
    assert decision.limits.memory_bytes == POLICY.limits.memory_bytes
    assert decision.result_bytes == POLICY.limits.result_bytes


def test_an_empty_policy_allows_nothing():
    assert isinstance(decide(FACTS, Policy()), Refused)


@given(facts, policies)
def test_accepted_means_that_one_rule_alone_covers_it(given: Facts, policy: Policy):
    alone = [decide(given, replace(policy, allow=(rule,))) for rule in policy.allow]
    decision = decide(given, policy)
    assert isinstance(decision, Accepted) == any(isinstance(each, Accepted) for each in alone)


@given(facts, policies, st.lists(rules, max_size=2))
def test_another_rule_never_takes_away(given: Facts, policy: Policy, more: list[Rule]):
    if isinstance(decide(given, policy), Accepted):
        assert isinstance(decide(given, replace(policy, allow=(*more, *policy.allow))), Accepted)


@given(facts, policies)
def test_nobody_gets_more_than_the_limits(given: Facts, policy: Policy):
    decision = decide(given, policy)
    if isinstance(decision, Accepted):
        assert decision.limits.memory_bytes <= policy.limits.memory_bytes
        assert decision.limits.cpu_millis <= policy.limits.cpu_millis
        assert decision.limits.run_time_seconds <= policy.limits.run_time_seconds
        assert given.resource_class == ""


@pytest.mark.parametrize(
    ("change", "reason", "rule"),
    [
        ({"runtime": "process"}, ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtimes"),
        ({"station_runtime": "process"}, ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtime"),
        ({"image": "local:sha256:bb"}, ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, "allow[0].images"),
        ({"initiators": (("x", "Gamma"),)}, ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, "allow[0].initiators"),
        ({"labels": ("staff",)}, ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "allow[0].labels"),
        ({"labels": ("cars",)}, ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data"),
        ({"memory_bytes": 1 << 40}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "limits.memory_bytes"),
        ({"resource_class": "gpu"}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "allow[0].resource_classes"),
    ],
)
def test_a_refusal_names_reason_and_rule(change: dict[str, Any], reason: ErrorReason.ValueType, rule: str):
    assert decide(replace(FACTS, **change), POLICY) == Refused(reason, rule)


@pytest.mark.parametrize(
    ("closed", "reason"),
    [
        ("subtasks", ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED),
        ("messages", ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED),
    ],
)
def test_egress_needs_the_policys_word(closed: str, reason: ErrorReason.ValueType):
    without: dict[str, Any] = {closed: False}
    policy = replace(POLICY, allow=(replace(RULE, **without),))
    assert decide(FACTS, policy) == Refused(reason, f"allow[0].{closed}")
    assert isinstance(decide(replace(FACTS, **without), policy), Accepted)


def test_every_organization_of_the_chain_must_be_allowed():
    policy = replace(POLICY, allow=(replace(RULE, initiators=("Alpha",)),))
    assert isinstance(decide(FACTS, policy), Refused)


def test_a_policy_is_read_strictly(tmp_path: Path):
    path = tmp_path / "policy.toml"
    path.write_text(
        'runtimes = ["container"]\n[[allow]]\nimages = []\ninitiators = []\n[limits]\nmemory_bytes = 2097152\n'
    )
    loaded = load_policy(path)
    assert loaded.policy.limits == PolicyLimits(memory_bytes=2097152)
    assert loaded.digest == hashlib.sha256(path.read_bytes()).digest()
    for text, told in [
        ('runtimes = ["vm"]', "allowed are container, process"),
        ("[[allow]]\nimages = []", "allow[0].initiators is missing"),
        ("[limits]\nmemory = 1", "limits.memory is not known"),
        ("[limits]\ncpu_millis = 1", "at least 10 is allowed"),
    ]:
        path.write_text(text)
        with pytest.raises(FolkmootError) as refusal:
            load_policy(path)
        assert told in str(refusal.value)
        assert str(path) in str(refusal.value)
