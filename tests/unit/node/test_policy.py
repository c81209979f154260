"""The policy: default deny, one rule must cover everything, and never more than the limits; explained as it is decided."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from folkmoot.node.policy.explanation import explain
from folkmoot.node.policy.policy_file import Policy, PolicyLimits, Quotas, Rule
from folkmoot.node.policy.verdict import CONDITIONS, Accepted, Facts, Refused, Usage, decide
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import ApprovalMode, ReleaseMode

_Dataclass = TypeVar("_Dataclass", Facts, Policy, Rule)

TOMORROW = datetime(2026, 11, 21, tzinfo=UTC)
FACTS = Facts(
    image="local:sha256:aa",
    runtime="container",
    station_runtime="container",
    initiators=(("address-of-alpha", "Alpha"), ("address-of-beta", "Beta")),
    user_id="anna",
    labels=("patients",),
    offered_labels=frozenset({"patients", "staff"}),
    subtasks=True,
    messages=True,
    function="mean",
    image_signers=frozenset({"acme"}),
    used_today=Usage(3, 1000, TOMORROW),
)
RULE = Rule(
    images=("local:sha256:aa",),
    signers=("acme", "other"),
    initiators=("Alpha", "address-of-beta"),
    users=("Alpha/anna",),
    functions=("mean", "sum"),
    labels=("patients",),
    subtasks=True,
    messages=True,
    resource_classes=("large",),
)
POLICY = Policy(
    runtimes=("container",),
    allow=(RULE,),
    resource_classes={"large": PolicyLimits(memory_bytes=8 << 30, gpus=2), "gpu": PolicyLimits(gpus=1)},
    quotas=Quotas(runs_per_day=4, bytes_out_per_day=2000),
)


def some(*words: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(words), unique=True).map(tuple)


def near(usual: _Dataclass, **values: st.SearchStrategy[Any]) -> st.SearchStrategy[_Dataclass]:
    """Things that differ from the usual one in little, so that what is decided of them hangs by one thread or another."""
    change = st.sampled_from(sorted(values)).flatmap(lambda name: st.tuples(st.just(name), values[name]))
    return st.lists(change, max_size=2).map(lambda changes: replace(usual, **dict(changes)))


rules = near(
    RULE,
    images=some("local:*", "local:sha256:aa", "process:*", "*"),
    signers=some("acme", "other"),
    initiators=some("Alpha", "Beta", "address-of-alpha", "address-of-beta", "*", "Gamma"),
    users=some("*", "anna", "Alpha/anna", "Beta/*", "*/bert"),
    functions=some("*", "mean", "me*"),
    labels=some("patients", "staff", "*"),
    subtasks=st.booleans(),
    messages=st.booleans(),
    resource_classes=some("large", "gpu"),
    approval=st.sampled_from(["never", "first_use", "every_run"]),
    release=st.sampled_from(["automatic", "held"]),
    minimum_rows=st.integers(0, 3),
)
settings = near(
    POLICY,
    runtimes=some("container", "process"),
    approval=st.sampled_from(["never", "first_use"]),
    voted_list=st.sampled_from(["required", "not required"]),
    minimum_rows=st.integers(0, 2),
    quotas=st.builds(Quotas, runs_per_day=st.integers(0, 4), bytes_out_per_day=st.integers(0, 4)),
)
policies = st.builds(lambda policy, allow: replace(policy, allow=tuple(allow)), settings, st.lists(rules, max_size=4))
facts = near(
    FACTS,
    image=st.sampled_from(["local:sha256:aa", "process:examples.average"]),
    runtime=st.sampled_from(["container", "process"]),
    station_runtime=st.sampled_from(["container", "process"]),
    initiators=st.sampled_from([FACTS.initiators, FACTS.initiators[:1], (("address-of-beta", None),)]),
    user_id=st.sampled_from(["anna", "bert", "Alpha/anna", ""]),
    labels=some("patients", "staff"),
    offered_labels=st.frozensets(st.sampled_from(["patients", "staff"])),
    subtasks=st.booleans(),
    messages=st.booleans(),
    memory_bytes=st.integers(0, 1 << 31),
    cpu_millis=st.integers(0, 2000),
    run_time_seconds=st.integers(0, 7200),
    resource_class=st.sampled_from(["", "large", "gpu", "unknown"]),
    voted=st.booleans(),
    function=st.sampled_from([None, "mean", "other"]),
    image_signers=st.none() | st.frozensets(st.sampled_from(["acme", "other"])),
    used_today=st.none() | st.builds(Usage, st.integers(0, 4), st.integers(0, 4), st.just(TOMORROW)),
)


def accepts(given: Facts, policy: Policy) -> bool:
    return isinstance(decide(given, policy), Accepted)


def test_what_one_rule_covers_is_accepted_with_the_limits():
    decision = decide(FACTS, POLICY)
    assert isinstance(decision, Accepted)
    assert decision.limits.memory_bytes == POLICY.limits.memory_bytes
    assert decision.limits.pids == POLICY.limits.pids
    assert decision.result_bytes == POLICY.limits.result_bytes
    assert decision.rule == "allow[0]"
    assert decision.signers == ("acme", "other")


def test_an_empty_policy_allows_nothing():
    assert isinstance(decide(FACTS, Policy()), Refused)


@given(facts, policies)
@example(FACTS, replace(POLICY, allow=(replace(RULE, functions=("sum",)), replace(RULE, messages=False))))
def test_accepted_means_that_one_rule_alone_covers_it(given: Facts, policy: Policy):
    alone = [accepts(given, replace(policy, allow=(rule,))) for rule in policy.allow]
    assert accepts(given, policy) == any(alone)


@given(facts, policies, st.lists(rules, max_size=2))
def test_another_rule_never_takes_away(given: Facts, policy: Policy, more: list[Rule]):
    if accepts(given, policy):
        assert accepts(given, replace(policy, allow=(*more, *policy.allow)))


@given(facts, policies, st.data())
def test_taking_an_allowance_away_never_accepts_more(given: Facts, policy: Policy, data: st.DataObject):
    if not policy.allow:
        return
    number = data.draw(st.integers(0, len(policy.allow) - 1))
    rule = policy.allow[number]
    key = data.draw(
        st.sampled_from(
            ["images", "initiators", "users", "functions", "labels", "resource_classes", "subtasks", "messages"]
        )
    )
    less: Any = getattr(rule, key)[1:] if key not in ("subtasks", "messages") else False
    stricter = replace(
        policy, allow=(*policy.allow[:number], replace(rule, **{key: less}), *policy.allow[number + 1 :])
    )
    if accepts(given, stricter):
        assert accepts(given, policy)


@given(facts, policies)
def test_what_gets_known_never_helps(given: Facts, policy: Policy):
    unknown = replace(given, function=None, image_signers=None, used_today=None)
    if accepts(given, policy):
        assert accepts(unknown, policy)


@given(facts, policies, st.randoms(use_true_random=False))
def test_the_order_of_rules_does_not_matter(given: Facts, policy: Policy, random: Any):
    shuffled = random.sample(policy.allow, len(policy.allow))
    ours, theirs = decide(given, policy), decide(given, replace(policy, allow=tuple(shuffled)))
    if isinstance(ours, Accepted):
        assert isinstance(theirs, Accepted)
        assert replace(ours, rule="") == replace(theirs, rule="")
    else:
        assert isinstance(theirs, Refused)
        assert ours.reason == theirs.reason


@given(facts, policies)
def test_nobody_gets_more_than_the_limits(given: Facts, policy: Policy):
    decision = decide(given, policy)
    if isinstance(decision, Accepted):
        most = policy.resource_classes[given.resource_class] if given.resource_class else policy.limits
        for name in (
            "memory_bytes",
            "cpu_millis",
            "run_time_seconds",
            "pids",
            "scratch_bytes",
            "temporary_bytes",
            "gpus",
        ):
            assert getattr(decision.limits, name) <= getattr(most, name)
        assert decision.minimum_rows >= policy.minimum_rows
        assert decision.approval >= {"never": 1, "first_use": 2}[policy.approval]


@given(facts, policies)
def test_an_explanation_says_what_is_decided(given: Facts, policy: Policy):
    explanation = explain(given, policy)
    holds = not explanation.failing and any(rule.covers for rule in explanation.rules)
    assert isinstance(explanation.decision, Accepted) == holds
    if isinstance(explanation.decision, Refused) and explanation.decision.rule.startswith("allow["):
        key = explanation.decision.rule.partition("].")[2]
        assert not any(rule.covers for rule in explanation.rules)
        if policy.allow:
            assert any(point.key == key and point.holds is False for rule in explanation.rules for point in rule.points)


@pytest.mark.parametrize(
    ("change", "reason", "rule"),
    [
        ({"runtime": "process"}, ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtimes"),
        ({"station_runtime": "process"}, ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtime"),
        ({"image": "local:sha256:bb"}, ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, "allow[0].images"),
        ({"image_signers": frozenset()}, ErrorReason.ERROR_REASON_IMAGE_NOT_SIGNED, "allow[0].signers"),
        ({"image_signers": frozenset({"x"})}, ErrorReason.ERROR_REASON_IMAGE_NOT_SIGNED, "allow[0].signers"),
        ({"initiators": (("x", "Gamma"),)}, ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, "allow[0].initiators"),
        ({"user_id": "bert"}, ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, "allow[0].users"),
        ({"user_id": ""}, ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, "allow[0].users"),
        ({"labels": ("staff",)}, ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "allow[0].labels"),
        ({"labels": ("cars",)}, ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data"),
        ({"function": "median"}, ErrorReason.ERROR_REASON_FUNCTION_NOT_ALLOWED, "allow[0].functions"),
        ({"memory_bytes": 1 << 40}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "limits.memory_bytes"),
        ({"cpu_millis": 1001}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "limits.cpu_millis"),
        ({"run_time_seconds": 3601}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "limits.run_time_seconds"),
        ({"resource_class": "gpu"}, ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "allow[0].resource_classes"),
        (
            {"resource_class": "large", "memory_bytes": 9 << 30},
            ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED,
            "resource_classes.large.memory_bytes",
        ),
        (
            {"used_today": Usage(4, 0, TOMORROW)},
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            "quotas.runs_per_day (until 2026-11-21T00:00+00:00)",
        ),
        (
            {"used_today": Usage(0, 2000, TOMORROW)},
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED,
            "quotas.bytes_out_per_day (until 2026-11-21T00:00+00:00)",
        ),
    ],
)
def test_a_refusal_names_reason_and_rule(change: dict[str, Any], reason: ErrorReason.ValueType, rule: str):
    assert decide(replace(FACTS, **change), POLICY) == Refused(reason, rule)


def test_an_image_that_nobody_voted_for_is_refused_where_the_list_counts():
    policy = replace(POLICY, voted_list="required")
    assert decide(FACTS, policy) == Refused(ErrorReason.ERROR_REASON_ALGORITHM_NOT_VOTED, "voted_list")
    assert accepts(replace(FACTS, voted=True), policy)


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
    assert accepts(replace(FACTS, **without), policy)


def test_every_organization_of_the_chain_must_be_allowed():
    policy = replace(POLICY, allow=(replace(RULE, initiators=("Alpha",)),))
    assert isinstance(decide(FACTS, policy), Refused)


def test_a_resource_class_gives_its_own_limits():
    decision = decide(replace(FACTS, resource_class="large"), POLICY)
    assert isinstance(decision, Accepted)
    assert (decision.limits.memory_bytes, decision.limits.gpus) == (8 << 30, 2)


def test_a_user_of_another_organization_does_not_pass_for_one_that_is_named():
    posing = replace(FACTS, initiators=(("address-of-beta", "Beta"),), user_id="Alpha/anna")
    assert isinstance(decide(posing, POLICY), Refused)
    bare = replace(POLICY, allow=(replace(RULE, users=("anna",)),))
    assert accepts(replace(posing, user_id="anna"), bare)
    assert not accepts(posing, bare)


def test_the_stricter_of_policy_and_rule_counts_and_the_mildest_of_the_rules():
    strict = replace(RULE, approval="every_run", release="held", minimum_rows=20)
    policy = replace(POLICY, approval="first_use", minimum_rows=10, allow=(strict,))
    decision = decide(FACTS, policy)
    assert isinstance(decision, Accepted)
    assert (decision.approval, decision.release) == (
        ApprovalMode.APPROVAL_MODE_EVERY_RUN,
        ReleaseMode.RELEASE_MODE_HELD,
    )
    assert decision.minimum_rows == 20
    milder = decide(FACTS, replace(policy, allow=(strict, RULE)))
    assert isinstance(milder, Accepted)
    assert (milder.approval, milder.release) == (
        ApprovalMode.APPROVAL_MODE_FIRST_USE,
        ReleaseMode.RELEASE_MODE_AUTOMATIC,
    )
    assert (milder.minimum_rows, milder.rule) == (10, "allow[1]")


def test_every_key_of_a_rule_that_restricts_is_a_condition():
    words = {"approval", "release", "minimum_rows"}
    assert {condition.name for condition in CONDITIONS} | words == set(Rule.__dataclass_fields__)


def test_a_rule_that_names_signers_waits_for_the_image():
    unseen = replace(FACTS, image_signers=None)
    decision = decide(unseen, POLICY)
    assert isinstance(decision, Accepted)
    assert decision.signers
