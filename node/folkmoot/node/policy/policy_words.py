"""A policy in plain words: what it allows, and what a data owner may not have meant. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

from folkmoot.node.policy.policy_file import APPROVAL, RELEASE, Policy, PolicyLimits, Rule
from folkmoot.node.policy.verdict import EVERY_MEMBER, Accepted
from folkmoot.node.proxy.ports import Limits

_PINNED = re.compile(r".*sha256:[0-9a-f]{64}")

APPROVAL_WORDS = {
    "never": "nobody is asked before a run starts",
    "first_use": "a person at the station approves the first run of each image",
    "every_run": "a person at the station approves every run",
}
RELEASE_WORDS = {
    "automatic": "results leave by themselves",
    "held": "a person at the station looks at each result before it leaves",
}


def describe(policy: Policy) -> Iterator[str]:
    """What a policy allows: what holds for all runs, then one paragraph for each rule."""
    yield " ".join(_general(policy))
    for number, rule in enumerate(policy.allow):
        yield f"allow[{number}]: " + " ".join(_rule(policy, rule))
    if not policy.allow:
        yield "There is no [[allow]] rule: everything is refused."


def grant(accepted: Accepted) -> Iterator[str]:
    """What a run that is accepted is given."""
    yield f"It gets {_limits(accepted.limits, accepted.result_bytes)}."
    approval = next(word for word, mode in APPROVAL.items() if mode == accepted.approval)
    release = next(word for word, mode in RELEASE.items() if mode == accepted.release)
    yield f"{APPROVAL_WORDS[approval].capitalize()}; {RELEASE_WORDS[release]}."
    if accepted.minimum_rows:
        yield f"Reads of fewer than {accepted.minimum_rows} rows are refused."


def warnings(policy: Policy, labels: Iterable[str]) -> Iterator[str]:
    """What a data owner may not have meant, at a station that offers these labels."""
    if "process" in policy.runtimes:
        yield 'runtimes names "process": algorithms run without a container, with the rights of the node\'s user. For development only.'
    if not policy.runtimes:
        yield "runtimes is empty: everything is refused."
    offered = list(labels)
    for number, rule in enumerate(policy.allow):
        for text in _rule_warnings(policy, rule, offered):
            yield f"allow[{number}]: {text}"


def _general(policy: Policy) -> Iterator[str]:
    yield f"Algorithms run in: {_list(policy.runtimes) or 'nothing'}."
    hours = _list(policy.opening_hours)
    yield f"Runs start {hours} ({policy.time_zone}); others wait." if hours else "Runs start at any time."
    if policy.voted_list == "required":
        yield "Images must be on the collaboration's voted list."
    yield f"A run has at most {_limits(policy.limits, policy.limits.result_bytes)}."
    for name, limits in policy.resource_classes.items():
        yield f"In the resource class {name} it has {_limits(limits, limits.result_bytes)}."
    quotas = policy.quotas
    if quotas.runs_per_day:
        yield f"An organization has {quotas.runs_per_day} runs per day."
    if quotas.bytes_out_per_day:
        yield f"{size(quotas.bytes_out_per_day)} leave for an organization per day at most."


def _rule(policy: Policy, rule: Rule) -> Iterator[str]:
    signed = f", signed by {_list(rule.signers, 'or')}" if rule.signers else ""
    yield f"Images {_list(rule.images) or 'none'}{signed}."
    everybody = EVERY_MEMBER in rule.initiators
    who = "every member of the collaboration" if everybody else _list(rule.initiators) or "nobody"
    users = "" if "*" in rule.users else f", and of them only the users {_list(rule.users)}"
    yield f"For {who}{users}."
    functions = "Any function" if "*" in rule.functions else f"Only {_list(rule.functions)}"
    yield f"{functions}, on {'data labelled ' + _list(rule.labels) if rule.labels else 'no data'}."
    may = [text for text, allowed in (("create subtasks", rule.subtasks), ("send messages", rule.messages)) if allowed]
    yield f"They may {_list(may)}." if may else "They neither create subtasks nor send messages."
    if rule.resource_classes:
        yield f"They may ask for the resource class {_list(rule.resource_classes, 'or')}."
    approval = stricter(tuple(APPROVAL_WORDS), policy.approval, rule.approval)
    release = stricter(tuple(RELEASE_WORDS), policy.release, rule.release)
    yield f"{APPROVAL_WORDS[approval].capitalize()}; {RELEASE_WORDS[release]}."
    if rows := max(policy.minimum_rows, rule.minimum_rows):
        yield f"Reads of fewer than {rows} rows are refused."


def _rule_warnings(policy: Policy, rule: Rule, labels: Sequence[str]) -> Iterator[str]:
    if not (rule.images and rule.initiators and rule.users and rule.functions):
        yield "a list of it is empty: it covers nothing."
    if EVERY_MEMBER in rule.initiators:
        yield 'initiators is "*": whoever the members admit later may use it too.'
    vouched = bool(rule.signers) or policy.voted_list == "required"
    for pattern in rule.images:
        if warning := _pattern_warning(pattern, policy.runtimes, vouched=vouched):
            yield f"images has {pattern!r}: {warning}"
    for pattern in rule.labels:
        if not any(fnmatchcase(label, pattern) for label in labels):
            yield f"labels has {pattern!r}, and the node offers {_list(labels) or 'nothing'}."
    if rule.labels and not max(policy.minimum_rows, rule.minimum_rows):
        yield "there is no minimum_rows: an algorithm may read single rows."


def _pattern_warning(pattern: str, runtimes: Sequence[str], *, vouched: bool) -> str:
    """What a pattern of images covers that may not be meant. `vouched`: signers or the members stand for what it covers."""
    if not pattern.strip("*"):
        return "any image whatever."
    if pattern.startswith("process:"):
        return "" if "process" in runtimes else 'runtimes does not name "process", so nothing comes of it.'
    if _names_no_registry(pattern):
        return "`*` stands for slashes too, so it covers images of any registry. Name the registry."
    if vouched or _PINNED.fullmatch(pattern):
        return ""
    return "whatever is pushed there later is allowed too. Pin a digest, or name signers."


def _names_no_registry(pattern: str) -> bool:
    """Whether the part of a pattern that names where images lie is left open."""
    return any(wildcard in pattern.partition("/")[0] for wildcard in "*?[") and not pattern.startswith(
        ("local:", "process:")
    )


def stricter(order: Sequence[str], *words: str) -> str:
    """The last of some words, in an order from mild to strict."""
    return max(words, key=order.index)


def size(number: int) -> str:
    """Bytes, as people read them."""
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= bytes_:
            return f"{number / bytes_:.4g} {unit}"
    return f"{number} bytes"


def _limits(limits: PolicyLimits | Limits, result_bytes: int) -> str:
    gpus = f", {limits.gpus} GPU{'s' * (limits.gpus > 1)}" if limits.gpus else ""
    return (
        f"{size(limits.memory_bytes)} of memory, {limits.cpu_millis / 1000:g} CPU{gpus}, {limits.run_time_seconds} seconds, "
        f"results of {size(result_bytes)}"
    )


def _list(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
