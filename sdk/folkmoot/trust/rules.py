"""The rules that signed things keep, each with its name and its sentence. What refuses names the rule that was broken.

A rule's name stands in an error's metadata ("rule") and in the test vectors; its sentence is what people read. Rules of
the ledger decide what counts as history: later releases add intents and rules for them, but never let in what these
rules refuse, nor refuse what they let in.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import Enum

from folkmoot.trust.errors import Malformed, SignatureInvalid

CLOCK_SKEW = timedelta(minutes=5)
LONGEST_JOIN_REQUEST = timedelta(days=90)
LONGEST_TASK = timedelta(days=7)
REMOVAL_TERM = timedelta(days=90)
LONGEST_REFERENCE_BYTES = 128  # opaque references to people, and words
LONGEST_IMAGE_BYTES = 512


class LedgerRule(Enum):
    """Rules of replay."""

    # of every entry
    FORM = "entry and data are messages of this release, in canonical form, without unknown fields"
    SEQUENCE = "an entry's sequence is one more than that of the entry before it, and 0 in the first"
    PREVIOUS_HASH = "an entry names the hash of the entry before it, and none in the first"
    GENESIS = "an entry names the hash of the first one, and none in the first"
    TIME = "created_at is set and lies between the years 1970 and 9999"
    TIME_ORDER = "created_at is not earlier than that of the entry before it"
    TIME_AHEAD = "created_at is at most 5 minutes ahead of the reader's clock"
    CREATED_BY = "created_by is a reference of at most 128 bytes"
    FOUNDING = "the first entry is a collaboration.create, and no other one is"
    SIGNER = "organization_id is that of a current member"
    SIGNATURE = "the entry is signed by its organization's governance key, or by the one-time key of its invitation"
    # of what comes in
    NAME = "a name has 1 to 63 of A-Z a-z 0-9 space . _ -, a letter or digit at both ends, and not the form of a fingerprint"
    NAME_TAKEN = "no two members have the same name, nor two nodes of one organization, whatever the case of letters"
    KEY_KIND = "governance, node and one-time keys are Ed25519 keys of 32 bytes"
    KEY_REUSED = "a key has one owner and one use, for ever"
    KEY_SPENT = "keys that were rotated or revoked never come back"
    KEY_GENERATION = "keys that follow others are of the next generation"
    KEY_CLAIM = (
        "organization keys come as a KEY_CLAIM for their organization, of generation 1 or later: an Ed25519 key that signs "
        "the claim, and an X-Wing key or an RSA key of 3,072 to 16,384 bits that receives"
    )
    POST_QUANTUM = "where post-quantum encryption is required, organizations receive with X-Wing"
    # of collaboration.create
    FOUNDER = "the founder's organization_id is the fingerprint of the governance key that signs"
    TERMS = "encryption, post_quantum and quorum are given"
    NONCE = "a nonce has 16 bytes"
    PREDECESSOR = "a predecessor is named by its genesis and one of its entries"
    # of organization.vote
    SUBJECT = "a vote names what it is about"
    DECISION = "a vote is for or against"
    REASON_DIGEST = "a reason is given by its SHA-256, or not at all"
    REQUEST = "a join request is for this ledger and signed by the governance key that it presents"
    REQUEST_TERM = "a join request is valid for at most 90 days, and was made at most 5 minutes after the vote on it"
    REQUEST_EXPIRED = "nobody votes on a join request that has expired"
    REQUEST_UNKNOWN = "a join request is named by its digest only after a vote that brought it in whole"
    REQUEST_DECIDED = "nobody votes on a join request of an organization that was admitted since it was voted on"
    ALREADY_MEMBER = "nobody votes on a join request of a member"
    REMOVAL_UNKNOWN = "a removal is named by the entry that asked for it"
    REMOVAL_VOID = (
        "nobody votes on a removal that is decided, older than 90 days, or of a membership that ended otherwise"
    )
    TARGET_VOTES = "an organization does not vote on its own removal"
    # of organization.request_removal and organization.leave
    TARGET = "only a member can be removed"
    TARGET_SELF = "nobody asks for its own removal: it leaves"
    RULE_OF_TWO = "at least two others must be able to approve a removal: of two members, one can only leave"
    REMOVAL_OPEN = "a member's removal is asked for once, until that is decided or void"
    LAST_MEMBER = "the last member does not leave"
    # of organization.publish_key, .rotate_key and .revoke_key
    KEYS_PRESENT = "an organization publishes keys only while it has none; members that have keys rotate them"
    KEYS_ABSENT = "an organization rotates keys only while it has some"
    KEYS_REVOKED = "an organization revokes keys that it has, or had, each once"
    # of node.approve
    NODE_CLAIM = "a node's claim is for this ledger and the entry's organization, and signed by the node's own key"
    INVITATION = (
        "an invitation is for this ledger, organization and node name, and signed by the organization's governance key"
    )
    INVITATION_EXPIRED = "an invitation is used before it expires"
    INVITATION_USED = "an invitation is used once"
    # of node.revoke
    NODE = "an organization revokes nodes of its own that are admitted"
    # of algorithm.propose, .vote and .revoke
    ALGORITHM = (
        "a proposal names an image in 1 to 512 bytes, functions and labels that are different words of 1 to 128 bytes, and "
        "no time that is over"
    )
    PROPOSAL_UNKNOWN = "a proposal is named by the entry that made it"
    PROPOSAL_VOID = "nobody votes on a proposal that is allowed, withdrawn or expired, or withdraws it twice"
    PROPOSER = "a proposal is withdrawn by who made it"


class TaskRule(Enum):
    """Rules of signed tasks."""

    # of every spec
    CHAIN = "a chain is a root task's spec followed by subtasks' specs, 16 at most"
    FORM = "a spec is a message of this release, in canonical form, without unknown fields or values"
    SIGNATURE = (
        "a root task is signed by the task-signing key that its organization had at the entry that the spec names, a subtask "
        "by a node that its organization had then"
    )
    SIGNER_GONE = "to execute, no signer is revoked, nor a node or member no more"
    ROTATED = "to execute, what a rotated key signed was made before the rotation"
    COLLABORATION = "a spec is for this collaboration"
    LEDGER_POSITION = "a spec names an entry of the ledger as its creator's newest, a subtask none before its parent's"
    ID = "tasks, jobs and runs have UUIDs, lower case; no task and no run appears twice in a chain"
    MEMBER = (
        "initiator, receivers and result receivers are members, or were at the entry that the spec names; to execute, initiator "
        "and result receivers still are"
    )
    USER = "a root task may name its user by a reference of at most 128 bytes, a subtask names none"
    IMAGE = "an image is named by exactly one of registry digest, local id, and module with tree hash"
    RECEIVERS = "at least one organization receives the task, each once"
    RESULT_RECEIVERS = "at least one organization receives the results, each once"
    INPUTS = "every receiver has exactly one input"
    DEPENDENCIES = "a task depends on tasks outside its own chain, each once"
    LABELS = "labels are different words of 1 to 128 bytes"
    RESOURCES = "a running time is positive, a resource class has at most 63 bytes"
    MAX_ATTEMPTS = "a run may be tried at least once"
    TERM = "a task expires after it was made, at most 7 days later"
    TIME_AHEAD = "created_at is at most 5 minutes ahead of the reader's clock"
    SESSION = (
        "a session is named by its UUID, and dataframes of it that are different names and none of the labels: those that runs "
        "read, or the one that they leave, or both"
    )
    # of roots
    ROOT = "a root task has no parent"
    # of subtasks
    PARENT = "a subtask names the task above it by id and digest, and one of its runs"
    INITIATOR = "a subtask's initiator is the organization that runs its parent"
    JOB = "a subtask belongs to its parent's job"
    GRANT_DEPTH = "a subtask lies within the depth that its parent is granted, and is granted less"
    GRANT_NUMBER = "a subtask is granted no more subtasks than its parent, and its parent at least one"
    GRANT_IMAGES = "a subtask's images are its parent's own or granted ones"
    GRANT_MESSAGES = "a subtask may use messages only if its parent may"
    GRANT_LABELS = "a subtask's labels are among its parent's"
    GRANT_TERM = "a subtask does not outlive its parent"
    GRANT_SESSION = "a subtask uses its parent's session or none, reads dataframes that its parent reads or leaves, and leaves what its parent leaves"


class ReceiptRule(Enum):
    """Rules of receipts."""

    FORM = "a receipt is a message of this release, in canonical form, without unknown fields or values"
    RUN = "a receipt is for a run of this task and one of its attempts"
    NODE = "a receipt names a node of the run's organization that was admitted at the entry that the receipt names"
    REVOKED = "where a signing key of the task was revoked later, or a signing node's admission ended, the receipt names an earlier entry"
    SIGNATURE = "a receipt is signed by the node that it names"
    OUTCOME = "an outcome is terminal, and digests, exit class and reason are those that belong to it"
    INPUT = "the input is the one that the task names for the organization"
    IMAGE = "the local image that ran is the one that the task names"
    RESULT_RECEIVERS = "a result is sealed to exactly the receivers that the task names"
    TIMES = "a run ends after it starts"
    DATAFRAME = "a dataframe is left by a run that completed, under the name that the task says; its rows and columns are told or not"
    LEDGER_POSITION = (
        "a receipt names an entry of this ledger; one that says how an execution ended names none before the task's"
    )


class ApprovalRule(Enum):
    """Rules of what people at stations decide."""

    FORM = "an approval is a message of this release, in canonical form, without unknown fields, and names a run and a time"
    RUN = "an approval is for a run of this task and one of its attempts"
    DECISION = "an approval says what is decided, and for or against"
    PERSON = "the person is named by a reference of 1 to 128 bytes"
    NODE = (
        "an approval is signed by a node of the run's organization that was admitted when the task was there, or later"
    )
    SIGNATURE = "an approval is signed as one, for this collaboration"


class RuleBroken(Exception):  # noqa: N818 - never leaves this package: replay and verify_* say it as a TrustError
    """Something broke a rule; `detail` adds what the sentence can't know."""

    def __init__(self, rule: Enum, detail: str = "") -> None:
        super().__init__(rule, detail)
        self.rule, self.detail = rule, detail

    def __str__(self) -> str:
        return f"{self.rule.value}{f' ({self.detail})' if self.detail else ''}"

    @property
    def metadata(self) -> dict[str, str]:
        """The rule's name, for programs."""
        return {"rule": self.rule.name}


def require(holds: bool, rule: Enum) -> None:  # noqa: FBT001 - reads as a sentence: require(x == y, RULE)
    """Raise RuleBroken unless the rule holds."""
    if not holds:
        raise RuleBroken(rule)


@contextmanager
def under(rule: Enum) -> Iterator[None]:
    """Take bytes that don't parse, or a wrong signature, for a breach of this rule."""
    try:
        yield
    except (Malformed, SignatureInvalid) as error:
        raise RuleBroken(rule, error.message.rstrip(".")) from error
