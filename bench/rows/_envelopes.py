"""What the envelopes of the trust rows are bound to: an input of a task that does not exist."""

from __future__ import annotations

from datetime import UTC, datetime

from folkmoot.trust import Expected, fingerprint, timestamp
from folkmoot.v1.envelope_pb2 import EnvelopeContext, EnvelopeKind

GENESIS = bytes(32)
_TASK = "0190d7c1-0000-7000-8000-000000000001"
_SENDER = fingerprint(bytes(32))

PLACE = EnvelopeContext(
    genesis=GENESIS,
    kind=EnvelopeKind.ENVELOPE_KIND_INPUT,
    task_id=_TASK,
    sender_organization_id=_SENDER,
    content_type="application/vnd.folkmoot.input",
    created_at=timestamp(datetime.now(UTC)),
    ledger_sequence=1,
    ledger_hash=bytes(32),
)
EXPECTED = Expected(kind=EnvelopeKind.ENVELOPE_KIND_INPUT, task_id=_TASK, sender_organization_id=_SENDER)


def organization(number: int) -> str:
    """An address that nobody has."""
    return fingerprint(number.to_bytes(32, "big"))
