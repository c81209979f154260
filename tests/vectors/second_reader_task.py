"""A second reader, third part: tasks and receipts. Written from the contract's comments, docs/rules.md and the design alone."""

# Exceptions are verdicts here, and bear their names.
# ruff: noqa: N818

import itertools
import re
import uuid
from typing import Any

from tests.vectors.second_reader_changes import DAY
from tests.vectors.second_reader_ledger import MINUTE, Ledger, clock
from tests.vectors.second_reader_state import holding
from tests.vectors.second_reader_wire import (
    Refused,
    check,
    check_signed,
    fingerprint,
    key_id,
    nanoseconds,
    read,
    sha256,
)

REGISTRY_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
REPOSITORY = rf"(?:[A-Za-z0-9.-]+(?::[0-9]{{1,5}})?/)?{REGISTRY_PATH}"
WORD = r"[A-Za-z_][A-Za-z0-9_]*"
NAME = r"(?=.{1,63}\Z)[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?"
COMPLETED, FAILED, CRASHED, REFUSED, CANCELLED, EXPIRED = range(8, 14)
Spec = dict[str, Any]


class Ahead(Exception):
    """Made on a newer ledger."""


class Expired(Exception):
    """Its time is over."""


class NodeUnknown(Exception):
    """No such node."""


def judge_task(chain: list[bytes], ledger: Ledger, now: str | None) -> tuple[str, str]:
    """Return verdict and broken rule."""
    try:
        prove(chain, ledger, clock(now))
    except Refused as refused:
        return "refused", refused.rule
    except Ahead:
        return "ahead", ""
    except Expired:
        return "expired", ""
    return "accepted", ""


def prove(chain: list[bytes], ledger: Ledger, now: int | None) -> tuple[list[Spec], list[bytes]]:
    """Return specs and digests of a chain, root first; the last spec says which entry was the first to end a signer."""
    check(1 <= len(chain) <= 16, "CHAIN")
    signed = [read("Signed", each, "FORM") for each in chain]
    specs = [read("TaskSpec", each["body"], "FORM") for each in signed]
    digests = [sha256(each["body"]) for each in signed]
    for spec in specs:
        check(spec["scratch"] in (0, 1) and (spec["grant"] or {}).get("messages", 0) in (0, 1), "FORM")
        spec["at"], spec["until"] = nanoseconds(spec["created_at"], "FORM"), nanoseconds(spec["expires_at"], "FORM")
        spec["known"] = (spec["ledger_position"] or {}).get("sequence", 0)
        if spec["known"] >= len(ledger.hashes):
            raise Ahead
    revocations = []
    for level, spec in enumerate(specs):
        check_spec(spec, specs, ledger, to_execute=now is not None)
        if level == 0:
            check(spec["parent"] is None, "ROOT")
            revocations.append(check_root_signer(signed[0], spec, ledger, to_execute=now is not None))
        else:
            check_subtask(spec, specs[level - 1], digests[level - 1])
            revocations.append(check_node_signer(signed[level], spec, ledger, to_execute=now is not None))
        check(now is None or spec["at"] <= now + 5 * MINUTE, "TIME_AHEAD")
    if now is not None and specs[-1]["until"] <= now:
        raise Expired
    specs[-1]["revoked"] = min((each for each in revocations if each is not None), default=None)
    return specs, digests


def check_root_signer(signed: Spec, spec: Spec, ledger: Ledger, *, to_execute: bool) -> int | None:
    """Check a root task's signature; return the entry that revoked its key, if one has."""
    organization = spec["initiator"]["organization_id"]
    term = holding(ledger.key_terms[organization], spec["known"])
    check(term, "SIGNATURE")
    assert term
    key = term.keys["task_signing"]
    check_signed(signed, "TASK_SPEC", key, ledger.genesis, "SIGNATURE")
    revoked = ledger.revoked.get(key_id(key))
    if to_execute:
        check(revoked is None, "SIGNER_GONE")
        check(ledger.member_at(organization, spec["known"]) is ledger.members.get(organization), "SIGNER_GONE")
        check(term.until is None or spec["at"] <= term.ended_at + 5 * MINUTE, "ROTATED")
    return revoked


def check_node_signer(signed: Spec, spec: Spec, ledger: Ledger, *, to_execute: bool) -> int | None:
    """Check a subtask's signature; return the entry that ended its node's admission, if one has."""
    check(len(signed["key_id"]) == 32, "SIGNATURE")
    node = ledger.nodes.get(fingerprint(signed["key_id"]))
    check(node and node.organization_id == spec["initiator"]["organization_id"], "SIGNATURE")
    assert node
    check(node.holds_at(spec["known"]), "SIGNATURE")
    check_signed(signed, "SUBTASK_SPEC", node.key, ledger.genesis, "SIGNATURE")
    check(not to_execute or node.until is None, "SIGNER_GONE")
    return node.until


def check_spec(spec: Spec, specs: list[Spec], ledger: Ledger, *, to_execute: bool) -> None:
    """Check a spec by itself and against the ledger."""
    check(spec["genesis"] == ledger.genesis, "COLLABORATION")
    position = spec["ledger_position"] or {"sequence": 0, "hash": b""}
    check(ledger.hashes[position["sequence"]] == position["hash"], "LEDGER_POSITION")
    runs = [receiver["run_id"] for each in specs for receiver in each["receivers"]]
    tasks = [each["task_id"] for each in specs]
    check(all(map(is_uuid, [*runs, *tasks, spec["job_id"]])), "ID")
    check(different(runs) and different(tasks), "ID")
    initiator = spec["initiator"] or {"organization_id": "", "user_id": ""}
    receivers = [receiver["organization_id"] for receiver in spec["receivers"]]
    responsible = {initiator["organization_id"], *spec["result_receivers"]}
    known = (each in ledger.members or ledger.member_at(each, spec["known"]) for each in responsible | set(receivers))
    check(all(known), "MEMBER")
    check(not to_execute or responsible <= ledger.members.keys(), "MEMBER")
    check(len(initiator["user_id"].encode()) <= 128, "USER")
    for image in (spec["image"], *(spec["grant"] or {"images": []})["images"]):
        check(image and image_is_right(image), "IMAGE")
    check(receivers and different(receivers), "RECEIVERS")
    check(spec["result_receivers"] and different(spec["result_receivers"]), "RESULT_RECEIVERS")
    check(inputs_are_right(spec["inputs"], receivers), "INPUTS")
    needed = [each["task_id"] for each in spec["depends_on"]]
    check(all(map(is_uuid, needed)) and different(needed) and not set(needed) & set(tasks), "DEPENDENCIES")
    check(all(len(each["task_digest"]) == 32 for each in spec["depends_on"]), "DEPENDENCIES")
    check(different(spec["labels"]) and all(1 <= len(label.encode()) <= 128 for label in spec["labels"]), "LABELS")
    check(spec["session"] is None or session_is_right(spec["session"], spec["labels"]), "SESSION")
    check(resources_are_right(spec["resources"]), "RESOURCES")
    check(spec["max_attempts"] >= 1, "MAX_ATTEMPTS")
    check(spec["at"] < spec["until"] <= spec["at"] + 7 * DAY, "TERM")


def check_subtask(spec: Spec, above: Spec, digest: bytes) -> None:
    """Check a subtask against the task above it."""
    parent = spec["parent"]
    check(parent and parent["task_id"] == above["task_id"] and parent["task_digest"] == digest, "PARENT")
    check(1 <= parent["attempt"] <= above["max_attempts"], "PARENT")
    executor = {each["run_id"]: each["organization_id"] for each in above["receivers"]}.get(parent["run_id"])
    check(executor, "PARENT")
    check(spec["initiator"]["organization_id"] == executor, "INITIATOR")
    check(not spec["initiator"]["user_id"], "USER")
    check(spec["known"] >= above["known"], "LEDGER_POSITION")
    check(spec["job_id"] == above["job_id"], "JOB")
    nothing: dict[str, Any] = {"subtask_depth": 0, "subtask_number": 0, "images": [], "messages": 0}
    asked, granted = spec["grant"] or nothing, above["grant"] or nothing
    check(asked["subtask_depth"] < granted["subtask_depth"], "GRANT_DEPTH")
    check(granted["subtask_number"] >= max(1, asked["subtask_number"]), "GRANT_NUMBER")
    allowed = [name_of(image) for image in (above["image"], *granted["images"])]
    check(all(name_of(image) in allowed for image in (spec["image"], *asked["images"])), "GRANT_IMAGES")
    check(asked["messages"] <= granted["messages"], "GRANT_MESSAGES")
    check(set(spec["labels"]) <= set(above["labels"]), "GRANT_LABELS")
    check(spec["until"] <= above["until"], "GRANT_TERM")
    check(session_is_granted(spec["session"], above["session"]), "GRANT_SESSION")


def session_is_right(session: dict[str, Any], labels: list[str]) -> bool:
    named = session["dataframes"] + [session["leaves"]] * bool(session["leaves"])
    right = bool(named) and all(re.fullmatch(NAME, name) and name not in labels for name in named)
    return right and is_uuid(session["session_id"]) and different(session["dataframes"])


def session_is_granted(asked: dict[str, Any] | None, granted: dict[str, Any] | None) -> bool:
    if asked is None:
        return True
    if granted is None or asked["session_id"] != granted["session_id"]:
        return False
    readable = [*granted["dataframes"], granted["leaves"]]
    return all(name in readable for name in asked["dataframes"]) and asked["leaves"] in ("", granted["leaves"])


def inputs_are_right(inputs: list[dict[str, Any]], receivers: list[str]) -> bool:
    if not all(len(each["envelope_digest"]) == 32 and each["size_bytes"] for each in inputs):
        return False
    named = [each["organization_ids"] for each in inputs]
    if named == [[]]:
        return True
    return [] not in named and sorted(itertools.chain(*named)) == sorted(receivers)


def resources_are_right(resources: dict[str, Any] | None) -> bool:
    if not resources:
        return True
    time = resources["run_time"]
    positive = not time or (time["seconds"] >= 0 and 0 <= time["nanos"] < 10**9 and any(time.values()))
    return positive and len(resources["resource_class"].encode()) <= 63


def image_is_right(image: dict[str, Any]) -> bool:
    registry, local, process = image["registry"], image["local"], image["process"]
    if [registry, local, process].count(None) != 2:
        return False
    if registry:
        short = len(registry["repository"]) <= 255
        return bool(short and re.fullmatch(REPOSITORY, registry["repository"]) and is_sha256(registry["digest"]))
    if local:
        return is_sha256(local["id"]) and len(local["name"].encode()) <= 255
    right = re.fullmatch(rf"{WORD}(?:\.{WORD})*", process["module"])
    return bool(right) and len(process["module"]) <= 255 and len(process["tree_hash"]) == 32


def name_of(image: dict[str, Any]) -> Any:
    """Return what an image is, without what it is called."""
    return image["registry"] or (image["local"] or {}).get("id") or image["process"]


def is_sha256(text: str) -> bool:
    return re.fullmatch("sha256:[0-9a-f]{64}", text) is not None


def is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def different(texts: list[str]) -> bool:
    return len(set(texts)) == len(texts)


# ---- receipts -------------------------------------------------------------------------------------------------------


def judge_receipt(chain: list[bytes], run_id: str, receipt: bytes, ledger: Ledger) -> tuple[str, str]:
    """Return verdict and broken rule."""
    specs, digests = prove(chain, ledger, None)
    try:
        check_receipt(read("Signed", receipt, "FORM"), specs[-1], digests[-1], run_id, ledger)
    except Refused as refused:
        return "refused", refused.rule
    except NodeUnknown:
        return "node not approved", ""
    return "accepted", ""


def check_receipt(signed: dict[str, Any], spec: Spec, digest: bytes, run_id: str, ledger: Ledger) -> None:
    receipt = read("Receipt", signed["body"], "FORM")
    check(receipt["exit_class"] in range(7) and receipt["isolation"] in range(4), "FORM")
    executor = {each["run_id"]: each["organization_id"] for each in spec["receivers"]}[run_id]
    named = [receipt[name] for name in ("genesis", "task_id", "task_digest", "run_id", "organization_id")]
    check(named == [ledger.genesis, spec["task_id"], digest, run_id, executor], "RUN")
    check(1 <= receipt["attempt"] <= spec["max_attempts"], "RUN")
    sequence = check_position(receipt, ledger)
    check_node(signed, receipt, executor, ledger)
    check(spec["revoked"] is None or sequence < spec["revoked"], "REVOKED")
    nanoseconds(receipt["ended_at"], "TIMES")
    if receipt["started_at"]:
        nanoseconds(receipt["started_at"], "TIMES")
    check_outcome(receipt)
    check(receipt["outcome"] >= REFUSED or sequence >= spec["known"], "LEDGER_POSITION")
    right = [each for each in spec["inputs"] if not each["organization_ids"] or executor in each["organization_ids"]]
    unopened = receipt["outcome"] >= REFUSED and not receipt["input_digest"]
    check(unopened or receipt["input_digest"] == right[0]["envelope_digest"], "INPUT")
    if receipt["outcome"] == COMPLETED and spec["image"]["local"]:
        check(receipt["image_id"] == spec["image"]["local"]["id"], "IMAGE")
    if left := receipt["dataframe"]:
        wanted = (spec["session"] or {"leaves": ""})["leaves"]
        check(receipt["outcome"] == COMPLETED and wanted and left["name"] == wanted, "DATAFRAME")
    expected = spec["result_receivers"] if receipt["result_digest"] else []
    check(sorted(receipt["result_receivers"]) == sorted(expected), "RESULT_RECEIVERS")


def check_position(receipt: dict[str, Any], ledger: Ledger) -> int:
    """Return the sequence of the entry that a receipt names."""
    position = receipt["ledger_position"] or {"sequence": 0, "hash": b""}
    sequence: int = position["sequence"]
    check(len(position["hash"]) == 32, "LEDGER_POSITION")
    check(sequence >= len(ledger.hashes) or ledger.hashes[sequence] == position["hash"], "LEDGER_POSITION")
    return sequence


def check_node(signed: dict[str, Any], receipt: dict[str, Any], executor: str, ledger: Ledger) -> None:
    """Check that the organization's own node signed a receipt, and was admitted at the entry that it names."""
    node = ledger.nodes.get(receipt["node_id"])
    if node is None:
        raise NodeUnknown
    check(node.organization_id == executor, "NODE")
    check_signed(signed, "RECEIPT", node.key, ledger.genesis, "SIGNATURE")
    if not node.holds_at(check_position(receipt, ledger)):
        raise NodeUnknown


def check_outcome(receipt: dict[str, Any]) -> None:
    """Check that an outcome and what goes with it agree."""
    outcome, result = receipt["outcome"], receipt["result_digest"]
    check(COMPLETED <= outcome <= EXPIRED, "OUTCOME")
    digests = (result, receipt["input_digest"], receipt["policy_digest"])
    check(all(len(each) in (0, 32) for each in digests), "OUTCOME")
    if outcome == COMPLETED:
        check(result and receipt["reason"] == 0 and receipt["exit_class"] == 0, "OUTCOME")
    check(outcome != CRASHED or receipt["exit_class"] != 0, "OUTCOME")
    check(outcome != REFUSED or receipt["reason"] != 0, "OUTCOME")
    check(outcome < REFUSED or not result, "OUTCOME")
