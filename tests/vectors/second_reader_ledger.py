"""A second reader, second part: ledgers. Written from the contract's comments, docs/rules.md and the design alone."""

# Exceptions are verdicts here, and bear their names.
# ruff: noqa: N818

import re
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

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

MINUTE, DAY = 60 * 10**9, 86_400 * 10**9
APPROVE, DECLINE = 1, 2
X_WING, RSA = 2, 3
INTENTS = ("collaboration.create", "organization.vote", "organization.publish_key", "node.approve")


class UpgradeNeeded(Exception):
    """An entry of a later release."""


def clock(now: str | None) -> int | None:
    """Return a case's clock in nanoseconds."""
    if now is None:
        return None
    seconds = int(datetime.fromisoformat(now).timestamp())
    return seconds * 10**9


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


class Ledger:
    """What has been read so far."""

    def __init__(self, now: int | None) -> None:
        self.now = now
        self.hashes: list[bytes] = []
        self.last = 0
        self.terms: dict[str, Any] = {}
        self.members: dict[str, dict[str, Any]] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.requests: dict[bytes, dict[str, Any]] = {}
        self.keys: dict[bytes, tuple[str, str]] = {}

    @property
    def genesis(self) -> bytes:
        return self.hashes[0] if self.hashes else b""

    def take(self, signed: dict[str, Any]) -> None:
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

    def collaboration_create(self, signed: dict[str, Any], entry: dict[str, Any], at: int) -> None:
        data = read("CollaborationCreate", entry["data"], "FORM")
        if data["predecessor"] is not None:
            raise UpgradeNeeded
        governance = data["governance_key"]
        check_signing_key(governance)
        check(entry["organization_id"] == fingerprint(key_id(governance)), "FOUNDER")
        check_signed(signed, "LEDGER_ENTRY", governance, b"", "SIGNATURE")
        check(data["encryption"] in (1, 2) and data["post_quantum"] in (1, 2) and data["quorum"] in (1, 2, 3), "TERMS")
        check(len(data["nonce"]) == 16, "NONCE")
        check_name(data["name"])
        check_name(data["founder_name"])
        self.terms = data
        keys = self.key_claim(data["key_claim"], entry["organization_id"])
        self.admit(data["founder_name"], governance, keys, 0)

    def organization_vote(self, signed: dict[str, Any], entry: dict[str, Any], at: int) -> None:
        data = read("OrganizationVote", entry["data"], "FORM")
        voter = entry["organization_id"]
        self.by_governance(signed, voter)
        check(data["decision"] in (APPROVE, DECLINE), "DECISION")
        check(len(data["reason_digest"]) in (0, 32), "REASON_DIGEST")
        if data["removal_hash"] is not None:
            raise UpgradeNeeded
        digest, request = self.subject(data)
        check(not request["decided"], "REQUEST_DECIDED")
        check(at < nanoseconds(request["expires_at"], "REQUEST"), "REQUEST_EXPIRED")
        address = fingerprint(key_id(request["governance_key"]))
        check(address not in self.members, "ALREADY_MEMBER")
        names = {member["name"].lower() for member in self.members.values()}
        check(request["name"].lower() not in names, "NAME_TAKEN")
        self.check_uses(self.uses(request["governance_key"], request["keys"]))
        votes = {**request["votes"], voter: data["decision"]}
        approvals = sum(votes.get(member) == APPROVE for member in self.members)
        everybody = len(self.members)
        enough = {
            1: 2 * approvals > everybody,
            2: 3 * approvals >= 2 * everybody,
            3: approvals == everybody,
        }[self.terms["quorum"]]
        self.requests[digest] = {**request, "votes": votes, "decided": enough}
        if enough:
            self.admit(request["name"], request["governance_key"], request["keys"], len(self.hashes))

    def organization_publish_key(self, signed: dict[str, Any], entry: dict[str, Any], at: int) -> None:
        raise Refused("KEYS_PRESENT")  # Nothing in this release takes a member's keys away.

    def node_approve(self, signed: dict[str, Any], entry: dict[str, Any], at: int) -> None:
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
        names = {node["name"].lower() for node in self.nodes.values() if node["organization_id"] == owner}
        check(claim["node_name"].lower() not in names, "NAME_TAKEN")
        self.keys |= uses
        self.nodes[fingerprint(key_id(claim["public_key"]))] = {
            "name": claim["node_name"],
            "organization_id": owner,
            "key": claim["public_key"],
        }

    # ---- what they share

    def by_governance(self, signed: dict[str, Any], organization: str) -> None:
        key = self.members[organization]["governance_key"]
        check_signed(signed, "LEDGER_ENTRY", key, self.genesis, "SIGNATURE")

    def subject(self, data: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Return the request that a vote is about, with the votes so far, and its digest."""
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
        new = {**request, "keys": keys, "votes": {}, "decided": False}
        digest = sha256(signed["body"])
        return digest, self.requests.get(digest, new)

    def key_claim(self, signed: dict[str, Any] | None, organization: str) -> dict[str, Any]:
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

    def invitation(self, signed: dict[str, Any], owner: str, node_name: str, at: int) -> dict[str, Any]:
        """Return the one-time key of an invitation that may be used now."""
        invitation = read("Invitation", signed["body"], "INVITATION")
        created, expires = (nanoseconds(invitation[name], "INVITATION") for name in ("created_at", "expires_at"))
        check_signed(signed, "INVITATION", self.members[owner]["governance_key"], self.genesis, "INVITATION")
        check(invitation["genesis"] == self.genesis and invitation["organization_id"] == owner, "INVITATION")
        check(invitation["node_name"] == node_name and created < expires, "INVITATION")
        check_signing_key(invitation["public_key"])
        check(at < expires, "INVITATION_EXPIRED")
        check(key_id(invitation["public_key"]) not in self.keys, "INVITATION_USED")
        key: dict[str, Any] = invitation["public_key"]
        return key

    def uses(self, governance: dict[str, Any], keys: dict[str, Any]) -> dict[bytes, tuple[str, str]]:
        owner = fingerprint(key_id(governance))
        named = (("governance", governance), ("encryption", keys["encryption"]), ("signing", keys["task_signing"]))
        uses = {key_id(key): (owner, use) for use, key in named}
        check(len(uses) == 3, "KEY_REUSED")
        return uses

    def check_uses(self, uses: dict[bytes, tuple[str, str]]) -> None:
        check(all(self.keys.get(key, use) == use for key, use in uses.items()), "KEY_REUSED")

    def admit(self, name: str, governance: dict[str, Any], keys: dict[str, Any], since: int) -> None:
        uses = self.uses(governance, keys)
        self.keys |= uses
        member = {"name": name, "governance_key": governance, "keys": keys, "since": since}
        self.members[fingerprint(key_id(governance))] = member

    def summary(self) -> dict[str, Any]:
        """Return what ledger.json says of an accepted ledger."""
        return {
            "collaboration": f"{self.terms['name']}@{fingerprint(self.genesis)}",
            "head": self.hashes[-1].hex(),
            "members": {
                address: {
                    "name": member["name"],
                    "governance_key": member["governance_key"]["public"].hex(),
                    "encryption": sha256(member["keys"]["encryption"]["public"]).hex(),
                    "task_signing": member["keys"]["task_signing"]["public"].hex(),
                    "since": member["since"],
                }
                for address, member in self.members.items()
            },
            "nodes": {
                node_id: {
                    "name": node["name"],
                    "organization_id": node["organization_id"],
                    "public_key": node["key"]["public"].hex(),
                }
                for node_id, node in self.nodes.items()
            },
            "requests": {
                digest.hex(): {
                    "approved_by": sorted(who for who, vote in request["votes"].items() if vote == APPROVE),
                    "declined_by": sorted(who for who, vote in request["votes"].items() if vote == DECLINE),
                    "decided": request["decided"],
                }
                for digest, request in self.requests.items()
            },
        }


def check_name(name: str) -> None:
    allowed = re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?", name) and len(name) <= 63
    check(allowed and not re.fullmatch(r"[A-Za-z2-7]{56}", name), "NAME")


def receives(key: dict[str, Any]) -> bool:
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
