"""How commands at the station show runs, stations and results: rows for tables, everything for JSON, results as people read them."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.transport.failures import FAILURE_CONTENT_TYPE
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.proxy_service_pb2 import Failure
from folkmoot.v1.station_service_pb2 import StationRun, StationStatus
from folkmoot.v1.task_pb2 import Approval, ApprovalSubject, RunState, WaitReason

RUN_COLUMNS = ("run", "state", "waits_for", "image", "labels", "initiators", "purpose", "accepted_at", "bytes_out")
MOST_ROWS = 50

ARROW = "application/vnd.apache.arrow.stream"
JSON = "application/json"


def name_of(enum: Any, value: int) -> str:
    """An enum's value in a few lower-case words."""
    text = str(enum.Name(value))
    prefix = str(enum.Name(0)).removesuffix("UNSPECIFIED")
    return text.removeprefix(prefix).lower().replace("_", " ")


def when(message: Message, field: str) -> datetime | None:
    """A time of a message, if it has one."""
    time: Timestamp = getattr(message, field)
    return time.ToDatetime(UTC) if message.HasField(field) else None


def everything(message: Message) -> dict[str, Any]:
    """A message as JSON has it."""
    return dict(MessageToDict(message, preserving_proto_field_name=True))


def run_row(run: StationRun) -> dict[str, Any]:
    """A run as a row."""
    return {
        "run": run.run_id,
        "state": ": ".join([name_of(RunState, run.state), *([reason_name(run.reason)] if run.reason else [])]),
        "waits_for": waits_for(run),
        "image": run.image,
        "labels": list(run.labels),
        "initiators": [peer.name or peer.organization_id for peer in run.initiators],
        "purpose": run.purpose,
        "accepted_at": when(run, "accepted_at"),
        "bytes_out": run.bytes_out,
    }


def waits_for(run: StationRun) -> str:
    """What a run waits for, with the words that it has about it."""
    if run.state == RunState.RUN_STATE_HELD:
        return "release"
    if not run.HasField("waiting"):
        return ""
    what = name_of(WaitReason, run.waiting.reason)
    return f"{what}: {run.waiting.detail}" if run.waiting.detail else what


def run_lines(run: StationRun) -> Iterator[tuple[str, object]]:
    """Everything there is to know before deciding about a run, by what it is."""
    yield "run", f"{run.run_id}, attempt {run.attempt}"
    yield "collaboration", run.collaboration
    yield "state", name_of(RunState, run.state)
    yield "waits for", waits_for(run)
    yield "task", f"{run.task_id} {run.name}".strip()
    yield "asked by", ", then ".join(peer.name or peer.organization_id for peer in run.initiators)
    yield "user", run.user_id
    yield "purpose", run.purpose
    yield "image", run.image
    yield "image id", run.image_id
    yield "signed by", list(run.image_signers)
    yield "function", run.function
    yield "arguments", run.arguments_json
    yield "attachments", [f"{each.name} ({each.content_type}, {each.size_bytes:,} bytes)" for each in run.attachments]
    yield "data", list(run.labels)
    yield "results to", [peer.name or peer.organization_id for peer in run.result_receivers]
    yield "may use", _limits(run)
    yield "may also", _grant(run)
    yield "accepted", when(run, "accepted_at")
    yield "not started after", when(run, "expires_at")
    yield "started", when(run, "started_at")
    yield "ended", when(run, "ended_at")
    yield "at the server", when(run, "delivered_at")
    yield "refused", f"{reason_name(run.reason)} {run.rule}".strip() if run.reason else ""
    yield "bytes out", f"{run.bytes_out:,}"
    yield "held", f"{run.held_bytes:,} bytes wait for a release" if run.held_bytes else ""
    for approval in run.approvals:
        yield "decided", decided(approval)


def decided(approval: Approval) -> str:
    """A person's decision as a sentence."""
    verb = "approved" if approval.decision == Decision.DECISION_APPROVE else "declined"
    what = "that it starts" if approval.subject == ApprovalSubject.APPROVAL_SUBJECT_RUN else "that its result leaves"
    return f"{approval.approved_by} {verb} {what}, {approval.time.ToDatetime(UTC).isoformat(timespec='seconds')}"


def _limits(run: StationRun) -> str:
    limits = run.limits
    return f"{limits.memory_bytes >> 20:,} MiB, {limits.cpu_millis / 1000:g} CPU, {limits.run_time.seconds:,} seconds"


def _grant(run: StationRun) -> list[str]:
    subtasks = f"create {run.grant.subtask_number} subtasks" if run.grant.subtask_depth else ""
    return [each for each in (subtasks, "send messages to siblings" if run.grant.messages else "") if each]


def status_lines(status: StationStatus) -> Iterator[tuple[str, object]]:
    """How a node is in one collaboration."""
    yield "collaboration", status.collaboration
    yield "node", f"{status.node_name} of {status.organization.name} ({status.node_id})".strip()
    yield "availability", name_of(Availability, status.availability)
    yield "attached since", when(status, "attached_since") or "not attached to the server"
    yield "policy", status.policy.digest.hex()
    yield "free slots", f"{status.free_slots} of {status.policy.slots}"
    yield "open runs", status.open_runs
    yield "awaiting approval", status.awaiting_approval
    yield "held results", status.held
    yield "to deliver", status.undelivered
    for problem in status.problems:
        yield "problem", problem


def readable(content_type: str, content: bytes) -> str | None:
    """A result as people read it; None for one that is bytes to them, or something else than its algorithm says."""
    try:
        return _readable(content_type, content)
    except (ValueError, LookupError, RuntimeError, OSError, DecodeError):
        return None


def _readable(content_type: str, content: bytes) -> str | None:
    match content_type.partition(";")[0].strip():
        case kind if kind == JSON:
            return json.dumps(json.loads(content), indent=2, ensure_ascii=False)
        case kind if kind == ARROW:
            return _table(content)
        case kind if kind == FAILURE_CONTENT_TYPE:
            return f"The algorithm failed, and says: {Failure.FromString(content).message}"
        case kind if kind.startswith("text/"):
            return content.decode(errors="replace")
        case _:
            return None


def _table(content: bytes) -> str:
    import pyarrow as pa

    with pa.ipc.open_stream(content) as reader:
        table = reader.read_all()
    table.validate(full=True)  # an algorithm wrote it: what points outside of it must not be followed
    shown = table.slice(0, MOST_ROWS).to_pylist()
    lines = [" | ".join(table.column_names), *(" | ".join(str(value) for value in row.values()) for row in shown)]
    more = table.num_rows - len(shown)
    return "\n".join([*lines, f"… and {more:,} rows more: --output writes all of them"] if more else lines)
