"""A second reader of ledgers: entries, and who and what comes in.

Written from the contract's comments, docs/rules.md and the design alone.
"""

# Exceptions are verdicts here, and bear their names.
# ruff: noqa: N818

import re
from datetime import UTC, datetime, timedelta

from tests.vectors.second_reader_changes import DAY, Changes, check_decision
from tests.vectors.second_reader_state import Message, Node, Request
from tests.vectors.second_reader_wire import (
    Refused,
    check,
    check_signed,
    check_signing_key,
    fingerprint,
    key_id,
    nanoseconds,
    read,
    sha256,
)

MINUTE = 60 * 10**9
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
INTENTS = (
    *("collaboration.create", "organization.vote", "organization.request_removal", "organization.leave"),
    *("organization.publish_key", "organization.rotate_key", "organization.revoke_key", "node.approve", "node.revoke"),
    *("algorithm.propose", "algorithm.vote", "algorithm.revoke"),
)


class UpgradeNeeded(Exception):
    """An entry of a later release."""


def clock(now: str | None) -> int | None:
    """Return a case's clock in nanoseconds."""
    if now is None:
        return None
    return (datetime.fromisoformat(now) - EPOCH) // timedelta(microseconds=1) * 1000


def judge(entries: list[bytes], now: str | None, expected_genesis: str | None) -> tuple[str, str, "Ledger"]:
    """Return verdict, broken rule, and the ledger up to what was not accepted."""
    ledger = Ledger(clock(now))
    for entry in entries:
        try:
            ledger.take(read("Signed", entry, "FORM"))
        except Refused as refused:
            return "refused", refused.rule, ledger
        except UpgradeNeeded:
            return "upgrade needed", "", ledger
        if expected_genesis and ledger.hashes[0].hex() != expected_genesis:
            return "wrong collaboration", "", ledger
    return "accepted", "", ledger


class Ledger(Changes):
    """What has been read so far."""

    def take(self, signed: Message) -> None:
        """Take the next entry, or refuse it and stay as before."""
        entry = read("LedgerEntry", signed["body"], "FORM")
        at = nanoseconds(entry["created_at"], "TIME")
        check(self.now is None or at <= self.now + 5 * MINUTE, "TIME_AHEAD")
        check(len(entry["created_by"].encode()) <= 128, "CREATED_BY")
        check(entry["sequence"] == len(self.hashes), "SEQUENCE")
        check(entry["previous_hash"] == (self.hashes[-1] if self.hashes else b""), "PREVIOUS_HASH")
        check(entry["genesis"] == self.genesis, "GENESIS")
        check(at >= self.last, "TIME_ORDER")
        check((entry["intent"] == "collaboration.create") == (not self.hashes), "FOUNDING")
        if entry["intent"] not in INTENTS or entry["data_version"] != 1:
            raise UpgradeNeeded
        if self.hashes:
            check(entry["organization_id"] in self.members, "SIGNER")
        act = getattr(self, entry["intent"].replace(".", "_"))
        act(signed, entry, at)
        self.hashes.append(sha256(signed["body"]))
        self.last = at

    # ---- intents

    def collaboration_create(self, signed: Message, entry: Message, at: int) -> None:
        data = read("CollaborationCreate", entry["data"], "FORM")
        governance = data["governance_key"]
        check_signing_key(governance)
        check(entry["organization_id"] == fingerprint(key_id(governance)), "FOUNDER")
        check_signed(signed, "LEDGER_ENTRY", governance, b"", "SIGNATURE")
        check(data["encryption"] in (1, 2) and data["post_quantum"] in (1, 2) and data["quorum"] in (1, 2, 3), "TERMS")
        check(len(data["nonce"]) == 16, "NONCE")
        check_name(data["name"])
        check_name(data["founder_name"])
        if data["predecessor"] is not None:
            head = data["predecessor"]["head"] or {"hash": b""}
            check(len(data["predecessor"]["genesis"]) == 32 and len(head["hash"]) == 32, "PREDECESSOR")
        self.terms = data
        keys = self.key_claim(data["key_claim"], entry["organization_id"])
        self.admit(data["founder_name"], governance, keys)

    def organization_vote(self, signed: Message, entry: Message, at: int) -> None:
        data = read("OrganizationVote", entry["data"], "FORM")
        voter = entry["organization_id"]
        self.by_governance(signed, voter)
        check_decision(data)
        if data["removal_hash"] is not None:
            self.vote_removal(data, voter, at)
        else:
            self.vote_join(data, voter, at)

    def vote_join(self, data: Message, voter: str, at: int) -> None:
        digest, request = self.subject(data)
        wish = request.message
        check(not request.decided, "REQUEST_DECIDED")
        check(nanoseconds(wish["created_at"], "REQUEST") <= at + 5 * MINUTE, "REQUEST_TERM")
        check(at < nanoseconds(wish["expires_at"], "REQUEST"), "REQUEST_EXPIRED")
        check(fingerprint(key_id(wish["governance_key"])) not in self.members, "ALREADY_MEMBER")
        names = {member.name.lower() for member in self.members.values()}
        check(wish["name"].lower() not in names, "NAME_TAKEN")
        self.check_uses(self.uses(wish["governance_key"], request.keys))
        self.requests[digest] = request
        request.votes[voter] = data["decision"]
        if not self.missing(request, self.members):
            for each in self.requests.values():
                each.decided |= each.message["governance_key"] == wish["governance_key"]
            self.admit(wish["name"], wish["governance_key"], request.keys)

    def node_approve(self, signed: Message, entry: Message, at: int) -> None:
        data, owner = read("NodeApprove", entry["data"], "FORM"), entry["organization_id"]
        check(data["claim"], "NODE_CLAIM")
        claim = read("NodeClaim", data["claim"]["body"], "NODE_CLAIM")
        nanoseconds(claim["created_at"], "NODE_CLAIM")
        check(claim["genesis"] == self.genesis and claim["organization_id"] == owner, "NODE_CLAIM")
        check_signing_key(claim["public_key"])
        check_name(claim["node_name"])
        check_signed(data["claim"], "NODE_CLAIM", claim["public_key"], self.genesis, "NODE_CLAIM")
        uses = {key_id(claim["public_key"]): (owner, "node")}
        if data["invitation"] is None:
            self.by_governance(signed, owner)
        else:
            one_time = self.invitation(data["invitation"], owner, claim["node_name"], at)
            check(key_id(one_time) not in uses, "KEY_REUSED")
            uses[key_id(one_time)] = (owner, "invitation")
            check_signed(signed, "LEDGER_ENTRY", one_time, self.genesis, "SIGNATURE")
        check(key_id(claim["public_key"]) not in self.keys, "KEY_REUSED")
        its_own = [node for node in self.nodes.values() if node.organization_id == owner and node.until is None]
        check(claim["node_name"].lower() not in {node.name.lower() for node in its_own}, "NAME_TAKEN")
        self.keys |= uses
        node = Node(self.here, claim["node_name"], owner, claim["public_key"])
        self.nodes[fingerprint(key_id(claim["public_key"]))] = node

    # ---- what they share

    def subject(self, data: Message) -> tuple[bytes, Request]:
        """Return the digest of the request that a vote is about, and what is known of it."""
        if data["join_request_digest"] is not None:
            check(data["join_request_digest"] in self.requests, "REQUEST_UNKNOWN")
            return data["join_request_digest"], self.requests[data["join_request_digest"]]
        check(data["join_request"] is not None, "SUBJECT")
        signed = data["join_request"]
        request = read("JoinRequest", signed["body"], "REQUEST")
        created, expires = (nanoseconds(request[name], "REQUEST") for name in ("created_at", "expires_at"))
        check(request["genesis"] == self.genesis, "REQUEST")
        check_signing_key(request["governance_key"])
        check_signed(signed, "JOIN_REQUEST", request["governance_key"], self.genesis, "REQUEST")
        check_name(request["name"])
        check(len(request["nonce"]) == 16, "NONCE")
        check(created < expires <= created + 90 * DAY, "REQUEST_TERM")
        keys = self.key_claim(request["key_claim"], fingerprint(key_id(request["governance_key"])))
        digest = sha256(signed["body"])
        return digest, self.requests.get(digest, Request(request, keys))

    def invitation(self, signed: Message, owner: str, node_name: str, at: int) -> Message:
        """Return the one-time key of an invitation that may be used now."""
        invitation = read("Invitation", signed["body"], "INVITATION")
        created, expires = (nanoseconds(invitation[name], "INVITATION") for name in ("created_at", "expires_at"))
        check_signed(signed, "INVITATION", self.members[owner].governance_key, self.genesis, "INVITATION")
        check(invitation["genesis"] == self.genesis and invitation["organization_id"] == owner, "INVITATION")
        check(invitation["node_name"] == node_name and created < expires, "INVITATION")
        check_signing_key(invitation["public_key"])
        check(at < expires, "INVITATION_EXPIRED")
        check(key_id(invitation["public_key"]) not in self.keys, "INVITATION_USED")
        key: Message = invitation["public_key"]
        return key


def check_name(name: str) -> None:
    allowed = re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?", name) and len(name) <= 63
    check(allowed and not re.fullmatch(r"[A-Za-z2-7]{56}", name), "NAME")
