"""Things signed as their author likes: right in form, wrong where a case wants them wrong."""

from copy import copy
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import SigningKey, serialize, sign, timestamp
from folkmoot.v1.keys_pb2 import Invitation, KeyKind, NodeClaim, OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import (
    CollaborationCreate,
    Decision,
    JoinRequest,
    LedgerEntry,
    NodeApprove,
    OrganizationVote,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import NOW, SECOND, Organization, World, organization, randomness, world

APPROVE, DECLINE = Decision.DECISION_APPROVE, Decision.DECISION_DECLINE
ENTRY = SignedKind.SIGNED_KIND_LEDGER_ENTRY
MINUTE = 60 * SECOND
M = TypeVar("M", bound=Message)
UNKNOWN_FIELD = b"\xfa\x7f\x01x"  # field 2047, one byte long


@cache
def founded() -> World:
    return world(("Alpha", "Beta", "Gamma"))


def base() -> World:
    """Return a collaboration of three with a node each, to be changed by the caller."""
    return fork(founded())


def fork(original: World) -> World:
    """Return a copy that goes its own way."""
    result = copy(original)
    result.entries = list(original.entries)
    result.organizations = {
        name: replace(each, nodes=dict(each.nodes)) for name, each in original.organizations.items()
    }
    result.random = randomness(f"fork of {len(original.entries)}")
    return result


def stamp(moment: datetime, nanoseconds: int = 0) -> Timestamp:
    """Return a time to the nanosecond."""
    result = timestamp(moment)
    total = result.seconds * 1_000_000_000 + result.nanos + nanoseconds
    return Timestamp(seconds=total // 1_000_000_000, nanos=total % 1_000_000_000)


def entry_message(w: World, intent: str, data: Message | bytes, by: str = "Alpha", **changes: Any) -> LedgerEntry:
    """Return the entry that follows; `changes` are fields of LedgerEntry."""
    wish: dict[str, Any] = {
        "sequence": w.state.position.sequence + 1,
        "previous_hash": w.state.position.hash,
        "genesis": w.genesis,
        "intent": intent,
        "organization_id": w[by].address,
        "created_by": "admin",
        "created_at": timestamp(w.now),
        "data_version": 1,
        "data": data if isinstance(data, bytes) else serialize(data),
    }
    return LedgerEntry(**(wish | changes))


def entry(
    w: World, intent: str, data: Message | bytes, by: str = "Alpha", *, key: SigningKey | None = None, **changes: Any
) -> Signed:
    """Return the entry that follows, signed whatever it says."""
    body = serialize(entry_message(w, intent, data, by, **changes))
    return sign(ENTRY, body, key=key or w[by].governance_key, genesis=w.genesis)


def signed_again(
    signed: Signed, kind: SignedKind.ValueType, key: SigningKey, genesis: bytes, /, **changes: Any
) -> Signed:
    """Return something signed with other fields, signed properly."""
    types: dict[int, type[Message]] = {
        SignedKind.SIGNED_KIND_JOIN_REQUEST: JoinRequest,
        SignedKind.SIGNED_KIND_INVITATION: Invitation,
        SignedKind.SIGNED_KIND_NODE_CLAIM: NodeClaim,
        SignedKind.SIGNED_KIND_KEY_CLAIM: OrganizationKeys,
    }
    return sign(kind, serialize(changed(types[kind].FromString(signed.body), **changes)), key=key, genesis=genesis)


def changed(message: M, **changes: Any) -> M:
    """Return a copy with other values; None clears a field."""
    result = type(message)()
    result.CopyFrom(message)
    for name, value in changes.items():
        result.ClearField(name)
        if isinstance(value, Message):
            getattr(result, name).CopyFrom(value)
        elif value is not None:
            setattr(result, name, value)
    return result


def overgrown(message: Message, name: str) -> bytes:
    """Return a message whose number is right only for a reader that cuts off what its 32 bits can't hold."""
    parts = []
    for field, value in message.ListFields():
        only = type(message)()
        only.MergeFrom(message)
        for other, _ in message.ListFields():
            if other is not field:
                only.ClearField(other.name)
        parts.append(serialize(only) if field.name != name else _varint(field.number << 3) + _varint((1 << 32) + value))
    return b"".join(parts)


def _varint(value: int) -> bytes:
    high = value >> 7
    return bytes([value & 0x7F | 0x80]) + _varint(high) if high else bytes([value])


def vote(w: World, request: Signed, by: str = "Alpha", decision: Any = APPROVE, **changes: Any) -> Signed:
    """Return a vote that embeds a request; `changes` are fields of LedgerEntry."""
    return entry(w, "organization.vote", OrganizationVote(join_request=request, decision=decision), by, **changes)


def request(w: World, applicant: Organization | None = None, **changes: Any) -> Signed:
    """Return a join request of Delta's, or somebody else's, with other fields."""
    applicant = applicant or organization("Delta")
    signed = w.join_request(applicant)
    return signed_again(signed, SignedKind.SIGNED_KIND_JOIN_REQUEST, applicant.governance_key, w.genesis, **changes)


def key_claim(owner: Organization, *, genesis: bytes = b"", **changes: Any) -> Signed:
    """Return an organization's key claim with other fields."""
    claim = owner.organization_key.claim(owner.address, 1, NOW)
    signing = owner.organization_key.task_signing
    return signed_again(claim, SignedKind.SIGNED_KIND_KEY_CLAIM, signing, genesis, **changes)


def claimed(w: World, claim: Signed) -> Signed:
    """Return a vote on a request of Delta's with this key claim."""
    return vote(w, request(w, key_claim=claim))


def rsa_public(bits: int) -> PublicKey:
    """Return an RSA public key that looks like one and is the same in every run; nobody has its private half."""
    modulus = int.from_bytes(randomness(f"rsa {bits}")(bits // 8), "big") | 1 | 1 << (bits - 1)
    key = RSAPublicNumbers(65537, modulus).public_key()
    return PublicKey(
        kind=KeyKind.KEY_KIND_RSA, public=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def node_approve(w: World, claim: Signed, by: str = "Alpha", **changes: Any) -> Signed:
    """Return an entry that admits a node, by the governance key."""
    return entry(w, "node.approve", NodeApprove(claim=claim), by, **changes)


def redeem(w: World, invitation: Signed, one_time: SigningKey, node_name: str = "invited", **changes: Any) -> Signed:
    """Return an entry that admits a new node of Alpha's by an invitation."""
    claim = w.claim("Alpha", node_name, SigningKey.generate(w.random))
    data = NodeApprove(claim=claim, invitation=invitation)
    return entry(w, "node.approve", data, key=one_time, **changes)


def new_claim(w: World, **changes: Any) -> Signed:
    """Return the claim of a new node of Alpha's with other fields."""
    node_key = SigningKey.generate(w.random)
    claim = w.claim("Alpha", "new", node_key)
    return signed_again(claim, SignedKind.SIGNED_KIND_NODE_CLAIM, node_key, w.genesis, **changes)


def invite(w: World, key: SigningKey | None = None, **changes: Any) -> tuple[Signed, SigningKey]:
    """Return an invitation of Alpha's with other fields, and its one-time key."""
    file = w.invite("Alpha", "invited")
    key = key or w["Alpha"].governance_key
    signed = signed_again(file.invitation, SignedKind.SIGNED_KIND_INVITATION, key, w.genesis, **changes)
    return signed, SigningKey.from_seed(file.seed)


def founding(**changes: Any) -> Signed:
    """Return a founding entry whose CollaborationCreate has other fields."""
    return founding_entry(data=serialize(changed(founding_data(), **changes)))


def founding_entry(**changes: Any) -> Signed:
    """Return a founding entry with other fields, signed by its founder."""
    message = changed(LedgerEntry.FromString(founded().entries[0].body), **changes)
    return sign(ENTRY, serialize(message), key=founded()["Alpha"].governance_key)


def founding_data() -> CollaborationCreate:
    return CollaborationCreate.FromString(LedgerEntry.FromString(founded().entries[0].body).data)
