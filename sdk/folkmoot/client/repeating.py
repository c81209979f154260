"""A task once more: what an earlier one asked, as far as the caller can open it, as the parameters of a new one.

Everything but the arguments stands in the signed spec. The arguments are in the input, which is sealed to those who execute the task: the
caller opens it if his organization is one of them. For the new task they are sealed again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, TypedDict, cast

from folkmoot.algorithm import values
from folkmoot.client.connection import Connection
from folkmoot.client.drafting import Earlier, Resources, Subtasks, UsedSession
from folkmoot.client.encryption import check_envelope
from folkmoot.client.inputs import Arguments
from folkmoot.client.opening import check_size, opening_keys
from folkmoot.trust import Expected, FileSource, FolkmootError, VerifiedTask, open_envelope
from folkmoot.trust.times import nanoseconds
from folkmoot.v1 import errors_pb2
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.task_pb2 import Image, MessageGrant, Scratch, TaskInputRef, TaskSpec

_IN_MEMORY_BYTES = 16 << 20
_CALL = frozenset({"function", "arguments", "arguments_by_organization"})


@dataclass(frozen=True)
class EarlierTask:
    """A task that the repeated one came after."""

    id: str
    job_id: str
    digest: bytes


class Changes(TypedDict, total=False):
    """What may be different when a task is repeated: the parameters of `tasks.create`."""

    image: str | Image
    function: str
    organizations: Sequence[str] | None
    study: str
    arguments: Arguments | None
    arguments_by_organization: Mapping[str, Arguments] | None
    labels: Sequence[str]
    name: str
    purpose: str
    result_receivers: Sequence[str] | None
    after: Sequence[Earlier]
    scratch: bool
    session: UsedSession | str
    dataframes: Sequence[str]
    leaves: str
    messages: bool
    subtasks: Subtasks | None
    resources: Resources | None
    max_attempts: int
    expires_in: timedelta


async def asked_before(connection: Connection, task: VerifiedTask, changes: Changes) -> dict[str, Any]:
    """Return the parameters that make a task again, with changes. Raises FolkmootError where the input can't be opened.

    Who gives function and arguments anew needs nothing of the input.
    """
    if task.spec.HasField("parent"):
        raise _not_possible("it is a subtask: repeat the task above it")
    asked = _parameters(task.spec)
    if not {"function", "arguments"} <= changes.keys():
        asked |= await _call(connection, task)
    if "study" in changes or "organizations" in changes:
        asked.pop("organizations")
        if "arguments" not in changes and asked.get("arguments_by_organization"):
            raise _not_possible("each organization got arguments of its own: give `arguments` for those asked now")
    return asked | dict(changes)


def _parameters(spec: TaskSpec) -> dict[str, Any]:
    """What the spec says, as `tasks.create` takes it."""
    session = {"session": spec.session.session_id, "dataframes": list(spec.session.dataframes)}
    nanos = nanoseconds(spec.expires_at) - nanoseconds(spec.created_at)
    return {
        "image": spec.image,
        "organizations": [receiver.organization_id for receiver in spec.receivers],
        "labels": list(spec.labels),
        "name": spec.name,
        "purpose": spec.purpose,
        "result_receivers": list(spec.result_receivers),
        "after": [EarlierTask(one.task_id, spec.job_id, one.task_digest) for one in spec.depends_on],
        "scratch": spec.scratch == Scratch.SCRATCH_JOB,
        "messages": spec.grant.messages == MessageGrant.MESSAGE_GRANT_SIBLINGS,
        "subtasks": _subtasks(spec),
        "resources": _resources(spec),
        "max_attempts": spec.max_attempts,
        "expires_in": timedelta(microseconds=nanos // 1000),
        **(session | {"leaves": spec.session.leaves} if spec.HasField("session") else {}),
    }


def _subtasks(spec: TaskSpec) -> Subtasks | None:
    grant = spec.grant
    return Subtasks(grant.subtask_depth, grant.subtask_number, tuple(grant.images)) if grant.subtask_depth else None


def _resources(spec: TaskSpec) -> Resources | None:
    if not spec.HasField("resources"):
        return None
    asked = spec.resources
    run_time = asked.run_time.ToTimedelta() if asked.HasField("run_time") else None
    return Resources(asked.memory_bytes, asked.cpu_millis, run_time, asked.resource_class)


async def _call(connection: Connection, task: VerifiedTask) -> dict[str, Any]:
    """Function and arguments, from the inputs."""
    own = (await connection.reader()).organization_id
    calls = {}
    for reference in task.spec.inputs:
        executing = reference.organization_ids or [receiver.organization_id for receiver in task.spec.receivers]
        if own not in executing:
            raise _not_possible("its input is sealed to those who executed it, and your organization is not among them")
        calls[tuple(reference.organization_ids)] = await _opened(connection, task, reference)
    (function, *_), arguments = (
        (function for function, _ in calls.values()),
        {key: each for key, (_, each) in calls.items()},
    )
    if () in arguments:
        return {"function": function, "arguments": arguments[()]}
    by_organization = {one: each for key, each in arguments.items() for one in key}
    return {"function": function, "arguments": {}, "arguments_by_organization": by_organization}


async def _opened(connection: Connection, task: VerifiedTask, reference: TaskInputRef) -> tuple[str, dict[str, Any]]:
    """Fetch, verify and open an input: signed by who signed the task, for this task."""
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task.spec.task_id,
        sender_organization_id=task.spec.initiator.organization_id,
        digest=reference.envelope_digest,
    )
    state, keys = await connection.state(), await opening_keys(connection)
    with SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
        async for data in connection.session.download(reference.envelope_digest):
            check_size(file.tell() + len(data), reference.size_bytes)
            file.write(data)
        file.flush()
        source = FileSource(cast(BinaryIO, file))
        check_envelope(source, state)
        opened = await asyncio.to_thread(
            open_envelope,
            source,
            genesis=connection.reference.genesis,
            expected=expected,
            sender=lambda _: task.signer,
            keys=keys,
        )
        return values.decode_input(await asyncio.to_thread(opened.content))


def _not_possible(text: str) -> FolkmootError:
    return FolkmootError(errors_pb2.ERROR_REASON_INVALID_FIELD, f"the task can't be repeated as it was: {text}")
