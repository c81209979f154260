"""The data owner's word on a run: one pure decision, on verified facts, by the policy in force.

Default deny: a run is accepted only if its runtime is allowed, one [[allow]] rule covers everything that it is (its image and who signed
that, every organization in its chain, who asked, its function, all of its labels and those that the dataframes which it reads were made from,
whatever it may do besides computing), it asks for no
more than the limits, and its organization has not used up its day. A refusal names the reason and the rules that it failed at, so that
the researcher can ask the data owner for exactly what is missing.

It is asked again as facts come in: what is not known yet is not held against a run. Where several rules cover one, the mildest counts.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TypeAlias

from folkmoot.algorithm.image import image_text
from folkmoot.node.policy.policy_file import APPROVAL, RELEASE, Policy, PolicyLimits, Quotas, Rule
from folkmoot.node.proxy.ports import Limits
from folkmoot.trust import VerifiedTask
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.link_pb2 import ApprovalMode, ReleaseMode
from folkmoot.v1.task_pb2 import Image, MessageGrant

EVERY_MEMBER = "*"


@dataclass(frozen=True)
class Usage:
    """What an organization has used of its day, and when the next one begins."""

    runs: int
    bytes_out: int
    ends_at: datetime


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run once its task is verified, and of the station."""

    image: str
    runtime: str
    station_runtime: str
    initiators: tuple[tuple[str, str | None], ...]
    """Of every organization in the chain, the root's first, its address, and its name in the ledger unless another one has had it too."""
    user_id: str = ""
    """Who made the root task."""
    labels: tuple[str, ...]
    offered_labels: frozenset[str]
    subtasks: bool
    messages: bool
    dataframes: bool = False
    """Whether it reads or leaves dataframes of a session."""
    lineage: tuple[str, ...] | None = ()
    """The labels that what it reads of its session was made from. None: something of it is not here."""
    memory_bytes: int = 0
    cpu_millis: int = 0
    run_time_seconds: int = 0
    resource_class: str = ""
    voted: bool = False
    """Whether image, labels and function are on the collaboration's voted list."""
    function: str | None = None
    """None: the input is not open yet."""
    image_signers: frozenset[str] | None = None
    """Those of the policy's signers who signed the image. None: the image was not looked at yet."""
    used_today: Usage | None = None
    """By the root's organization, apart from this run. None: it is not looked at (again)."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The run may start, and what it is given."""

    limits: Limits
    result_bytes: int
    minimum_rows: int
    approval: ApprovalMode.ValueType
    release: ReleaseMode.ValueType
    rule: str
    """That covers it, such as `allow[0]`."""
    signers: tuple[str, ...]
    """Whose signatures under its image matter: of every rule that covers it otherwise. Empty: no signature is asked for."""


@dataclass(frozen=True)
class Refused:
    """The run may not start: the catalogue's reason and the rule of the policy that it failed at."""

    reason: ErrorReason.ValueType
    rule: str


Decision: TypeAlias = Accepted | Refused


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns covers the text."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def initiator_allowed(initiator: tuple[str, str | None], rule: Rule) -> bool:
    """Whether a rule names an organization, by address or by its name in the ledger."""
    return EVERY_MEMBER in rule.initiators or any(form in rule.initiators for form in initiator)


def _signed(facts: Facts, rule: Rule) -> bool:
    return not rule.signers or facts.image_signers is None or not facts.image_signers.isdisjoint(rule.signers)


def _user_allowed(facts: Facts, rule: Rule) -> bool:
    """Whether a rule names who made the root task: `user`, or `organization/user` of the organization that made it."""
    organizations = [form for form in (EVERY_MEMBER, *facts.initiators[0]) if form]
    for entry in rule.users:
        if "/" not in entry:
            users = [entry]
        else:
            users = [entry.removeprefix(f"{form}/") for form in organizations if entry.startswith(f"{form}/")]
        if matches(facts.user_id, users):
            return True
    return False


@dataclass(frozen=True)
class Condition:
    """One key of a rule, as a condition on a run."""

    name: str
    reason: ErrorReason.ValueType
    holds: Callable[[Facts, Rule], bool]


CONDITIONS = (
    Condition(
        "images", ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, lambda facts, rule: matches(facts.image, rule.images)
    ),
    Condition("signers", ErrorReason.ERROR_REASON_IMAGE_NOT_SIGNED, _signed),
    Condition(
        "initiators",
        ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED,
        lambda facts, rule: all(initiator_allowed(initiator, rule) for initiator in facts.initiators),
    ),
    Condition("users", ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED, _user_allowed),
    Condition(
        "labels",
        ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED,
        lambda facts, rule: all(matches(label, rule.labels) for label in (*facts.labels, *(facts.lineage or ()))),
    ),
    Condition(
        "functions",
        ErrorReason.ERROR_REASON_FUNCTION_NOT_ALLOWED,
        lambda facts, rule: facts.function is None or matches(facts.function, rule.functions),
    ),
    Condition(
        "subtasks",
        ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED,
        lambda facts, rule: rule.subtasks or not facts.subtasks,
    ),
    Condition(
        "messages",
        ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED,
        lambda facts, rule: rule.messages or not facts.messages,
    ),
    Condition(
        "dataframes",
        ErrorReason.ERROR_REASON_DATAFRAME_NOT_ALLOWED,
        lambda facts, rule: rule.dataframes or not facts.dataframes,
    ),
    Condition(
        "resource_classes",
        ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED,
        lambda facts, rule: not facts.resource_class or facts.resource_class in rule.resource_classes,
    ),
)
"""In the order in which rules are narrowed down; the first that leaves none is the reason."""


def image_runtime(image: Image) -> str:
    """The runtime that an image needs, as policies write it."""
    return "process" if image.HasField("process") else "container"


def facts_of(
    task: VerifiedTask,
    initiators: tuple[tuple[str, str | None], ...],
    offered_labels: Iterable[str],
    runtime: str,
) -> Facts:
    """What counts of a verified task, at a station that offers these labels and has this runtime (as node.toml says)."""
    spec, resources = task.spec, task.spec.resources
    return Facts(
        image=image_text(spec.image),
        runtime=image_runtime(spec.image),
        station_runtime="process" if runtime == "process" else "container",
        initiators=initiators,
        user_id=task.root.initiator.user_id,
        labels=tuple(spec.labels),
        offered_labels=frozenset(offered_labels),
        subtasks=spec.grant.subtask_depth > 0,
        messages=spec.grant.messages == MessageGrant.MESSAGE_GRANT_SIBLINGS,
        dataframes=spec.HasField("session"),
        memory_bytes=resources.memory_bytes,
        cpu_millis=resources.cpu_millis,
        run_time_seconds=resources.run_time.seconds + (resources.run_time.nanos > 0),
        resource_class=resources.resource_class,
    )


def decide(facts: Facts, policy: Policy) -> Decision:
    """Decide about a run. Pure: the same facts and policy give the same answer everywhere."""
    if refusal := _station_refusal(facts, policy):
        return refusal
    rules = covering_rules(facts, policy)
    if isinstance(rules, Refused):
        return rules
    if facts.lineage is None:
        return Refused(ErrorReason.ERROR_REASON_DATAFRAME_NOT_FOUND, "session")
    limits = _limits(facts, policy)
    if isinstance(limits, Refused):
        return limits
    if refusal := quota_refusal(facts.used_today, policy.quotas):
        return refusal
    return _accepted(facts, policy, rules, limits)


def _station_refusal(facts: Facts, policy: Policy) -> Refused | None:
    """What no rule can allow."""
    if facts.runtime not in policy.runtimes:
        return Refused(ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtimes")
    if facts.runtime != facts.station_runtime:
        return Refused(ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtime")
    if not facts.offered_labels.issuperset(facts.labels):
        return Refused(ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data")
    if policy.voted_list == "required" and not facts.voted:
        return Refused(ErrorReason.ERROR_REASON_ALGORITHM_NOT_VOTED, "voted_list")
    return None


def covering_rules(facts: Facts, policy: Policy) -> Sequence[int] | Refused:
    """Numbers of the rules that cover a run. They are narrowed down condition by condition; the one that leaves none is the reason."""
    candidates = list(range(len(policy.allow)))
    for condition in CONDITIONS:
        remaining = [number for number in candidates if condition.holds(facts, policy.allow[number])]
        if not remaining:
            numbers = ",".join(str(number) for number in candidates)
            return Refused(condition.reason, f"allow[{numbers}].{condition.name}")
        candidates = remaining
    return candidates


def _limits(facts: Facts, policy: Policy) -> PolicyLimits | Refused:
    """The limits that count for a run, if it asks for no more."""
    name, limits = "limits", policy.limits
    if facts.resource_class:
        name = f"resource_classes.{facts.resource_class}"
        limits = policy.resource_classes[facts.resource_class]
    for asked in ("memory_bytes", "cpu_millis", "run_time_seconds"):
        if getattr(facts, asked) > getattr(limits, asked):
            return Refused(ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, f"{name}.{asked}")
    return limits


def quota_refusal(used: Usage | None, quotas: Quotas) -> Refused | None:
    """The quota that an organization has used up, if it has one up."""
    if used is None:
        return None
    for name, number, most in (
        ("runs_per_day", used.runs, quotas.runs_per_day),
        ("bytes_out_per_day", used.bytes_out, quotas.bytes_out_per_day),
    ):
        if most and number >= most:
            rule = f"quotas.{name} (until {used.ends_at.isoformat(timespec='minutes')})"
            return Refused(ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, rule)
    return None


def _accepted(facts: Facts, policy: Policy, rules: Sequence[int], most: PolicyLimits) -> Accepted:
    approval, release, minimum_rows, number = min((*_strictness(policy, policy.allow[each]), each) for each in rules)
    return Accepted(
        limits=Limits(
            memory_bytes=facts.memory_bytes or most.memory_bytes,
            cpu_millis=facts.cpu_millis or most.cpu_millis,
            run_time_seconds=facts.run_time_seconds or most.run_time_seconds,
            pids=most.pids,
            scratch_bytes=most.scratch_bytes,
            temporary_bytes=most.temporary_bytes,
            gpus=most.gpus,
        ),
        result_bytes=most.result_bytes,
        minimum_rows=minimum_rows,
        approval=approval,
        release=release,
        rule=f"allow[{number}]",
        signers=tuple(sorted({name for each in rules for name in policy.allow[each].signers})),
    )


def _strictness(policy: Policy, rule: Rule) -> tuple[ApprovalMode.ValueType, ReleaseMode.ValueType, int]:
    """What a rule asks of people and data: the stricter of its own words and the policy's. The smaller, the milder."""
    return (
        max(APPROVAL[policy.approval], APPROVAL[rule.approval]),
        max(RELEASE[policy.release], RELEASE[rule.release]),
        max(policy.minimum_rows, rule.minimum_rows),
    )
