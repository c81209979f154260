"""A task of Alpha's that Beta executes, and a server that tells of it what a test likes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from folkmoot.client.connection import Connection
from folkmoot.client.opening import result_of
from folkmoot.client.own import Own, Reader
from folkmoot.client.receipts import SeenReceipts
from folkmoot.transport import Keyring
from folkmoot.trust import (
    FolkmootError,
    OrganizationKey,
    Sealed,
    State,
    VerifiedTask,
    seal_bytes,
    sign_receipt,
    timestamp,
    verify_task,
)
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.ledger_pb2 import Encryption
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Run, TaskChain
from folkmoot.v1.task_pb2 import RunState as Told
from tests.builders import NOW, World, randomness, world

RESULT, FAILURE = EnvelopeKind.ENVELOPE_KIND_RESULT, EnvelopeKind.ENVELOPE_KIND_FAILURE


def own_of(lung: World, name: str, *former: OrganizationKey) -> Own:
    """What a client of an organization is, with its key and those that it had."""
    keyring = Keyring(Path("organization.pem"), (lung[name].organization_key, *former))
    return Own("ada", lung.state.member(name), keyring)


@dataclass
class Scene:
    """Alpha has a task executed by Beta and Gamma; a server tells Alpha's client what it likes."""

    folder: Path
    lung: World = field(default_factory=world)
    result_receivers: tuple[str, ...] = ("Alpha",)
    stored: dict[bytes, bytes] = field(default_factory=dict)
    known: State | None = None
    """What the client's copy of the ledger has until it asks for the newest; None: everything."""

    def __post_init__(self) -> None:
        receivers = [self.lung[name].address for name in self.result_receivers]
        signed = self.lung.task("Alpha", ("Beta", "Gamma"), result_receivers=receivers)
        self.task: VerifiedTask = verify_task(TaskChain(specs=[signed]), self.lung.state, now=NOW)
        self.first_key = self.lung["Alpha"].organization_key
        self.run_id = self.task.spec.receivers[0].run_id

    @property
    def connection(self) -> Connection:
        """Alpha's connection, with a server that has stored what the test put there."""

        async def state(*, newest: bool = False) -> Any:
            if newest:
                self.known = None
            return self.known or self.lung.state

        async def reader() -> Reader:
            return own_of(self.lung, "Alpha", self.first_key).reader

        async def download(envelope_digest: bytes) -> AsyncIterator[bytes]:
            if envelope_digest not in self.stored:
                raise FolkmootError(reasons.ERROR_REASON_PAYLOAD_NOT_FOUND, "no such payload")
            yield self.stored[envelope_digest]

        return cast(
            Connection,
            SimpleNamespace(
                state=state,
                reader=reader,
                reference=self.lung.state.reference,
                session=SimpleNamespace(download=download),
                state_directory=self.folder,
                seen_receipts=SeenReceipts(),
            ),
        )

    def sealed(self, content: bytes = b"61.5", *, by: str = "Beta", kind: Any = RESULT, **changes: Any) -> Sealed:
        state, key = self.lung.state, next(iter(self.lung[by].nodes.values()))
        bound = {
            "genesis": state.genesis,
            "kind": kind,
            "task_digest": self.task.digest,
            "task_id": self.task.spec.task_id,
            "run_id": self.run_id,
            "attempt": 1,
            "sender_organization_id": self.lung[by].address,
            "content_type": "application/json",
            "created_at": timestamp(NOW),
            "ledger_sequence": state.position.sequence,
            "ledger_hash": state.position.hash,
        }
        plain = state.encryption == Encryption.ENCRYPTION_PLAIN
        return seal_bytes(
            content,
            context=EnvelopeContext(**(bound | changes)),
            receivers=None if plain else state.receivers(self.task.spec.result_receivers),
            key=key,
            random=randomness("sealing"),
        )

    def receipt(self, sealed: Sealed | None, *, by: str = "Beta", **changes: Any) -> Signed:
        result_digest = sealed.digest if sealed else b""
        receivers = list(self.task.spec.result_receivers) if sealed else []
        said = self.lung.receipt(self.task, by, result_digest=result_digest, result_receivers=receivers, **changes)
        return sign_receipt(said, next(iter(self.lung[by].nodes.values())))

    def run(self, receipt: Signed | None, state: Told.ValueType = Told.RUN_STATE_COMPLETED, **fields: Any) -> Run:
        return Run(run_id=self.run_id, attempt=1, state=state, receipt=receipt, **fields)

    async def result(self, run: Run, envelope: bytes = b"") -> Any:
        return await result_of(self.connection, self.task, run, envelope)
