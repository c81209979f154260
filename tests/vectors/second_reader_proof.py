"""A second reader, fourth part: proof files. Written from proof.proto, docs/rules.md and the design alone."""

from typing import Any

from tests.vectors import second_reader_ledger
from tests.vectors.second_reader_ledger import Ledger
from tests.vectors.second_reader_task import (
    REFUSED,
    Ahead,
    NodeUnknown,
    Spec,
    check_node,
    check_outcome,
    check_receipt,
    prove,
)
from tests.vectors.second_reader_wire import SCHEMA, Refused, check, check_signed, fingerprint, nanoseconds, read

# Bytes of what is signed stay bytes here: they are verified as they were received.
SCHEMA["TaskChain"] = {1: ("specs", "*bytes")}
SCHEMA["ProvenTask"] = {1: ("chain", "TaskChain"), 2: ("receipts", "*bytes"), 3: ("approvals", "*bytes")}
SCHEMA["Proof"] = {
    1: ("version", "uint32"),
    2: ("collaboration", "text"),
    3: ("entries", "*bytes"),
    4: ("tasks", "*ProvenTask"),
}
MAGIC = b"FOLKPRF1"
TASK_NOT_PROVEN = 66


def judge(data: bytes, expected: str | None) -> tuple[str, str, dict[str, Any]]:
    """Return verdict, the part that is wrong, and what was proven."""
    try:
        return prove_all(data, expected)
    except Refused as refused:
        return "refused", refused.rule, {}


def prove_all(data: bytes, expected: str | None) -> tuple[str, str, dict[str, Any]]:
    check(data[:8] == MAGIC, "structure")
    proof = read("Proof", data[8:], "structure")
    check(proof["version"] == 1 and proof["entries"] and proof["tasks"], "structure")
    verdict, _, ledger = second_reader_ledger.judge(proof["entries"], None, None)
    check(verdict == "accepted", f"ledger entry {len(ledger.hashes)}")
    name = f"{ledger.terms['name']}@{fingerprint(ledger.genesis)}"
    check(proof["collaboration"] == name, "collaboration")
    proven: list[tuple[list[Spec], list[bytes]]] = []
    tasks = []
    for number, task in enumerate(proof["tasks"], 1):
        check(task["chain"], "structure")
        part = task_part(task, number)
        specs, digests = proven_chain(task["chain"]["specs"], ledger, part)
        if proven:
            check(place(proven[-1][0]) < place(specs), part)
            check(len(digests) > 1 and any(digests[-2] == others[-1] for _, others in proven), part)
        proven.append((specs, digests))
        told = {"task_id": specs[-1]["task_id"], "runs": runs(task, specs, digests, ledger, part)}
        if decided := approvals(task, specs, digests, ledger, part):
            told["approvals"] = decided
        tasks.append(told)
    if expected not in (None, name):
        return "wrong collaboration", "", {}
    return "accepted", "", {"collaboration": name, "head": ledger.hashes[-1].hex(), "tasks": tasks}


def task_part(task: dict[str, Any], number: int) -> str:
    """Return what a task is called, by its own word."""
    part = f"task {number}"
    check(1 <= len(task["chain"]["specs"]) <= 16, "structure")
    spec = read("TaskSpec", read("Signed", task["chain"]["specs"][-1], part)["body"], part)
    return f"task {spec['task_id']}"


def place(specs: list[Spec]) -> tuple[int, str]:
    return len(specs), specs[-1]["task_id"]


def proven_chain(chain: list[bytes], ledger: Ledger, part: str) -> tuple[list[Spec], list[bytes]]:
    try:
        return prove(chain, ledger, None)
    except (Refused, Ahead) as wrong:
        raise Refused(part) from wrong


def runs(
    task: dict[str, Any], specs: list[Spec], digests: list[bytes], ledger: Ledger, part: str
) -> dict[str, list[list[int]]]:
    """Return attempt and outcome of each receipt, by run."""
    executors = {each["run_id"]: each["organization_id"] for each in specs[-1]["receivers"]}
    order = list(executors)
    found: dict[str, list[list[int]]] = {run_id: [] for run_id in executors}
    last = (-1, 0, "")
    for each in task["receipts"]:
        signed = read("Signed", each, part)
        receipt = read("Receipt", signed["body"], part)
        run_id = receipt["run_id"]
        check(run_id in executors, part)
        try:
            if (receipt["outcome"], receipt["reason"]) == (REFUSED, TASK_NOT_PROVEN):
                check_came_altered(signed, receipt, executors[run_id], ledger)
            else:
                check_receipt(signed, specs[-1], digests[-1], run_id, ledger)
            check((receipt["ledger_position"] or {"sequence": 0})["sequence"] < len(ledger.hashes), "LEDGER_POSITION")
            check(last < (order.index(run_id), receipt["attempt"], receipt["node_id"]), "ORDER")
        except (Refused, NodeUnknown) as wrong:
            raise Refused(f"run {run_id}") from wrong
        last = order.index(run_id), receipt["attempt"], receipt["node_id"]
        found[run_id].append([receipt["attempt"], receipt["outcome"]])
    return found


def approvals(
    task: dict[str, Any], specs: list[Spec], digests: list[bytes], ledger: Ledger, part: str
) -> dict[str, list[list[int]]]:
    """Return attempt, subject and decision of each approval, by run."""
    executors = {each["run_id"]: each["organization_id"] for each in specs[-1]["receivers"]}
    order = list(executors)
    found: dict[str, list[list[int]]] = {}
    last = (-1, 0, "", 0)
    for each in task["approvals"]:
        signed = read("Signed", each, part)
        approval = read("Approval", signed["body"], part)
        run_id, attempt, subject = approval["run_id"], approval["attempt"], approval["subject"]
        check(run_id in executors, part)
        try:
            check_approval(signed, approval, specs[-1], digests[-1], executors[run_id], ledger)
            place_here = (order.index(run_id), attempt, fingerprint(signed["key_id"]), subject)
            check(last < place_here, "ORDER")
        except (Refused, NodeUnknown) as wrong:
            raise Refused(f"run {run_id}") from wrong
        last = place_here
        found.setdefault(run_id, []).append([attempt, subject, approval["decision"]])
    return found


def check_approval(
    signed: dict[str, Any], approval: dict[str, Any], spec: Spec, task_digest: bytes, executor: str, ledger: Ledger
) -> None:
    """Check that a node of the run's organization, admitted when the task was there or later, signed a decision about it."""
    check(approval["genesis"] == ledger.genesis and approval["task_digest"] == task_digest, "RUN")
    check(1 <= approval["attempt"] <= spec["max_attempts"], "RUN")
    check(approval["subject"] in (1, 2) and approval["decision"] in (1, 2), "DECISION")
    check(1 <= len(approval["approved_by"].encode()) <= 128, "PERSON")
    nanoseconds(approval["time"], "FORM")
    node = ledger.nodes.get(fingerprint(signed["key_id"]))
    if node is None or (node.until is not None and node.until <= spec["known"]):
        raise NodeUnknown
    check(node.organization_id == executor, "NODE")
    check_signed(signed, "APPROVAL", node.key, ledger.genesis, "SIGNATURE")


def check_came_altered(signed: dict[str, Any], receipt: dict[str, Any], executor: str, ledger: Ledger) -> None:
    """Check a receipt that says that the node was handed something else than the task: it is bound to the run alone."""
    check(receipt["genesis"] == ledger.genesis and receipt["organization_id"] == executor, "RUN")
    check(receipt["exit_class"] in range(7) and receipt["isolation"] in range(4), "FORM")
    check_node(signed, receipt, executor, ledger)
    nanoseconds(receipt["ended_at"], "TIMES")
    check_outcome(receipt)
    check(not receipt["result_receivers"], "RESULT_RECEIVERS")
