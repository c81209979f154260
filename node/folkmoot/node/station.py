"""A station: one node's part in one collaboration, and everything that its runs share.

Keys stay in here. What leaves is sealed by `seal_small` or through `Envelopes.seal` with `sealing`, and signed by the node's key; what
comes in is opened by `open`, against the station's own verified ledger, and only if its sender has seen the same ledger.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog

from folkmoot.node.config import CollaborationConfig
from folkmoot.node.doubts import WAITS, Doubts
from folkmoot.node.execution.slots import Slots
from folkmoot.node.journal.database import Journal
from folkmoot.node.journal.dataframe_records import StoredDataframe
from folkmoot.node.journal.records import RunRecord
from folkmoot.node.link.connection import Connection
from folkmoot.node.policy.policy_file import PolicyFile
from folkmoot.node.policy.quotas import allowance
from folkmoot.node.policy.signatures import ImageSignatures
from folkmoot.node.policy.verdict import Decision, Usage, decide, facts_of
from folkmoot.node.storage.dataframes import Dataframes
from folkmoot.node.storage.egress import Departure
from folkmoot.node.storage.envelopes import Envelopes
from folkmoot.node.trust.admission import require_not_ended
from folkmoot.node.trust.keys import awaited_key, load_keyring
from folkmoot.node.trust.vault import Vault
from folkmoot.node.waiting import Signal
from folkmoot.transport import INLINE_BYTES, Keyring, Replica, Unreachable
from folkmoot.transport.heads import HeadStatements, SignsOfLife
from folkmoot.transport.storage import told_if_full
from folkmoot.transport.tracing import Tracer
from folkmoot.trust import (
    EncryptionDisagrees,
    Expected,
    Inspected,
    KeyMismatch,
    LedgerBehind,
    LedgerEntryInvalid,
    LedgerFork,
    LedgerStale,
    LedgerUpgradeNeeded,
    NodeNotApproved,
    Opened,
    Position,
    Receiver,
    Sealed,
    Sealing,
    SigningKey,
    Source,
    State,
    VerifiedTask,
    inspect,
    open_envelope,
    seal,
    seal_bytes,
    timestamp,
)
from folkmoot.trust.errors import SealedToOtherKeys
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.keys_pb2 import PublicKey
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.link_pb2 import Availability
from folkmoot.v1.signed_pb2 import Signed

if TYPE_CHECKING:
    from folkmoot.node.metrics import Metrics

Signer: TypeAlias = Callable[[EnvelopeContext], PublicKey]
"""Who may have signed an envelope, by what it says of itself."""

log = structlog.get_logger()


def utc_now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


@dataclass(kw_only=True)
class Station:
    """What the runs of one collaboration share."""

    config: CollaborationConfig
    directory: Path
    runtime_directory: Path
    journal: Journal
    envelopes: Envelopes
    replica: Replica
    connection: Connection
    node_key: SigningKey
    keyring: Keyring
    policy_file: PolicyFile
    slots: Slots
    central_slots: Slots
    vault: Vault | None = None
    """Where the organization's key can be had too; only with the vault secret."""
    tracer: Tracer | None = None
    """Where spans of runs go; None: nowhere."""
    metrics: "Metrics | None" = None
    """What counts runs; None: nothing."""
    now: Callable[[], datetime] = utc_now
    random: Callable[[int], bytes] = os.urandom
    moved: Signal = field(default_factory=Signal)
    """The ledger has grown, or keys have come."""
    people: Signal = field(default_factory=Signal)
    """A person at the station has decided something, or the policy has changed."""
    attached_at: datetime | None = None
    """When the newest session with the server began."""
    availability: Availability.ValueType = Availability.AVAILABILITY_OPEN
    """Whether it takes new work, as a person has set it; the journal has it too."""
    doubts: Doubts = field(init=False)
    heads: HeadStatements = field(init=False)
    signatures: ImageSignatures = field(init=False)
    dataframes: Dataframes = field(init=False)
    _signs: tuple[Position, SignsOfLife] | None = None

    def __post_init__(self) -> None:
        self.dataframes = Dataframes(self.directory, self.journal)
        self.doubts, self.heads = Doubts(self.directory), HeadStatements(self.replica)
        self.signatures = ImageSignatures(
            self.directory,
            keys=lambda: self.policy_file.signer_keys,
            login_file=self.config.registry_login_file,
            patience_seconds=self.config.registry_patience_seconds,
        )

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
        """The organization whose node it is, or was, as the ledger says."""
        node = self.state.nodes.get(self.node_id) or self.state.former_nodes.get(self.node_id)
        return node.organization_id if node else self.state.node(self.node_id).organization_id

    @property
    def sealed(self) -> bool:
        """Whether the collaboration seals its payloads."""
        return self.state.encryption == Encryption.ENCRYPTION_SEALED

    def decide(
        self,
        task: VerifiedTask,
        *,
        function: str | None = None,
        image_signers: frozenset[str] | None = None,
        used_today: Usage | None = None,
        reads: Sequence[StoredDataframe] | None = None,
    ) -> Decision:
        """What the policy in force says of a task, by what is known of it so far: of one that has begun, which dataframes it reads."""
        initiators = tuple((each, self.state.own_name(each)) for each in task.initiators)
        facts = facts_of(task, initiators, self.config.data.keys(), self.config.runtime)
        read = self.dataframes.find(task.spec.session) if reads is None else reads
        lineage = None if read is None else tuple(sorted({label for each in read for label in each.lineage}))
        labels = (*facts.labels, *(lineage or ()))
        voted = self.state.allowed_algorithm(facts.image, function, labels, self.now()) is not None
        facts = replace(facts, lineage=lineage, voted=voted)
        known = replace(facts, function=function, image_signers=image_signers, used_today=used_today)
        return decide(known, self.policy_file.policy)

    def receivers(self, organization_ids: Iterable[str]) -> list[Receiver] | None:
        """Those to seal to; None where payloads stay plain.

        Raises OrganizationNotFound for who is no member any more, KeyUnpublished for who has no key now, EncryptionDisagrees.
        """
        self.require_agreement()
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

    def departure(
        self,
        kind: EnvelopeKind.ValueType,
        digest: bytes,
        size_bytes: int,
        receivers: Iterable[str],
        *,
        in_any_case: bool = False,
    ) -> Departure:
        """What is recorded of an envelope that leaves now: if it fits into the quota, or in any case."""
        now = self.now()
        most = None if in_any_case else allowance(self.policy_file.policy, now)
        return Departure(self.state.genesis, now, kind, digest, size_bytes, tuple(receivers), most)

    # ---- what comes in ----

    async def open(
        self, source: Source, expected: Expected, sender: Signer, inspected: Inspected | None = None
    ) -> Opened:
        """Verify and open an envelope, a large one beside the loop; `inspected`, if that was done before.

        Raises EnvelopeRejected, EncryptionDisagrees; KeyAwaited for one that is sealed to a key of the organization that is not here
        (yet); LedgerStale and LedgerFork if its sender has seen another ledger than this station.
        """
        inspected = inspected or inspect(source)
        if inspected.sealed != self.sealed:
            raise EncryptionDisagrees(
                f"the envelope is {_kind(inspected.sealed)}, the ledger of {self.replica.reference} says {_kind(self.sealed)}"
            )
        if inspected.context.ledger_sequence > self.state.position.sequence:
            await self.catch_up()
        genesis, keys = self.state.genesis, self.keyring.decryption_keys() if self.sealed else None
        opening = partial(
            open_envelope, source, genesis=genesis, expected=expected, sender=sender, keys=keys, inspected=inspected
        )
        try:
            opened = opening() if source.size_bytes <= INLINE_BYTES else await asyncio.to_thread(opening)
        except SealedToOtherKeys as error:
            raise awaited_key(inspected, self.state, self.organization_id) or error from error
        context = opened.context
        self.check_position(Position(context.ledger_sequence, context.ledger_hash), context.sender_organization_id)
        return opened

    def check_position(self, seen: Position, of: str) -> None:
        """Compare what the (proven) sender of something has seen of the ledger with the replica, which `catch_up` has been asked for.

        Raises LedgerStale if the sender knows entries that the server does not give us, LedgerFork if it knows another ledger: its word
        alone, so only what it has sent is refused. Where this release does not understand the newest entries, it can't tell, and lets
        pass what runs already.
        """
        try:
            self.state.check_position(seen.sequence, seen.hash)
        except LedgerBehind as behind:
            if self.doubts.find(ErrorReason.ERROR_REASON_LEDGER_UPGRADE_NEEDED):
                return
            log.critical("node.entries_withheld", sender=of, detail=str(behind))
            raise LedgerStale(
                f"{self.state.organization_name(of)} has seen an entry {seen.sequence} of {self.replica.reference}, and the server gives us "
                f"{self.state.position.sequence} as the newest one: it withholds entries. Ask its operator why",
                metadata=behind.metadata,
            ) from behind
        except LedgerFork as fork:
            log.critical("node.ledger_contradicted", sender=of, detail=str(fork))
            raise

    async def fetch(self, digest: bytes, closing: ExitStack, *, most_bytes: int) -> Source:
        """An envelope that is here, or that the server has; a downloaded one is removed when `closing` closes.

        Raises RemoteError, and EnvelopeRejected for a server that sends more bytes than there can be.
        """
        source = await self.envelopes.open(digest, closing)
        if source is not None:
            return source
        await self.envelopes.fetch(digest, self.connection.download(digest), most_bytes=most_bytes)
        closing.callback(self.envelopes.forget_download, digest)
        fetched = await self.envelopes.open(digest, closing)
        if fetched is None:
            raise FileNotFoundError(digest.hex())
        return fetched

    # ---- the ledger and keys ----

    @property
    def fork(self) -> LedgerFork | None:
        """The fork of the ledger that was seen; new work stops then."""
        return self.replica.fork

    async def refresh(self) -> None:
        """Bring the ledger up to date. Raises LedgerFork, LedgerUpgradeNeeded, LedgerEntryInvalid, RemoteError."""
        await self.connection.authenticated()
        await self.look()

    async def look(self) -> None:
        """`refresh`, without waiting until the server takes this node's token."""
        before = self.replica.state
        try:
            with told_if_full():
                await self.replica.refresh(self.connection.keys, metadata=self.connection.metadata)
        except (LedgerUpgradeNeeded, LedgerEntryInvalid) as error:
            self.doubts.note(error, self.now())
            raise
        else:
            settled = [self.doubts.settle(reason) for reason in WAITS]
            if True in settled:
                self.moved.notify()
        finally:
            if self.replica.state is not before:
                self.moved.notify()

    def doubted(self) -> LedgerStale | LedgerFork | None:
        """Why new work can't rely on the ledger that is here, as far as others' head statements and the clock tell."""
        if self._signs is None or self._signs[0] != self.state.position:
            self.take_heads(())
        assert self._signs is not None  # noqa: S101 - for the type checker
        longest = timedelta(days=self.config.max_head_age_days)
        try:
            self._signs[1].check(self.replica, now=self.now(), max_head_age=longest)
        except (LedgerStale, LedgerFork) as doubt:
            return doubt
        return None

    def take_heads(self, statements: Iterable[Signed]) -> SignsOfLife:
        """Add head statements of other nodes to those that are kept."""
        with told_if_full():
            signs = self.heads.take(statements, own=self.organization_id, now=self.now())
        self._signs = (self.state.position, signs)
        return signs

    async def catch_up(self) -> None:
        """`refresh` for somebody who is ahead, as soon as the server is there; of a ledger of a later release, what can be understood."""
        while True:
            try:
                await self.refresh()
            except LedgerUpgradeNeeded as error:
                log.warning("node.ledger_not_understood", detail=str(error))
            except Unreachable as error:  # The call has paused long enough.
                log.warning("node.ledger_not_followed", detail=str(error))
                continue
            return

    async def look_for_keys(self) -> None:
        """Read the key files again, and tell those who wait for a key."""
        try:
            found = await asyncio.to_thread(
                load_keyring, self.config.organization_key, may_be_empty=self.vault is not None
            )
        except KeyMismatch as error:
            log.warning("node.keys_not_read", detail=str(error))
            return
        if found.decryption_keys().keys() != self.keyring.decryption_keys().keys():
            self.keyring = found
            self.moved.notify()

    def require_agreement(self) -> None:
        """Raise EncryptionDisagrees unless node.toml and the ledger say the same of encryption."""
        if self.config.encryption_kind != self.state.encryption:
            raise EncryptionDisagrees(
                f"node.toml says encryption = {self.config.encryption!r}, the ledger of {self.replica.reference} says "
                f"{_kind(self.sealed)!r}: nothing is done until they agree"
            )

    def require_admitted(self) -> None:
        """Raise NodeNotApproved unless the ledger admits this node."""
        if self.node_id not in self.state.nodes:
            require_not_ended(self.replica, self.node_id)
            raise NodeNotApproved(
                f"the ledger of {self.replica.reference} does not admit the node {self.node_id}: "
                "redeem an invitation with `folkmoot node join`, or have an administrator of your organization approve it"
            )


def _kind(sealed: bool) -> str:  # noqa: FBT001 - names a kind
    return "sealed" if sealed else "plain"
