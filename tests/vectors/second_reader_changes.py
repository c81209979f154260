"""A second reader of ledgers: what changes and ends.

Written from the contract's comments, docs/rules.md and the design alone.
"""

from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from tests.vectors.second_reader_state import APPROVE, DECLINE, Message, Proposal, Record, Removal, Term, pair
from tests.vectors.second_reader_wire import check, check_signed, nanoseconds, read, sha256

DAY = 86_400 * 10**9
X_WING, RSA = 2, 3


class Changes(Record):
    """The intents about who goes, which keys follow, and what is proposed."""

    # ---- who goes

    def organization_request_removal(self, signed: Message, entry: Message, at: int) -> None:
        data, requester = read("OrganizationRequestRemoval", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, requester)
        check_reason(data)
        target = data["target_organization_id"]
        check(target in self.members, "TARGET")
        check(target != requester, "TARGET_SELF")
        check(len(self.others(target)) >= 2, "RULE_OF_TWO")
        check(
            not any(each.target == target and self.is_open(each, at) for each in self.removals.values()), "REMOVAL_OPEN"
        )
        self.removals[sha256(signed["body"])] = Removal(target, self.members[target], at)

    def vote_removal(self, data: Message, voter: str, at: int) -> None:
        removal = self.removals.get(data["removal_hash"])
        check(removal, "REMOVAL_UNKNOWN")
        assert removal
        check(self.is_open(removal, at), "REMOVAL_VOID")
        check(voter != removal.target, "TARGET_VOTES")
        removal.votes[voter] = data["decision"]
        if not self.missing(removal, self.others(removal.target), 2):
            removal.decided = True
            self.end_membership(removal.target, at, removed=True)

    def is_open(self, removal: Removal, at: int) -> bool:
        return not removal.decided and removal.membership.until is None and at < removal.asked_at + 90 * DAY

    def organization_leave(self, signed: Message, entry: Message, at: int) -> None:
        read("OrganizationLeave", entry["data"], "FORM")
        self.by_governance(signed, entry["organization_id"])
        check(len(self.members) > 1, "LAST_MEMBER")
        self.end_membership(entry["organization_id"], at, removed=False)

    # ---- keys

    def organization_publish_key(self, signed: Message, entry: Message, at: int) -> None:
        data, owner = read("OrganizationPublishKey", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, owner)
        check(not self.current_keys(owner), "KEYS_PRESENT")
        self.follow(owner, self.following_keys(data["key_claim"], owner))

    def organization_rotate_key(self, signed: Message, entry: Message, at: int) -> None:
        data, owner = read("OrganizationRotateKey", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, owner)
        check(self.current_keys(owner), "KEYS_ABSENT")
        keys = self.following_keys(data["key_claim"], owner)
        self.spent |= self.end_keys(owner, at)
        self.follow(owner, keys)

    def organization_revoke_key(self, signed: Message, entry: Message, at: int) -> None:
        data, owner = read("OrganizationRevokeKey", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, owner)
        named = set(data["key_ids"])
        its_own = set().union(*(pair(term.keys) for term in self.key_terms[owner]))
        check(named and len(named) == len(data["key_ids"]), "KEYS_REVOKED")
        check(named <= its_own and not named & self.revoked.keys(), "KEYS_REVOKED")
        current = self.current_keys(owner)
        ends = current is not None and bool(named & pair(current.keys))
        keys = None
        if data["key_claim"] is not None:
            check(ends or current is None, "KEYS_PRESENT")
            keys = self.following_keys(data["key_claim"], owner)
        if ends:
            self.spent |= self.end_keys(owner, at)
        self.spent |= named
        self.revoked |= dict.fromkeys(named, self.here)
        if keys:
            self.follow(owner, keys)

    def following_keys(self, signed: Message | None, owner: str) -> Message:
        """Return keys that may follow the newest ones: both never seen, and of the next generation."""
        keys = self.key_claim(signed, owner)
        check(keys["generation"] == self.key_terms[owner][-1].keys["generation"] + 1, "KEY_GENERATION")
        check(not pair(keys) & self.spent, "KEY_SPENT")
        check(not pair(keys) & self.keys.keys(), "KEY_REUSED")
        return keys

    def follow(self, owner: str, keys: Message) -> None:
        self.keys |= self.uses(self.members[owner].governance_key, keys)
        self.key_terms[owner].append(Term(self.here, keys))

    def key_claim(self, signed: Message | None, organization: str) -> Message:
        check(signed, "KEY_CLAIM")
        assert signed
        keys = read("OrganizationKeys", signed["body"], "KEY_CLAIM")
        nanoseconds(keys["created_at"], "KEY_CLAIM")
        check(keys["organization_id"] == organization and keys["generation"] >= 1, "KEY_CLAIM")
        check(keys["task_signing"] and keys["task_signing"]["kind"] == 1, "KEY_CLAIM")
        check_signed(signed, "KEY_CLAIM", keys["task_signing"], b"", "KEY_CLAIM")
        check(keys["encryption"] and receives(keys["encryption"]), "KEY_CLAIM")
        check(self.terms["post_quantum"] == 1 or keys["encryption"]["kind"] == X_WING, "POST_QUANTUM")
        return keys

    # ---- nodes

    def node_revoke(self, signed: Message, entry: Message, at: int) -> None:
        data, owner = read("NodeRevoke", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, owner)
        node = self.nodes.get(data["node_id"])
        check(node and node.organization_id == owner and node.until is None, "NODE")
        assert node
        node.until = self.here

    # ---- algorithms

    def algorithm_propose(self, signed: Message, entry: Message, at: int) -> None:
        data, proposer = read("AlgorithmPropose", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, proposer)
        check(1 <= len(data["image"].encode()) <= 512, "ALGORITHM")
        for words in (data["functions"], data["labels"]):
            check(len(set(words)) == len(words), "ALGORITHM")
            check(all(1 <= len(word.encode()) <= 128 for word in words), "ALGORITHM")
        expires_at = None
        if data["expires_at"] is not None:
            expires_at = nanoseconds(data["expires_at"], "ALGORITHM")
            check(at < expires_at, "ALGORITHM")
        self.proposals[sha256(signed["body"])] = Proposal(data["image"], proposer, expires_at)

    def algorithm_vote(self, signed: Message, entry: Message, at: int) -> None:
        data, voter = read("AlgorithmVote", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, voter)
        check_decision(data)
        proposal = self.proposal(data)
        check(not proposal.decided and not proposal.revoked, "PROPOSAL_VOID")
        check(proposal.expires_at is None or at < proposal.expires_at, "PROPOSAL_VOID")
        proposal.votes[voter] = data["decision"]
        proposal.decided = not self.missing(proposal, self.members)

    def algorithm_revoke(self, signed: Message, entry: Message, at: int) -> None:
        data, proposer = read("AlgorithmRevoke", entry["data"], "FORM"), entry["organization_id"]
        self.by_governance(signed, proposer)
        proposal = self.proposal(data)
        check(proposal.proposer == proposer, "PROPOSER")
        check(not proposal.revoked, "PROPOSAL_VOID")
        proposal.revoked = True

    def proposal(self, data: Message) -> Proposal:
        check(data["proposal_hash"] in self.proposals, "PROPOSAL_UNKNOWN")
        return self.proposals[data["proposal_hash"]]


def check_decision(data: dict[str, Any]) -> None:
    check(data["decision"] in (APPROVE, DECLINE), "DECISION")
    check_reason(data)


def check_reason(data: dict[str, Any]) -> None:
    check(len(data["reason_digest"]) in (0, 32), "REASON_DIGEST")


def receives(key: Message) -> bool:
    """Tell whether a key is one that can receive."""
    try:
        if key["kind"] == X_WING:
            MLKEM768PublicKey.from_public_bytes(key["public"][:1184])
            return len(key["public"]) == 1184 + 32
        if key["kind"] == RSA:
            rsa = load_der_public_key(key["public"])
            right = isinstance(rsa, RSAPublicKey) and 3072 <= rsa.key_size <= 16384
            return right and rsa.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == key["public"]
    except (ValueError, UnsupportedAlgorithm):
        return False
    return False
