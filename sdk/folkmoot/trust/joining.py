"""Joining: what an organization and a machine make before they belong to a collaboration, and what shows that it is right.

An organization's admin makes a join request, which members vote on. A member's admin makes an invitation; the machine
that holds its one-time key makes a node key and a claim, and both together are the entry that admits the node.
"""

from datetime import datetime, timedelta

from folkmoot.trust.claims import checked_invitation, checked_join_request, checked_node_claim
from folkmoot.trust.encoding import Random, Reference, parse, serialize, timestamp
from folkmoot.trust.errors import InvitationInvalid, Malformed, WrongCollaboration
from folkmoot.trust.keys import SigningKey, key_id
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.rules import CLOCK_SKEW, LONGEST_JOIN_REQUEST, LedgerRule, RuleBroken, require
from folkmoot.trust.signed import sign
from folkmoot.trust.state import State
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.keys_pb2 import Invitation, InvitationFile, NodeClaim
from folkmoot.v1.ledger_pb2 import JoinRequest
from folkmoot.v1.signed_pb2 import Signed, SignedKind

_NONCE_BYTES = 16


def make_join_request(
    *,
    genesis: bytes,
    name: str,
    governance_key: SigningKey,
    organization_key: OrganizationKey,
    now: datetime,
    random: Random,
    generation: int = 1,
    valid_for: timedelta = LONGEST_JOIN_REQUEST,
) -> Signed:
    """Make an organization's wish to join."""
    request = JoinRequest(
        version=1,
        genesis=genesis,
        name=name,
        governance_key=governance_key.public,
        key_claim=organization_key.claim(governance_key.fingerprint, generation, now),
        nonce=random(_NONCE_BYTES),
        created_at=timestamp(now),
        expires_at=timestamp(now + valid_for),
    )
    signed = sign(SignedKind.SIGNED_KIND_JOIN_REQUEST, serialize(request), key=governance_key, genesis=genesis)
    verify_join_request(signed, now, genesis=genesis)
    return signed


def verify_join_request(signed: Signed, now: datetime | None = None, *, genesis: bytes | None = None) -> JoinRequest:
    """Return a join request that is whole in itself; raise Malformed.

    Checked: form, signatures, keys, name, and with `now` that it is neither expired nor from the future. `genesis` is
    the collaboration that it must be for, None where it may say so itself. Whether the name is free, votes decide.
    """
    try:
        request, _ = checked_join_request(signed, genesis)
        if now is not None:
            latest = nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW)
            require(nanoseconds(request.created_at) <= latest, LedgerRule.TIME_AHEAD)
            require(nanoseconds_at(now) < nanoseconds(request.expires_at), LedgerRule.REQUEST_EXPIRED)
    except RuleBroken as broken:
        raise Malformed(f"The join request breaks a rule: {broken}", metadata=broken.metadata) from broken
    return request


def make_invitation(
    state: State,
    *,
    governance_key: SigningKey,
    node_name: str,
    server_address: str,
    server_certificate_authority: str,
    now: datetime,
    valid_for: timedelta,
    random: Random,
) -> InvitationFile:
    """Make the permission for one machine to become the node of that name. The file holds the one-time key: secret."""
    one_time = SigningKey.generate(random)
    invitation = Invitation(
        version=1,
        genesis=state.genesis,
        organization_id=governance_key.fingerprint,
        node_name=node_name,
        public_key=one_time.public,
        server_address=server_address,
        server_certificate_authority=server_certificate_authority,
        created_at=timestamp(now),
        expires_at=timestamp(now + valid_for),
    )
    body = serialize(invitation)
    signed = sign(SignedKind.SIGNED_KIND_INVITATION, body, key=governance_key, genesis=state.genesis)
    verify_invitation(signed, state, now=now)
    return InvitationFile(invitation=signed, seed=one_time.seed, collaboration=str(state.reference))


def verify_invitation(signed: Signed, state: State, *, now: datetime) -> Invitation:
    """Return an invitation that a member has written and nobody has used; raise InvitationInvalid."""
    try:
        invitation = parse(Invitation, signed.body)
        require(state.is_member(invitation.organization_id), LedgerRule.SIGNER)
        governance_key = state.members[invitation.organization_id].governance_key
        checked_invitation(signed, state.genesis, invitation.organization_id, governance_key)
        require(nanoseconds_at(now) < nanoseconds(invitation.expires_at), LedgerRule.INVITATION_EXPIRED)
        require(not state.is_used(key_id(invitation.public_key)), LedgerRule.INVITATION_USED)
        taken = (invitation.organization_id, invitation.node_name.lower()) in state.used_names
        require(not taken, LedgerRule.NAME_TAKEN)
    except Malformed as error:
        raise InvitationInvalid(error.message) from error
    except RuleBroken as broken:
        raise InvitationInvalid(f"The invitation breaks a rule: {broken}", metadata=broken.metadata) from broken
    return invitation


def read_invitation(file: InvitationFile) -> tuple[Invitation, Reference, SigningKey]:
    """Return what an invitation file says, before there is a ledger to verify it with, and its one-time key.

    Raises InvitationInvalid when its parts don't belong together, WrongCollaboration when it names two collaborations.
    """
    try:
        invitation = parse(Invitation, file.invitation.body)
    except Malformed as error:
        raise InvitationInvalid(error.message) from error
    reference, one_time = Reference.parse(file.collaboration), SigningKey.from_seed(file.seed)
    if reference.genesis != invitation.genesis:
        raise WrongCollaboration(f"The invitation is for another collaboration than {reference}")
    if one_time.public != invitation.public_key:
        raise InvitationInvalid("The file's one-time key is not that of its invitation")
    return invitation, reference, one_time


def make_node_claim(
    *, genesis: bytes, organization_id: str, node_name: str, node_key: SigningKey, now: datetime
) -> Signed:
    """Make a node's claim, by the node itself."""
    claim = NodeClaim(
        version=1,
        genesis=genesis,
        organization_id=organization_id,
        node_name=node_name,
        public_key=node_key.public,
        created_at=timestamp(now),
    )
    return sign(SignedKind.SIGNED_KIND_NODE_CLAIM, serialize(claim), key=node_key, genesis=genesis)


def verify_node_claim(signed: Signed) -> NodeClaim:
    """Return a node's claim that is whole in itself: form, name, and the signature of the key that it presents; raise Malformed.

    Whether its organization is a member, and name and key are free, the ledger that it names has to say.
    """
    claim = parse(NodeClaim, signed.body)
    try:
        return checked_node_claim(signed, claim.genesis, claim.organization_id)
    except RuleBroken as broken:
        raise Malformed(f"The node's claim breaks a rule: {broken}", metadata=broken.metadata) from broken
