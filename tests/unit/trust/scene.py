"""Who takes part in the tests of trust, made anew from fixed seeds: the same keys and envelopes' contents each time."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from folkmoot.trust import (
    BytesSource,
    DecryptionKey,
    Expected,
    Opened,
    Receiver,
    RsaKey,
    Sealed,
    SigningKey,
    XWingKey,
    fingerprint,
    open_envelope,
    seal_bytes,
    timestamp,
    uuid7,
)
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind
from folkmoot.v1.keys_pb2 import PublicKey

NOW = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
GENESIS = hashlib.sha256(b"genesis").digest()
TASK_DIGEST = hashlib.sha256(b"task").digest()


def seeded(name: str) -> Callable[[int], bytes]:
    """Return randomness that is the same for the same name."""
    state = hashlib.shake_256(name.encode())
    taken = 0

    def random(length: int) -> bytes:
        nonlocal taken
        taken += length
        return state.digest(taken)[-length:]

    return random


def identifier(name: str) -> str:
    return uuid7(NOW, seeded(name))


def address(name: str) -> str:
    return fingerprint(hashlib.sha256(name.encode()).digest())


@cache
def signing_key(name: str) -> SigningKey:
    return SigningKey.generate(seeded(name))


@cache
def x_wing_key(name: str) -> XWingKey:
    return XWingKey.generate(seeded(name))


@cache
def rsa_key() -> RsaKey:
    return RsaKey.generate(3072)


def result_context(**changes: Any) -> EnvelopeContext:
    context = EnvelopeContext(
        genesis=GENESIS,
        kind=EnvelopeKind.ENVELOPE_KIND_RESULT,
        task_digest=TASK_DIGEST,
        task_id=identifier("task"),
        run_id=identifier("run"),
        attempt=1,
        sender_organization_id=address("Alpha"),
        content_type="application/json",
        created_at=timestamp(NOW),
        ledger_sequence=7,
        ledger_hash=hashlib.sha256(b"head").digest(),
    )
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def input_context(**changes: Any) -> EnvelopeContext:
    unbound = {"kind": EnvelopeKind.ENVELOPE_KIND_INPUT, "task_digest": b"", "run_id": "", "attempt": 0}
    return result_context(**unbound | changes)


def expected_of(context: EnvelopeContext) -> Expected:
    return Expected(
        kind=context.kind,
        task_id=context.task_id,
        task_digest=context.task_digest,
        run_id=context.run_id,
        attempt=context.attempt,
        sequence=context.sequence,
        sender_organization_id=context.sender_organization_id,
    )


@dataclass(frozen=True)
class Scene:
    """Alpha's node sends to Beta (X-Wing) and Gamma (RSA); `plain` says that the collaboration doesn't encrypt."""

    context: EnvelopeContext = field(default_factory=result_context)
    plain: bool = False
    sender: SigningKey = field(default_factory=lambda: signing_key("node of Alpha"))

    @property
    def receivers(self) -> Sequence[Receiver] | None:
        if self.plain:
            return None
        return [
            Receiver(address("Beta"), x_wing_key("Beta").public),
            Receiver(address("Gamma"), rsa_key().public),
        ]

    def seal(self, content: bytes = b"content") -> Sealed:
        return seal_bytes(
            content, context=self.context, receivers=self.receivers, key=self.sender, random=seeded("envelope")
        )

    def open(
        self,
        envelope: bytes,
        *,
        keys: Iterable[DecryptionKey] | None = None,
        sender: PublicKey | None = None,
        now: datetime | None = None,
        genesis: bytes = GENESIS,
        **expected: Any,
    ) -> Opened:
        keys = [x_wing_key("Beta")] if keys is None else keys
        return open_envelope(
            BytesSource(envelope),
            genesis=genesis,
            expected=replace(expected_of(self.context), **expected),
            sender=lambda context: sender or self.sender.public,
            keys=None if self.plain else {key.key_id: key for key in keys},
            now=now,
        )
