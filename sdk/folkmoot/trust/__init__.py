"""Trust: keys, signed things, envelopes and the ledger, as pure code that client, node and server share.

Nothing here reads a file, a clock or the network: times (`now`, UTC) and randomness (`random`, such as `os.urandom`) are
passed in. What is refused raises a `TrustError` that carries a reason of the catalogue. Bytes and formats never change:
what the first release signed or sealed, every later one verifies and opens.
"""

from folkmoot.trust.encoding import (
    Reference,
    digest,
    fingerprint,
    pae,
    parse,
    parse_fingerprint,
    serialize,
    timestamp,
    uuid7,
)
from folkmoot.trust.entries import found, make_entry, node_approve_entry, vote_entry
from folkmoot.trust.envelope import (
    Expected,
    Opened,
    Receiver,
    Sealed,
    Sealing,
    open_envelope,
    seal,
    seal_bytes,
)
from folkmoot.trust.envelope_format import BytesSource, FileSource, Inspected, Source, inspect
from folkmoot.trust.errors import (
    EnvelopeRejected,
    FingerprintMissing,
    FolkmootError,
    InvitationInvalid,
    KeyMismatch,
    LedgerEntryInvalid,
    LedgerFork,
    LedgerHeadMoved,
    LedgerUpgradeNeeded,
    Malformed,
    NodeNotApproved,
    OrganizationNotFound,
    SignatureInvalid,
    TaskExpired,
    TaskNotProven,
    TrustError,
    WrongCollaboration,
)
from folkmoot.trust.joining import (
    make_invitation,
    make_join_request,
    make_node_claim,
    read_invitation,
    verify_invitation,
    verify_join_request,
)
from folkmoot.trust.keyfile import (
    dump_invitation,
    dump_organization_key,
    dump_signing_key,
    load_invitation,
    load_organization_key,
    load_signing_key,
)
from folkmoot.trust.keys import DecryptionKey, RsaKey, SigningKey, XWingKey, key_id, wrap
from folkmoot.trust.ledger import replay
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.signed import sign, verify
from folkmoot.trust.state import KeyUse, Member, Node, Position, Request, State, Terms

__all__ = [
    "BytesSource",
    "DecryptionKey",
    "EnvelopeRejected",
    "Expected",
    "FileSource",
    "FingerprintMissing",
    "FolkmootError",
    "Inspected",
    "InvitationInvalid",
    "KeyMismatch",
    "KeyUse",
    "LedgerEntryInvalid",
    "LedgerFork",
    "LedgerHeadMoved",
    "LedgerUpgradeNeeded",
    "Malformed",
    "Member",
    "Node",
    "NodeNotApproved",
    "Opened",
    "OrganizationKey",
    "OrganizationNotFound",
    "Position",
    "Receiver",
    "Reference",
    "Request",
    "RsaKey",
    "Sealed",
    "Sealing",
    "SignatureInvalid",
    "SigningKey",
    "Source",
    "State",
    "TaskExpired",
    "TaskNotProven",
    "Terms",
    "TrustError",
    "WrongCollaboration",
    "XWingKey",
    "digest",
    "fingerprint",
    "found",
    "inspect",
    "key_id",
    "make_entry",
    "make_invitation",
    "make_join_request",
    "make_node_claim",
    "node_approve_entry",
    "open_envelope",
    "pae",
    "parse",
    "parse_fingerprint",
    "read_invitation",
    "replay",
    "seal",
    "seal_bytes",
    "serialize",
    "sign",
    "timestamp",
    "uuid7",
    "verify",
    "verify_invitation",
    "verify_join_request",
    "vote_entry",
    "wrap",
]
