"""The ledger of a proof, replayed entry by entry from the file's bytes."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from folkmoot.trust.encoding import digest, fingerprint, parse_fingerprint
from folkmoot.trust.errors import LedgerEntryInvalid, LedgerUpgradeNeeded
from folkmoot.trust.keys import key_id
from folkmoot.trust.ledger import replay
from folkmoot.trust.proof_facts import ProvenLedger
from folkmoot.trust.proof_format import Span, proof_invalid, read_signed
from folkmoot.trust.times import nanoseconds
from folkmoot.v1.keys_pb2 import NodeClaim
from folkmoot.v1.ledger_pb2 import LedgerEntry, NodeApprove, OrganizationVote
from folkmoot.v1.signed_pb2 import Signed


def read_ledger(data: bytes, spans: Sequence[Span]) -> ProvenLedger:
    """Replay the entries that lie there; raise ProofInvalid for the first that is not right, naming it."""
    notes = _Notes()
    try:
        state = replay(notes.watched(data, spans))
    except (LedgerEntryInvalid, LedgerUpgradeNeeded) as error:
        rule = error.metadata.get("rule", "intent").lower().replace("_", " ")
        sequence = len(notes.created_at_nanoseconds)  # An altered entry may say another one of itself.
        raise proof_invalid(f"ledger entry {sequence}: {rule}", error.message) from error
    return ProvenLedger(state, notes.created_at_nanoseconds, notes.requests, notes.invited)


@dataclass
class _Notes:
    """What is noted of entries while they are replayed."""

    created_at_nanoseconds: "array[int]" = field(default_factory=lambda: array("Q"))
    requests: dict[int, bytes] = field(default_factory=dict)
    invited: dict[str, bool] = field(default_factory=dict)

    def watched(self, data: bytes, spans: Sequence[Span]) -> Iterator[Signed]:
        """Yield the entries, noting each when the next one is asked for: it has been accepted then."""
        for sequence, span in enumerate(spans):
            signed = read_signed(data, span, f"ledger entry {sequence}")
            yield signed
            self._note(signed)

    def _note(self, signed: Signed) -> None:
        entry = LedgerEntry.FromString(signed.body)
        self.created_at_nanoseconds.append(nanoseconds(entry.created_at))
        if entry.intent == "organization.vote":
            vote = OrganizationVote.FromString(entry.data)
            if vote.HasField("join_request"):
                self.requests[entry.sequence] = digest(vote.join_request.body)
            elif vote.HasField("join_request_digest"):
                self.requests[entry.sequence] = vote.join_request_digest
        elif entry.intent == "node.approve":
            claim = NodeClaim.FromString(NodeApprove.FromString(entry.data).claim.body)
            by_invitation = signed.key_id != parse_fingerprint(entry.organization_id)
            self.invited[fingerprint(key_id(claim.public_key))] = by_invitation
