"""What the data owner allows: policy.toml, and one pure decision on verified facts.

Default deny: a run is accepted only if its runtime is listed, one [[allow]] rule covers its image, every organization in its chain,
all of its labels and whatever it may do besides computing, and it asks for no more than the limits. A refusal names the reason and
the rules that it failed at, so that the researcher can ask the data owner for exactly what is missing.

    runtimes = ["container"]

    [[allow]]
    images = ["registry.example.org/folkmoot/*@sha256:*"]
    initiators = ["Alpha", "Beta"]
    labels = ["patients"]
    subtasks = true
    messages = true
    [limits]
    memory_bytes = 1073741824
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, TypeAlias

from folkmoot.algorithm.image import image_text
from folkmoot.node.config import Setting, read_settings, read_toml, refused
from folkmoot.node.ports import Limits
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image, MessageGrant, TaskSpec

EVERY_MEMBER = "*"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """[[allow]]: what is allowed together."""

    images: Annotated[tuple[str, ...], Setting("patterns of images, as text")]
    initiators: Annotated[tuple[str, ...], Setting("names or addresses of organizations; * for every member")]
    labels: Annotated[tuple[str, ...], Setting("patterns of data labels")] = ()
    subtasks: Annotated[bool, Setting("whether the algorithm may create subtasks")] = False
    messages: Annotated[bool, Setting("whether sibling runs may message each other")] = False


@dataclass(frozen=True, kw_only=True)
class PolicyLimits:
    """[limits]: what a run may use at most, and uses if it asks for nothing."""

    memory_bytes: Annotated[int, Setting("memory of a run", minimum=1 << 20)] = 1 << 30
    cpu_millis: Annotated[int, Setting("thousandths of a processor", minimum=10)] = 1000
    run_time_seconds: Annotated[int, Setting("running time", minimum=1)] = 3600
    result_bytes: Annotated[int, Setting("size of a result", minimum=1)] = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Policy:
    """policy.toml."""

    runtimes: Annotated[tuple[str, ...], Setting("container, process or both")] = ()
    allow: Annotated[tuple[Rule, ...], Setting("the rules")] = ()
    limits: Annotated[PolicyLimits, Setting("the limits")] = field(default_factory=PolicyLimits)


@dataclass(frozen=True)
class Facts:
    """What is known of a run once its task is verified, and of the station."""

    image: str
    runtime: str
    station_runtime: str
    initiators: tuple[tuple[str, str | None], ...]
    """Of every organization in the chain its address, and its name in the ledger unless another one has had it too."""
    labels: tuple[str, ...]
    offered_labels: frozenset[str]
    subtasks: bool
    messages: bool
    memory_bytes: int = 0
    cpu_millis: int = 0
    run_time_seconds: int = 0
    resource_class: str = ""


@dataclass(frozen=True)
class Accepted:
    """The run may start."""

    limits: Limits
    result_bytes: int


@dataclass(frozen=True)
class Refused:
    """The run may not start: the catalogue's reason and the rule of the policy that it failed at."""

    reason: ErrorReason.ValueType
    rule: str


Decision: TypeAlias = Accepted | Refused


def load_policy(path: Path) -> tuple[Policy, bytes]:
    """Read policy.toml; give it with its digest, SHA-256 of the file. Raises FolkmootError naming file and key."""
    policy = read_settings(Policy, read_toml(path), path)
    for runtime in policy.runtimes:
        if runtime not in ("container", "process"):
            raise refused(path, "runtimes", f"contains {runtime!r}; allowed are container and process")
    return policy, hashlib.sha256(path.read_bytes()).digest()


def image_runtime(image: Image) -> str:
    """The runtime that an image needs, as policies write it."""
    return "process" if image.HasField("process") else "container"


def facts_of(
    spec: TaskSpec, initiators: tuple[tuple[str, str | None], ...], offered_labels: Iterable[str], runtime: str
) -> Facts:
    """What counts of a verified task, at a station that offers these labels and has this runtime (as node.toml says)."""
    resources = spec.resources
    return Facts(
        image=image_text(spec.image),
        runtime=image_runtime(spec.image),
        station_runtime="process" if runtime == "process" else "container",
        initiators=initiators,
        labels=tuple(spec.labels),
        offered_labels=frozenset(offered_labels),
        subtasks=spec.grant.subtask_depth > 0,
        messages=spec.grant.messages == MessageGrant.MESSAGE_GRANT_SIBLINGS,
        memory_bytes=resources.memory_bytes,
        cpu_millis=resources.cpu_millis,
        run_time_seconds=resources.run_time.seconds + (resources.run_time.nanos > 0),
        resource_class=resources.resource_class,
    )


def decide(facts: Facts, policy: Policy) -> Decision:
    """Decide about a run. Pure: the same facts and policy give the same answer everywhere."""
    if facts.runtime not in policy.runtimes:
        return Refused(ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtimes")
    if facts.runtime != facts.station_runtime:
        return Refused(ErrorReason.ERROR_REASON_RUNTIME_NOT_ALLOWED, "runtime")
    if facts.offered_labels.issuperset(facts.labels):
        refusal = _first_refusal(facts, policy)
    else:
        refusal = Refused(ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED, "data")
    return refusal or _limits(facts, policy.limits)


def _first_refusal(facts: Facts, policy: Policy) -> Refused | None:
    """Narrow the rules down, condition by condition; the condition that leaves none is the reason."""
    conditions: tuple[tuple[str, ErrorReason.ValueType, Callable[[Rule], bool]], ...] = (
        ("images", ErrorReason.ERROR_REASON_IMAGE_NOT_ALLOWED, lambda rule: matches(facts.image, rule.images)),
        (
            "initiators",
            ErrorReason.ERROR_REASON_INITIATOR_NOT_ALLOWED,
            lambda rule: all(initiator_allowed(initiator, rule) for initiator in facts.initiators),
        ),
        (
            "labels",
            ErrorReason.ERROR_REASON_LABEL_NOT_ALLOWED,
            lambda rule: all(matches(label, rule.labels) for label in facts.labels),
        ),
        ("subtasks", ErrorReason.ERROR_REASON_SUBTASK_NOT_ALLOWED, lambda rule: rule.subtasks or not facts.subtasks),
        ("messages", ErrorReason.ERROR_REASON_MESSAGES_NOT_ALLOWED, lambda rule: rule.messages or not facts.messages),
    )
    candidates = list(enumerate(policy.allow))
    for name, reason, holds in conditions:
        remaining = [(number, rule) for number, rule in candidates if holds(rule)]
        if not remaining:
            numbers = ",".join(str(number) for number, _ in candidates)
            return Refused(reason, f"allow[{numbers}].{name}")
        candidates = remaining
    return None


def _limits(facts: Facts, limits: PolicyLimits) -> Decision:
    if facts.resource_class:
        return Refused(ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, "limits.resource_class")
    for name in ("memory_bytes", "cpu_millis", "run_time_seconds"):
        if getattr(facts, name) > getattr(limits, name):
            return Refused(ErrorReason.ERROR_REASON_RESOURCES_NOT_ALLOWED, f"limits.{name}")
    given = Limits(
        memory_bytes=facts.memory_bytes or limits.memory_bytes,
        cpu_millis=facts.cpu_millis or limits.cpu_millis,
        run_time_seconds=facts.run_time_seconds or limits.run_time_seconds,
    )
    return Accepted(given, limits.result_bytes)


def matches(text: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns covers the text."""
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def initiator_allowed(initiator: tuple[str, str | None], rule: Rule) -> bool:
    """Whether a rule names an organization, by address or by its name in the ledger."""
    return EVERY_MEMBER in rule.initiators or any(form in rule.initiators for form in initiator)
