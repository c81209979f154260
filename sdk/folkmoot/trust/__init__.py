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
from folkmoot.trust.keys import DecryptionKey, RsaKey, SigningKey, XWingKey, key_id, wrap
from folkmoot.trust.organization import OrganizationKey
from folkmoot.trust.signed import sign, verify

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
    "LedgerEntryInvalid",
    "LedgerFork",
    "LedgerHeadMoved",
    "LedgerUpgradeNeeded",
    "Malformed",
    "NodeNotApproved",
    "Opened",
    "OrganizationKey",
    "OrganizationNotFound",
    "Receiver",
    "Reference",
    "RsaKey",
    "Sealed",
    "Sealing",
    "SignatureInvalid",
    "SigningKey",
    "Source",
    "TaskExpired",
    "TaskNotProven",
    "TrustError",
    "WrongCollaboration",
    "XWingKey",
    "digest",
    "fingerprint",
    "inspect",
    "key_id",
    "open_envelope",
    "pae",
    "parse",
    "parse_fingerprint",
    "seal",
    "seal_bytes",
    "serialize",
    "sign",
    "timestamp",
    "uuid7",
    "verify",
    "wrap",
]
