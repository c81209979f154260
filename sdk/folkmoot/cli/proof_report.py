"""What a verified proof says, as data for programs and as lines for people: who, which image, which data, who received, who voted."""

from collections.abc import Iterable, Iterator
from typing import Any

from folkmoot.client.names import exit_class_name
from folkmoot.client.results import run_state
from folkmoot.trust import MemberProof, NodeProof, Place, RunProof, TaskProof, VerifiedProof, fingerprint, key_id
from folkmoot.trust.reasons import reason_name
from folkmoot.trust.state import State
from folkmoot.trust.times import moment_at, nanoseconds
from folkmoot.v1.keys_pb2 import KeyKind
from folkmoot.v1.ledger_pb2 import Decision, Encryption, Quorum
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject, Image, Isolation, Receipt, TaskSpec


def described(proof: VerifiedProof) -> dict[str, Any]:
    """Everything that a proof says, as JSON has it."""
    ledger, state = proof.ledger, proof.ledger.state
    return {
        "collaboration": str(proof.reference),
        "encrypted": state.encryption == Encryption.ENCRYPTION_SEALED,
        "quorum": Quorum.Name(state.quorum).removeprefix("QUORUM_").lower().replace("_", " "),
        "ledger": {"entries": ledger.head.sequence + 1, "head": state.position.hash.hex(), "time": _time(ledger.head)},
        "members": [_member(each, proof) for each in ledger.members_at(ledger.head.sequence)],
        "nodes": [_node(each, proof) for each in ledger.nodes],
        "tasks": [_task(each, proof) for each in proof.tasks],
        "not_proven": [run.run_id for _, run in proof.unproven],
    }


def lines(facts: dict[str, Any], *, compared: bool) -> Iterator[str]:
    """Give a report; `compared` says that the collaboration is the one that the reader expects."""
    yield "The proof is valid: nothing in it was altered."
    yield f"Collaboration: {facts['collaboration']}"
    if not compared:
        yield "  Compare this with what a member told you, or give it as --collaboration: anybody can found another one of that name."
    ledger = facts["ledger"]
    yield f"Ledger: {ledger['entries']} entries, the newest of {ledger['time']}. What was decided later is not in the proof."
    for task in facts["tasks"]:
        yield ""
        yield from _task_lines(task)
    if facts["not_proven"]:
        yield ""
        yield f"Not proven: how {len(facts['not_proven'])} of the runs ended; no node signed it."
    for each in facts["envelopes"]:
        yield f"{each['file']}: {each['is']}"


# ---- as data -------------------------------------------------------------------------------------------------------


def _member(member: MemberProof, proof: VerifiedProof) -> dict[str, Any]:
    membership, state = member.membership, proof.ledger.state
    keys = member.keys.keys if member.keys else None
    return {
        "name": membership.name,
        "organization_id": membership.organization_id,
        "since": {"entry": member.since.sequence, "time": _time(member.since)},
        "left_at_entry": membership.until.sequence if membership.until else None,
        "removed": membership.removed,
        "founder": member.founder,
        "approved_by": _names(member.approved_by, state),
        "declined_by": _names(member.declined_by, state),
        "encryption_key": fingerprint(key_id(keys.encryption)) if keys else None,
        "encryption_kind": KeyKind.Name(keys.encryption.kind).removeprefix("KEY_KIND_").lower() if keys else None,
        "task_signing_key": fingerprint(key_id(keys.task_signing)) if keys else None,
        "keys_ended": str(member.keys.ending) if member.keys and member.keys.ending else None,
    }


def _node(each: NodeProof, proof: VerifiedProof) -> dict[str, Any]:
    node = each.node
    return {
        "name": node.name,
        "node_id": node.node_id,
        "organization": proof.ledger.state.organization_name(node.organization_id),
        "since": {"entry": each.since.sequence, "time": _time(each.since)},
        "until_entry": node.until.sequence if node.until else None,
        "admitted_by": "invitation" if each.invited else "governance key",
    }


def _task(each: TaskProof, proof: VerifiedProof) -> dict[str, Any]:
    spec, state = each.task.spec, proof.ledger.state
    return {
        "task_id": spec.task_id,
        "digest": each.task.digest.hex(),
        "job_id": spec.job_id,
        "parent_task_id": spec.parent.task_id,
        "name": spec.name,
        "purpose": spec.purpose,
        "initiator": state.organization_name(spec.initiator.organization_id),
        "user": spec.initiator.user_id,
        "initiators": _names(each.task.initiators, state),
        "image": _image(spec.image),
        "labels": list(spec.labels),
        "organizations": _names((one.organization_id for one in spec.receivers), state),
        "result_receivers": _names(spec.result_receivers, state),
        "inputs": [reference.envelope_digest.hex() for reference in spec.inputs],
        "depends_on": [one.task_id for one in spec.depends_on],
        "created_at": _moment(spec, "created_at"),
        "expires_at": _moment(spec, "expires_at"),
        "made_at_entry": each.made_at.sequence,
        "signer_revoked_at_entry": each.task.revoked_at,
        "members": [_member(member, proof) for member in proof.ledger.members_at(each.made_at.sequence)],
        "runs": [_run(run, proof) for run in each.runs],
    }


def _run(run: RunProof, proof: VerifiedProof) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "organization": proof.ledger.state.organization_name(run.organization_id),
        "proven": run.proven,
        "attempts_of_several_nodes": list(run.shared_attempts),
        "receipts": [_receipt(receipt, proof) for receipt in run.receipts],
        "approvals": [_approval(approval) for approval in run.approvals],
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "attempt": approval.attempt,
        "subject": ApprovalSubject.Name(approval.subject).removeprefix("APPROVAL_SUBJECT_").lower(),
        "decision": Decision.Name(approval.decision).removeprefix("DECISION_").lower(),
        "approved_by": approval.approved_by,
        "time": _moment(approval, "time"),
    }


def _receipt(receipt: Receipt, proof: VerifiedProof) -> dict[str, Any]:
    state = proof.ledger.state
    node = state.node_at(receipt.node_id, receipt.ledger_position.sequence)
    return {
        "attempt": receipt.attempt,
        "node": node.name,
        "node_id": node.node_id,
        "outcome": str(run_state(receipt.outcome)),
        "exit_class": exit_class_name(receipt.exit_class),
        "reason": reason_name(receipt.reason) if receipt.reason else "",
        "rule": receipt.rule,
        "image_id": receipt.image_id,
        "isolation": Isolation.Name(receipt.isolation).removeprefix("ISOLATION_").lower().replace("_", " "),
        "policy_digest": receipt.policy_digest.hex(),
        "input_digest": receipt.input_digest.hex(),
        "result_digest": receipt.result_digest.hex(),
        "bytes_out": receipt.bytes_out,
        "result_receivers": _names(receipt.result_receivers, state),
        "started_at": _moment(receipt, "started_at") if receipt.HasField("started_at") else None,
        "ended_at": _moment(receipt, "ended_at"),
        "ledger_entry": receipt.ledger_position.sequence,
    }


def _image(image: Image) -> str:
    match image.WhichOneof("source"):
        case "registry":
            return f"{image.registry.repository}@{image.registry.digest}"
        case "local":
            return f"local:{image.local.id}" + (f" ({image.local.name})" if image.local.name else "")
        case _:
            return f"process:{image.process.module} (tree {image.process.tree_hash.hex()})"


def _names(organization_ids: Iterable[str], state: State) -> list[str]:
    return [state.organization_name(each) for each in organization_ids]


def _time(place: Place) -> str:
    return place.time.isoformat(timespec="seconds")


def _moment(message: TaskSpec | Receipt | Approval, field: str) -> str:
    return moment_at(nanoseconds(getattr(message, field))).isoformat(timespec="milliseconds")


# ---- as lines ------------------------------------------------------------------------------------------------------


def _task_lines(task: dict[str, Any]) -> Iterator[str]:
    name = f' "{task["name"]}"' if task["name"] else ""
    below = f", below {task['parent_task_id']}" if task["parent_task_id"] else ""
    yield f"Task {task['task_id']}{name}{below}"
    yield f"  asked by      {task['initiator']}{', user ' + task['user'] if task['user'] else ''}, {task['created_at']}"
    yield f"  asked of      {', '.join(task['organizations'])}"
    yield f"  image         {task['image']}"
    yield f"  data          {', '.join(task['labels']) or '(none)'}"
    yield f"  results to    {', '.join(task['result_receivers'])}"
    if task["purpose"]:
        yield f"  purpose       {task['purpose']}"
    if task["signer_revoked_at_entry"] is not None:
        yield f"  NOTE          a key that signed it was revoked later, by entry {task['signer_revoked_at_entry']}"
    yield f"  members then  as of entry {task['made_at_entry']}:"
    for member in task["members"]:
        yield f"    {member['name']}: {_admission(member)}"
    for run in task["runs"]:
        yield from _run_lines(run)


def _admission(member: dict[str, Any]) -> str:
    if member["founder"]:
        came = "founded the collaboration"
    else:
        came = f"entry {member['since']['entry']}, approved by {', '.join(member['approved_by'])}"
        came += f", declined by {', '.join(member['declined_by'])}" if member["declined_by"] else ""
    if member["left_at_entry"] is None:
        return came
    return f"{came}; {'voted out' if member['removed'] else 'left'} by entry {member['left_at_entry']}"


def _run_lines(run: dict[str, Any]) -> Iterator[str]:
    if not run["proven"]:
        yield f"  run of {run['organization']}: NOT PROVEN, no node signed how it ended"
    for attempt in run["attempts_of_several_nodes"]:
        yield f"  run of {run['organization']}: attempt {attempt} was GIVEN TO SEVERAL NODES; the server lied, or had been restored"
    for approval in run["approvals"]:
        what = "that it starts" if approval["subject"] == "run" else "that its result leaves"
        verb = "approved" if approval["decision"] == "approve" else "declined"
        yield f"  run of {run['organization']}: {approval['approved_by']} {verb} {what}, attempt {approval['attempt']}, {approval['time']}"
    for receipt in run["receipts"]:
        why = " ".join(filter(None, (receipt["exit_class"], receipt["reason"], receipt["rule"])))
        yield f"  run of {run['organization']}: proven {receipt['outcome']}{f' ({why})' if why else ''}"
        started = f"{receipt['started_at']} to " if receipt["started_at"] else ""
        yield f"    node {receipt['node']}, attempt {receipt['attempt']}, {started}{receipt['ended_at']}"
        if receipt["image_id"]:
            yield f"    executed {receipt['image_id']}, isolation: {receipt['isolation']}"
        sealed = f"; result {receipt['result_digest']} sealed to {', '.join(receipt['result_receivers'])}"
        yield f"    {receipt['bytes_out']:,} bytes left the station{sealed if receipt['result_digest'] else ''}"
