"""The one tree of errors, all of whose reasons stand in the catalogue of the contract (ErrorReason).

FolkmootError                    anything refused, with its reason
└── TrustError                   refused because it is not proven
    ├── Malformed                the bytes have a form that is not allowed
    ├── SignatureInvalid         not signed by whom, or as what, it must be
    ├── EnvelopeRejected         one word outward, the cause for the local log only
    │   └── SealedToOtherKeys    all of it is right, but none of the given keys opens it
    ├── KeyMismatch              a key is missing, unreadable, or another one
    ├── FingerprintMissing       a collaboration is named without, or with a mistyped, fingerprint
    ├── WrongCollaboration       a ledger is not the one that the fingerprint names
    ├── OrganizationNotFound     no member has that name or address
    ├── NodeNotApproved          the ledger does not admit the node
    ├── InvitationInvalid        an invitation is void
    ├── LedgerEntryInvalid       an entry does not follow from the ledger
    │   └── EntryNotPossible     one that is only to be made would not: nothing was signed or sent
    ├── LedgerHeadMoved          another entry was faster
    ├── LedgerUpgradeNeeded      an entry of a later release
    ├── LedgerFork               two entries at one place
    ├── LedgerStale              nobody else has shown a sign of life for too long
    │   └── LedgerBehind         somebody knows entries that this replica does not have
    ├── KeyUnpublished           a member has no keys in the ledger
    ├── EncryptionDisagrees      configuration, ledger and envelope do not agree on encryption
    ├── ProofInvalid             a proof file does not prove what it says
    ├── VaultSecretWrong         the secret does not open the vaulted key
    ├── VaultSecretWeak          the secret is too easy to guess
    ├── VaultDamaged             a vaulted key was altered or is incomplete
    ├── VaultOfAnotherOrganization  a vaulted key belongs to somebody else
    ├── VaultedKeyNotFound       the vault has no such key
    ├── TaskNotProven            a task is not signed as it must be
    │   └── TaskAheadOfLedger    nobody can tell yet: it was made on a newer ledger than this replica's
    └── TaskExpired              a task's time is over

An error's text says what happened; `reason_name` and `help` give the catalogue's word for it and what to do.
"""

# Errors are named after their reasons in the catalogue, which say what is the matter without the word "error".
# ruff: noqa: N818

from collections.abc import Mapping
from typing import ClassVar

from folkmoot.trust.reasons import reason_name, rule_of
from folkmoot.v1.errors_pb2 import ErrorReason


class FolkmootError(Exception):
    """Something was refused.

    `reason` is one of ErrorReason (or a number of a later release's); `message` says what happened, in a sentence;
    `metadata` repeats its variable parts for programs; `violations` are pairs of field path and description.
    """

    def __init__(
        self,
        reason: int,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = violations

    @property
    def reason_name(self) -> str:
        """The reason as people and programs see it, such as "TASK_NOT_FOUND"; a later release's by its number."""
        return reason_name(self.reason)

    @property
    def help(self) -> str:
        """What to do about it, as the catalogue says."""
        return rule_of(self.reason).help


class TrustError(FolkmootError):
    """Refused because it is not proven. Each subclass has its own reason."""

    REASON: ClassVar[ErrorReason.ValueType]

    def __init__(self, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(self.REASON, message, metadata=metadata)


class Malformed(TrustError):
    """The bytes have a form, or a field has a value, that is not allowed."""

    REASON = ErrorReason.ERROR_REASON_MALFORMED


class SignatureInvalid(TrustError):
    """A signature is not that of the expected key over the expected kind, collaboration and body."""

    REASON = ErrorReason.ERROR_REASON_SIGNATURE_INVALID


class EnvelopeRejected(TrustError):
    """An envelope was not accepted. `cause_text` is for the local log: whoever sent the envelope must not learn it."""

    REASON = ErrorReason.ERROR_REASON_ENVELOPE_REJECTED

    def __init__(self, cause_text: str) -> None:
        super().__init__("The envelope was not accepted.")
        self.cause_text = cause_text


class SealedToOtherKeys(EnvelopeRejected):
    """Everything else about the envelope was verified, and it is sealed to none of the given keys."""


class KeyMismatch(TrustError):
    """A key is missing, unreadable, too weak, or not the one that is expected."""

    REASON = ErrorReason.ERROR_REASON_KEY_MISMATCH


class FingerprintMissing(TrustError):
    """A collaboration is named without a fingerprint, or with a mistyped one."""

    REASON = ErrorReason.ERROR_REASON_FINGERPRINT_MISSING


class WrongCollaboration(TrustError):
    """Something belongs to another collaboration than the one that was named."""

    REASON = ErrorReason.ERROR_REASON_WRONG_COLLABORATION


class OrganizationNotFound(TrustError):
    """No member of the collaboration has that name or address."""

    REASON = ErrorReason.ERROR_REASON_ORGANIZATION_NOT_FOUND


class NodeNotApproved(TrustError):
    """The ledger does not admit the node."""

    REASON = ErrorReason.ERROR_REASON_NODE_NOT_APPROVED


class InvitationInvalid(TrustError):
    """An invitation is used, expired, or for something else."""

    REASON = ErrorReason.ERROR_REASON_INVITATION_INVALID


class LedgerEntryInvalid(TrustError):
    """An entry does not follow from the ledger as it stands."""

    REASON = ErrorReason.ERROR_REASON_LEDGER_ENTRY_INVALID


class EntryNotPossible(LedgerEntryInvalid):
    """What somebody wants to do does not follow from the verified ledger. Nothing is wrong with that, and nothing was sent."""

    @property
    def help(self) -> str:
        """What to do about it."""
        return "Nothing was changed. See how things stand: `folkmoot collaboration members`, `requests` and `log`."


class LedgerHeadMoved(TrustError):
    """An entry was made for a head that is no longer the newest."""

    REASON = ErrorReason.ERROR_REASON_LEDGER_HEAD_MOVED


class LedgerUpgradeNeeded(TrustError):
    """The ledger contains entries that this release does not understand."""

    REASON = ErrorReason.ERROR_REASON_LEDGER_UPGRADE_NEEDED


class LedgerFork(TrustError):
    """Two different entries stand at the same place of a ledger."""

    REASON = ErrorReason.ERROR_REASON_LEDGER_FORK


class LedgerStale(TrustError):
    """For too long, no other member has shown that this ledger is the newest one."""

    REASON = ErrorReason.ERROR_REASON_LEDGER_STALE


class LedgerBehind(LedgerStale):
    """Somebody knows entries that this replica does not have: refresh it; if that does not help, the server withholds them."""


class KeyUnpublished(TrustError):
    """A member has no keys in the ledger."""

    REASON = ErrorReason.ERROR_REASON_KEY_UNPUBLISHED


class EncryptionDisagrees(TrustError):
    """Configuration, ledger and envelope do not agree on whether payloads are encrypted."""

    REASON = ErrorReason.ERROR_REASON_ENCRYPTION_DISAGREES


class ProofInvalid(TrustError):
    """A proof file does not prove what it says; the message names the part."""

    REASON = ErrorReason.ERROR_REASON_PROOF_INVALID


class VaultSecretWrong(TrustError):
    """The secret does not open the vaulted key."""

    REASON = ErrorReason.ERROR_REASON_VAULT_SECRET_WRONG


class VaultSecretWeak(TrustError):
    """The vault secret is too easy to guess."""

    REASON = ErrorReason.ERROR_REASON_VAULT_SECRET_WEAK


class VaultDamaged(TrustError):
    """A vaulted key was altered or is incomplete."""

    REASON = ErrorReason.ERROR_REASON_VAULT_DAMAGED


class VaultOfAnotherOrganization(TrustError):
    """A vaulted key belongs to another organization."""

    REASON = ErrorReason.ERROR_REASON_VAULT_OF_ANOTHER_ORGANIZATION


class VaultedKeyNotFound(TrustError):
    """The vault has no such key."""

    REASON = ErrorReason.ERROR_REASON_VAULTED_KEY_NOT_FOUND


class TaskNotProven(TrustError):
    """A task is not signed as it must be, or is not what was signed."""

    REASON = ErrorReason.ERROR_REASON_TASK_NOT_PROVEN


class TaskAheadOfLedger(TaskNotProven):
    """A task was made on a newer ledger than this replica's: refresh the replica, and verify again once."""


class TaskExpired(TrustError):
    """A task's time is over."""

    REASON = ErrorReason.ERROR_REASON_TASK_EXPIRED
