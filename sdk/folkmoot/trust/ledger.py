"""Replay: what a ledger's entries mean. The same entries give the same state, or the same refusal, everywhere.

`replay` is the one function that decides it, for clients, nodes and the server alike. It takes all entries or none: the
first that breaks a rule (`rules.LedgerRule`) is refused with the rule's name, and an entry of a later release stops it
with LEDGER_UPGRADE_NEEDED; nothing is ever skipped. Here are the rules of every entry, and of the one that founds; those of
each intent are in `intents`, what they do to members, keys and nodes in `book`.
"""

from collections.abc import Iterable
from datetime import datetime

from folkmoot.trust.book import Applicant, Book, Entry, check_signature
from folkmoot.trust.claims import address, check_keys_fit, check_name, check_nonce, check_signing_key, checked_key_claim
from folkmoot.trust.encoding import DIGEST_BYTES, digest, fingerprint, parse
from folkmoot.trust.errors import LedgerEntryInvalid, LedgerUpgradeNeeded, WrongCollaboration
from folkmoot.trust.intents import EFFECTS
from folkmoot.trust.membership import Position, Predecessor, Terms
from folkmoot.trust.rules import CLOCK_SKEW, LONGEST_REFERENCE_BYTES, LedgerRule, RuleBroken, require, under
from folkmoot.trust.state import State
from folkmoot.trust.times import in_nanoseconds, nanoseconds, nanoseconds_at
from folkmoot.v1.ledger_pb2 import CollaborationCreate, Encryption, LedgerEntry, PostQuantum, Quorum
from folkmoot.v1.signed_pb2 import Signed

DATA_VERSION = 1
FOUNDING_INTENT = "collaboration.create"


def replay(
    entries: Iterable[Signed],
    *,
    state: State | None = None,
    expected_genesis: bytes | None = None,
    now: datetime | None = None,
) -> State:
    """Return the state after these entries; `state` is the one before them, None where they begin with the first.

    `expected_genesis` names the collaboration that it must be. With `now`, entries from the future are refused.
    Raises LedgerEntryInvalid (metadata: sequence, rule), LedgerUpgradeNeeded (sequence, intent), WrongCollaboration.
    """
    latest = None if now is None else nanoseconds_at(now) + in_nanoseconds(CLOCK_SKEW)
    book = Book.of(state) if state else None
    _check_collaboration(book, expected_genesis)
    first = len(book.hashes) if book else 0
    for sequence, signed in enumerate(entries, first):
        try:
            if book is None:
                book = _found(signed, latest)
                _check_collaboration(book, expected_genesis)
            else:
                _append(book, signed, latest)
        except RuleBroken as broken:
            metadata = {"sequence": str(sequence), **broken.metadata}
            raise LedgerEntryInvalid(f"Entry {sequence} breaks a rule: {broken}", metadata=metadata) from broken
    if book is None:
        raise LedgerEntryInvalid("A ledger has at least the entry that founds it", metadata={"sequence": "0"})
    return book.state()


def _append(book: Book, signed: Signed, latest: int | None) -> None:
    """Take one more entry."""
    message = _message(signed)
    created_at = _created_at(message, latest)
    require(message.sequence == len(book.hashes), LedgerRule.SEQUENCE)
    require(message.previous_hash == book.hashes[-1], LedgerRule.PREVIOUS_HASH)
    require(message.genesis == book.genesis, LedgerRule.GENESIS)
    require(created_at >= book.last_created_at, LedgerRule.TIME_ORDER)
    require(message.intent != FOUNDING_INTENT, LedgerRule.FOUNDING)
    _check_known(message)
    require(message.organization_id in book.members, LedgerRule.SIGNER)
    data_type, effect = EFFECTS[message.intent]
    with under(LedgerRule.FORM):
        data = parse(data_type, message.data)
    entry = Entry(signed, message, Position(message.sequence, digest(signed.body)), created_at)
    effect(book, entry, data)
    book.take(entry)


def _found(signed: Signed, latest: int | None) -> Book:
    """Begin a ledger with its first entry."""
    message = _message(signed)
    created_at = _created_at(message, latest)
    require(message.sequence == 0, LedgerRule.SEQUENCE)
    require(message.previous_hash == b"", LedgerRule.PREVIOUS_HASH)
    require(message.genesis == b"", LedgerRule.GENESIS)
    require(message.intent == FOUNDING_INTENT, LedgerRule.FOUNDING)
    _check_known(message)
    with under(LedgerRule.FORM):
        data = parse(CollaborationCreate, message.data)
    check_signing_key(data.governance_key)
    require(message.organization_id == address(data.governance_key), LedgerRule.FOUNDER)
    check_signature(signed, data.governance_key, b"")
    position = Position(0, digest(signed.body))
    book = Book.begin(_terms(data), _predecessor(data), Entry(signed, message, position, created_at))
    check_name(data.founder_name)
    check_nonce(data.nonce)
    keys = checked_key_claim(data.key_claim, message.organization_id)
    check_keys_fit(keys, data.post_quantum)
    founder = Applicant(message.organization_id, data.founder_name, data.governance_key, keys, data.key_claim)
    book.admit(founder, position)
    return book


def _terms(data: CollaborationCreate) -> Terms:
    require(data.encryption in (Encryption.ENCRYPTION_SEALED, Encryption.ENCRYPTION_PLAIN), LedgerRule.TERMS)
    post_quantum_kinds = (PostQuantum.POST_QUANTUM_OPTIONAL, PostQuantum.POST_QUANTUM_REQUIRED)
    require(data.post_quantum in post_quantum_kinds, LedgerRule.TERMS)
    quorums = (Quorum.QUORUM_MAJORITY, Quorum.QUORUM_TWO_THIRDS, Quorum.QUORUM_UNANIMOUS)
    require(data.quorum in quorums, LedgerRule.TERMS)
    check_name(data.name)
    return Terms(data.name, data.encryption, data.post_quantum, data.quorum)


def _predecessor(data: CollaborationCreate) -> Predecessor | None:
    if not data.HasField("predecessor"):
        return None
    named = data.predecessor
    require(len(named.genesis) == DIGEST_BYTES == len(named.head.hash), LedgerRule.PREDECESSOR)
    return Predecessor(named.genesis, Position(named.head.sequence, named.head.hash))


# ---- rules of every entry -------------------------------------------------------------------------------------------


def _message(signed: Signed) -> LedgerEntry:
    with under(LedgerRule.FORM):
        return parse(LedgerEntry, signed.body)


def _created_at(message: LedgerEntry, latest: int | None) -> int:
    with under(LedgerRule.TIME):
        created_at = nanoseconds(message.created_at)
    require(latest is None or created_at <= latest, LedgerRule.TIME_AHEAD)
    require(len(message.created_by.encode()) <= LONGEST_REFERENCE_BYTES, LedgerRule.CREATED_BY)
    return created_at


def _check_known(message: LedgerEntry) -> None:
    if message.intent not in (*EFFECTS, FOUNDING_INTENT) or message.data_version != DATA_VERSION:
        raise LedgerUpgradeNeeded(
            f"Entry {message.sequence} is of a later release: {message.intent[:80]!r}, version {message.data_version}",
            metadata={"sequence": str(message.sequence), "intent": message.intent[:80]},
        )


def _check_collaboration(book: Book | None, expected_genesis: bytes | None) -> None:
    if book and expected_genesis not in (None, book.genesis):
        raise WrongCollaboration(
            f"The ledger is that of {book.terms.name}@{fingerprint(book.genesis)}, another one than asked for",
            metadata={"genesis": book.genesis.hex()},
        )
