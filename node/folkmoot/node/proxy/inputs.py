"""A run's input: the envelope that the signed spec names, opened only if it is exactly that one, sealed by who signed the task."""

from contextlib import ExitStack
from dataclasses import dataclass

from folkmoot.node.station import Station
from folkmoot.trust import EnvelopeRejected, Expected, Malformed, Opened, Source, VerifiedTask, parse
from folkmoot.v1.envelope_pb2 import EnvelopeKind
from folkmoot.v1.task_pb2 import TaskInput

LENGTH_BYTES = 4
MAX_HEAD_BYTES = 3 * 1024 * 1024
"""The head travels to the algorithm in one message; what is larger belongs in attachments."""


@dataclass(frozen=True)
class RunInput:
    """A run's opened input: what to call with what, and where the attachments begin."""

    opened: Opened
    head: TaskInput
    attachments_offset: int


async def open_input(station: Station, task: VerifiedTask, closing: ExitStack) -> RunInput:
    """Get, verify and open this organization's input of a task; it stays open until `closing` closes.

    Raises what `Station.open` does, and RemoteError if it had to be fetched and could not be.
    """
    reference = task.input(station.organization_id)
    source = await station.fetch(reference.envelope_digest, closing, most_bytes=reference.size_bytes)
    return await read_input(station, task, source)


async def read_input(station: Station, task: VerifiedTask, source: Source) -> RunInput:
    """Verify and open this organization's input of a task, wherever it lies. Raises what `Station.open` does."""
    reference = task.input(station.organization_id)
    expected = Expected(
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task.spec.task_id,
        sender_organization_id=task.spec.initiator.organization_id,
        digest=reference.envelope_digest,
    )
    # Whoever signed the task, and nobody else, may have sealed its input.
    opened = await station.open(source, expected, lambda _: task.signer)
    return _read_head(opened)


def _read_head(opened: Opened) -> RunInput:
    beginning = b""
    for piece in opened.read():
        beginning += piece
        end = LENGTH_BYTES + int.from_bytes(beginning[:LENGTH_BYTES], "big")
        if end > MAX_HEAD_BYTES:
            break
        if len(beginning) >= max(end, LENGTH_BYTES):
            return RunInput(opened, _parse_head(beginning[LENGTH_BYTES:end]), end)
    raise EnvelopeRejected("its content is no task input")


def _parse_head(data: bytes) -> TaskInput:
    try:
        return parse(TaskInput, data)
    except Malformed as error:
        raise EnvelopeRejected(f"its head can't be read: {error.message}") from error
