"""Inputs of a task: arguments as bytes, sealed once for all who get the same, and how they reach the server.

A sealed input of any size takes bounded memory: what exceeds the inline limit goes to a temporary file, ciphertext only.
"""

import os
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from tempfile import SpooledTemporaryFile
from typing import IO, BinaryIO, cast

from folkmoot.algorithm import values
from folkmoot.algorithm.errors import AlgorithmError
from folkmoot.client.own import Own
from folkmoot.transport import INLINE_BYTES, MESSAGE_BYTES
from folkmoot.trust import FileSource, FolkmootError, State, seal, timestamp
from folkmoot.v1 import errors_pb2
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.task_pb2 import TaskInputRef

CONTENT_TYPE = "application/vnd.folkmoot.input"
INLINE_TOTAL_BYTES = MESSAGE_BYTES - 1024 * 1024
"""What envelopes may take of one CreateTask; the rest of the message is left to the spec and the framing."""

Arguments = Mapping[str, object]


@dataclass(frozen=True)
class Group:
    """Organizations that get the same arguments; no names at all mean every receiver."""

    organization_ids: tuple[str, ...]
    receivers: tuple[str, ...]
    arguments: Arguments


def groups(
    organization_ids: Sequence[str], arguments: Arguments, by_organization: Mapping[str, Arguments] | None
) -> list[Group]:
    """One group for all, or one per organization where each has arguments of its own besides the common ones."""
    if not by_organization:
        return [Group((), tuple(organization_ids), arguments)]
    if strangers := sorted(by_organization.keys() - set(organization_ids)):
        raise FolkmootError(
            errors_pb2.ERROR_REASON_ARGUMENTS_INVALID,
            f"arguments are given for organizations that the task is not for: {', '.join(strangers)}",
        )
    return [Group((one,), (one,), {**arguments, **by_organization.get(one, {})}) for one in organization_ids]


@dataclass(frozen=True)
class SealedInput:
    """A sealed input and how the spec names it."""

    reference: TaskInputRef
    file: IO[bytes]

    @property
    def source(self) -> FileSource:
        """The envelope's bytes."""
        return FileSource(cast(BinaryIO, self.file))

    def envelope(self) -> bytes:
        """The whole envelope; only for small ones."""
        self.file.seek(0)
        return self.file.read()


def encode_group(function: str, group: Group) -> Iterable[bytes]:
    """The content of the group's input. Raises NOT_SERIALIZABLE, naming the argument."""
    try:
        return values.encode_input(function, group.arguments).content()
    except AlgorithmError as error:
        raise FolkmootError(error.reason, error.message) from error


def seal_input(
    group: Group,
    *,
    function: str,
    task_id: str,
    own: Own,
    state: State,
    now: datetime,
    expires_at: datetime,
) -> SealedInput:
    """Seal a group's input to its organizations; in a collaboration without encryption, sign it. Raises NOT_SERIALIZABLE."""
    key = own.secret.task_signing
    context = EnvelopeContext(
        genesis=state.genesis,
        kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
        task_id=task_id,
        sender_organization_id=own.member.organization_id,
        content_type=CONTENT_TYPE,
        created_at=timestamp(now),
        expires_at=timestamp(expires_at),
        ledger_sequence=state.position.sequence,
        ledger_hash=state.position.hash,
    )
    sealed = state.encryption != Encryption.ENCRYPTION_PLAIN
    receivers = state.receivers(list(group.receivers)) if sealed else None
    content = encode_group(function, group)
    sealing = seal(content, context=context, receivers=receivers, key=key, random=os.urandom)
    file = SpooledTemporaryFile(max_size=INLINE_BYTES)  # noqa: SIM115 - closed when the sealed input is gone
    for piece in sealing:
        file.write(piece)
    reference = TaskInputRef(
        organization_ids=group.organization_ids, envelope_digest=sealing.digest, size_bytes=sealing.size_bytes
    )
    sealed_input = SealedInput(reference, file)
    weakref.finalize(sealed_input, file.close)
    return sealed_input


def inline(inputs: Sequence[SealedInput]) -> tuple[list[SealedInput], list[SealedInput]]:
    """Which inputs ride along in CreateTask, and which are uploaded before."""
    along: list[SealedInput] = []
    before: list[SealedInput] = []
    room = INLINE_TOTAL_BYTES
    for one in inputs:
        size = one.reference.size_bytes
        if size <= min(INLINE_BYTES, room):
            along.append(one)
            room -= size
        else:
            before.append(one)
    return along, before
