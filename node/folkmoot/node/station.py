"""A station: one node's part in one collaboration, and everything that its runs share.

Keys stay in here. What leaves is sealed by `seal_small` or through `Envelopes.seal` with `sealing`, and signed by the node's key; what
comes in is opened by `open`, against the station's own verified ledger.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

from folkmoot.node.config import CollaborationConfig
from folkmoot.node.connection import Connection
from folkmoot.node.envelopes import Envelopes
from folkmoot.node.journal import Journal
from folkmoot.node.policy import Decision, Policy, decide, facts_of, load_policy
from folkmoot.node.records import RunRecord
from folkmoot.node.slots import Slots
from folkmoot.transport import INLINE_BYTES, Replica
from folkmoot.trust import (
    DecryptionKey,
    EnvelopeRejected,
    Expected,
    LedgerFork,
    NodeNotApproved,
    Opened,
    OrganizationKey,
    Receiver,
    Sealed,
    Sealing,
    SigningKey,
    Source,
    State,
    VerifiedTask,
    fingerprint,
    open_envelope,
    seal,
    seal_bytes,
    timestamp,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.ledger_pb2 import Encryption


class PolicyFile:
    """The policy in force, and its digest; `reload` reads the file again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.policy: Policy
        self.digest: bytes
        self.reload()

    def reload(self) -> None:
        """Put what the file says now in force; if it can't be read, what was in force stays and FolkmootError is raised."""
        self.policy, self.digest = load_policy(self._path)


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


@dataclass(kw_only=True)
class Station:
    """What the runs of one collaboration share. `fork` is set once the server has shown two ledgers: new work stops then."""

    config: CollaborationConfig
    directory: Path
    runtime_directory: Path
    journal: Journal
    envelopes: Envelopes
    replica: Replica
    connection: Connection
    node_key: SigningKey
    organization_key: OrganizationKey
    policy_file: PolicyFile
    slots: Slots
    central_slots: Slots
    now: Callable[[], datetime] = utc_now
    random: Callable[[int], bytes] = os.urandom
    fork: LedgerFork | None = None

    @cached_property
    def decryption_keys(self) -> Mapping[bytes, DecryptionKey]:
        """The organization's keys that receive, by id."""
        encryption = self.organization_key.encryption
        return {encryption.key_id: encryption}

    @property
    def state(self) -> State:
        """The verified ledger."""
        return self.replica.verified

    @property
    def node_id(self) -> str:
        """The node."""
        return self.node_key.fingerprint

    @property
    def organization_id(self) -> str:
        """The organization whose node it is, as the ledger says."""
        return self.state.node(self.node_id).organization_id

    @property
    def sealed(self) -> bool:
        """Whether the collaboration seals its payloads."""
        return self.state.encryption == Encryption.ENCRYPTION_SEALED

    def decide(self, task: VerifiedTask) -> Decision:
        """What the policy in force says of a task."""
        initiators = tuple((each, self.state.member(each).name) for each in task.initiators)
        facts = facts_of(task.spec, initiators, self.config.data.keys(), self.config.runtime)
        return decide(facts, self.policy_file.policy)

    def receivers(self, organization_ids: Iterable[str]) -> list[Receiver] | None:
        """Those to seal to; None where payloads stay plain."""
        return self.state.receivers(organization_ids) if self.sealed else None

    def context(
        self, kind: EnvelopeKind.ValueType, record: RunRecord, *, content_type: str, sequence: int = 0
    ) -> EnvelopeContext:
        """What an envelope of a run is bound to."""
        position = self.state.position
        return EnvelopeContext(
            genesis=self.state.genesis,
            kind=kind,
            task_digest=record.task_digest,
            task_id=record.task_id,
            run_id=record.run_id,
            attempt=record.attempt,
            sequence=sequence,
            sender_organization_id=self.organization_id,
            content_type=content_type,
            created_at=timestamp(self.now()),
            ledger_sequence=position.sequence,
            ledger_hash=position.hash,
        )

    def seal_small(self, content: bytes, context: EnvelopeContext, organization_ids: Iterable[str]) -> Sealed:
        """Seal something small."""
        receivers = self.receivers(organization_ids)
        return seal_bytes(content, context=context, receivers=receivers, key=self.node_key, random=self.random)

    def sealing(
        self, context: EnvelopeContext, organization_ids: Iterable[str]
    ) -> Callable[[Iterator[bytes]], Sealing]:
        """A function that seals a stream; what it is bound to is fixed now."""
        receivers = self.receivers(organization_ids)
        return lambda content: seal(
            content, context=context, receivers=receivers, key=self.node_key, random=self.random
        )

    async def open(self, source: Source, expected: Expected, sender: Callable[[EnvelopeContext], PublicKey]) -> Opened:
        """Verify and open an envelope, a large one beside the loop. Raises EnvelopeRejected."""
        opening = partial(
            open_envelope,
            source,
            genesis=self.state.genesis,
            expected=expected,
            sender=sender,
            keys=self.decryption_keys if self.sealed else None,
        )
        return opening() if source.size_bytes <= INLINE_BYTES else await asyncio.to_thread(opening)

    async def fetch(self, digest: bytes, closing: ExitStack, *, most_bytes: int) -> Source:
        """An envelope that is here, or that the server has; a downloaded one is removed when `closing` closes.

        Raises RemoteError, and EnvelopeRejected for a server that sends more bytes than there can be.
        """
        source = await self.envelopes.open(digest, closing)
        if source is not None:
            return source
        await self.envelopes.fetch(digest, _bounded(self.connection.download(digest), most_bytes))
        closing.callback(self.envelopes.forget_download, digest)
        fetched = await self.envelopes.open(digest, closing)
        if fetched is None:
            raise FileNotFoundError(digest.hex())
        return fetched

    async def refresh(self) -> None:
        """Bring the ledger up to date. Raises LedgerFork, LedgerEntryInvalid, RemoteError."""
        await self.connection.authenticated()
        try:
            await self.replica.refresh(self.connection.keys, metadata=self.connection.metadata)
        except LedgerFork as fork:
            self.fork = fork
            raise

    def node_sender(self, organization_id: str) -> Callable[[EnvelopeContext], PublicKey]:
        """Who may sign for runs of an organization: each of its nodes, as the ledger shows them."""

        def key(context: EnvelopeContext) -> PublicKey:
            node = self.state.nodes.get(fingerprint(context.sender_key_id))
            if node is None or node.organization_id != organization_id:
                raise EnvelopeRejected("its sender is no node of the organization that it names")
            return node.public_key

        return key

    def require_admitted(self) -> None:
        """Raise NodeNotApproved unless the ledger admits this node."""
        if self.node_id not in self.state.nodes:
            raise NodeNotApproved(
                f"the ledger of {self.replica.reference} does not admit the node {self.node_id}: "
                "redeem an invitation with `folkmoot node join`, or have an administrator of your organization approve it"
            )


async def _bounded(pieces: AsyncIterator[bytes], most_bytes: int) -> AsyncIterator[bytes]:
    """Pass a download on; end one that would fill the disk."""
    size_bytes = 0
    async for piece in pieces:
        size_bytes += len(piece)
        if size_bytes > most_bytes:
            raise EnvelopeRejected(f"the server sends more than the {most_bytes} bytes that it has")
        yield piece
