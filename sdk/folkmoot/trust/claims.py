"""What enters a ledger from outside, signed by whoever presents it: organization keys, join requests, invitations, node claims.

Each check is written once, for those who receive such a thing and for replay. They raise RuleBroken.
"""

from folkmoot.trust.encoding import DIGEST_BYTES, FINGERPRINT_PATTERN, NAME_PATTERN, fingerprint, parse
from folkmoot.trust.keys import key_id
from folkmoot.trust.organization import verify_key_claim
from folkmoot.trust.rules import LONGEST_JOIN_REQUEST, LedgerRule, require, under
from folkmoot.trust.signed import verify
from folkmoot.trust.times import in_nanoseconds, nanoseconds
from folkmoot.v1.keys_pb2 import Invitation, KeyKind, NodeClaim, OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import JoinRequest, PostQuantum
from folkmoot.v1.signed_pb2 import Signed, SignedKind

_NONCE_BYTES = 16
_SIGNING_KEY_BYTES = 32


def check_name(name: str) -> None:
    """Check a name. One that looks like an address could be taken for the address of somebody else."""
    require(NAME_PATTERN.fullmatch(name) is not None, LedgerRule.NAME)
    require(FINGERPRINT_PATTERN.fullmatch(name.lower()) is None, LedgerRule.NAME)


def check_signing_key(public: PublicKey) -> None:
    """Check that a key is one that signs."""
    right = public.kind == KeyKind.KEY_KIND_ED25519 and len(public.public) == _SIGNING_KEY_BYTES
    require(right, LedgerRule.KEY_KIND)


def check_nonce(nonce: bytes) -> None:
    """Check a nonce."""
    require(len(nonce) == _NONCE_BYTES, LedgerRule.NONCE)


def check_keys_fit(keys: OrganizationKeys, post_quantum: PostQuantum.ValueType) -> None:
    """Check that a collaboration allows the kind of key that an organization receives with."""
    allowed = post_quantum != PostQuantum.POST_QUANTUM_REQUIRED or keys.encryption.kind == KeyKind.KEY_KIND_X_WING
    require(allowed, LedgerRule.POST_QUANTUM)


def checked_key_claim(signed: Signed, organization_id: str) -> OrganizationKeys:
    """Return the keys that an organization presents."""
    with under(LedgerRule.KEY_CLAIM):
        return verify_key_claim(signed, organization_id=organization_id)


def checked_join_request(signed: Signed, genesis: bytes | None) -> tuple[JoinRequest, OrganizationKeys]:
    """Return a join request for a collaboration (None: for the one that it names) with the keys in it."""
    with under(LedgerRule.REQUEST):
        request = parse(JoinRequest, signed.body)
        created_at, expires_at = nanoseconds(request.created_at), nanoseconds(request.expires_at)
    require(genesis in (None, request.genesis) and len(request.genesis) == DIGEST_BYTES, LedgerRule.REQUEST)
    check_signing_key(request.governance_key)
    with under(LedgerRule.REQUEST):
        kind = SignedKind.SIGNED_KIND_JOIN_REQUEST
        verify(signed, kind=kind, public_key=request.governance_key, genesis=request.genesis)
    check_name(request.name)
    check_nonce(request.nonce)
    require(0 < expires_at - created_at <= in_nanoseconds(LONGEST_JOIN_REQUEST), LedgerRule.REQUEST_TERM)
    keys = checked_key_claim(request.key_claim, address(request.governance_key))
    return request, keys


def checked_node_claim(signed: Signed, genesis: bytes, organization_id: str) -> NodeClaim:
    """Return a node's claim to be one of the organization."""
    with under(LedgerRule.NODE_CLAIM):
        claim = parse(NodeClaim, signed.body)
        nanoseconds(claim.created_at)
    require(claim.genesis == genesis and claim.organization_id == organization_id, LedgerRule.NODE_CLAIM)
    check_signing_key(claim.public_key)
    check_name(claim.node_name)
    with under(LedgerRule.NODE_CLAIM):
        verify(signed, kind=SignedKind.SIGNED_KIND_NODE_CLAIM, public_key=claim.public_key, genesis=genesis)
    return claim


def checked_invitation(signed: Signed, genesis: bytes, organization_id: str, governance_key: PublicKey) -> Invitation:
    """Return an organization's invitation."""
    with under(LedgerRule.INVITATION):
        invitation = parse(Invitation, signed.body)
        created_at, expires_at = nanoseconds(invitation.created_at), nanoseconds(invitation.expires_at)
        kind = SignedKind.SIGNED_KIND_INVITATION
        verify(signed, kind=kind, public_key=governance_key, genesis=genesis)
    require(invitation.genesis == genesis, LedgerRule.INVITATION)
    require(invitation.organization_id == organization_id, LedgerRule.INVITATION)
    require(created_at < expires_at, LedgerRule.INVITATION)
    check_signing_key(invitation.public_key)
    return invitation


def address(governance_key: PublicKey) -> str:
    """Return an organization's address: the fingerprint of its governance key."""
    return fingerprint(key_id(governance_key))
