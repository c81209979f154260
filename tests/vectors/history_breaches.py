"""Entries that break one rule each about who goes, which keys follow, and what is proposed: the second part of `ledger_breaches`.

Every function is given a collaboration of three and lets it live until its cases can come; it yields each with its ledger.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.message import Message

from folkmoot.trust import SigningKey, algorithm_propose_entry, algorithm_revoke_entry, algorithm_vote_entry, digest
from folkmoot.trust.organization import OrganizationKey
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    LedgerPosition,
    NodeRevoke,
    OrganizationLeave,
    OrganizationPublishKey,
    OrganizationRequestRemoval,
    OrganizationRevokeKey,
    OrganizationRotateKey,
    OrganizationVote,
    PostQuantum,
    Predecessor,
)
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import DAY, NOW, World, organization, organization_key, world
from tests.vectors.forge import APPROVE, DECLINE, entry, fork, founding, key_claim, node_approve, rsa_public, stamp

Breaches = Iterator[tuple[str, list[Signed]]]
IMAGE = "registry.example.org/average@sha256:" + "a" * 64


def on(w: World, bad: Signed) -> list[Signed]:
    """Return a ledger with one more entry."""
    return [*w.entries, bad]


def removal_vote(w: World, removal: bytes, by: str = "Alpha", decision: Any = APPROVE, **changes: Any) -> Signed:
    data = OrganizationVote(removal_hash=removal, decision=decision)
    return entry(w, "organization.vote", data, by, **changes)


def request_removal(w: World, address: str, by: str = "Alpha", **changes: Any) -> Signed:
    return entry(
        w, "organization.request_removal", OrganizationRequestRemoval(target_organization_id=address), by, **changes
    )


def rotation(w: World, new: OrganizationKey, generation: int, by: str = "Alpha") -> Signed:
    claim = new.claim(w[by].address, generation, NOW)
    return entry(w, "organization.rotate_key", OrganizationRotateKey(key_claim=claim), by)


def revocation(w: World, key_ids: Iterable[bytes], claim: Signed | None = None, by: str = "Alpha") -> Signed:
    return entry(w, "organization.revoke_key", OrganizationRevokeKey(key_ids=key_ids, key_claim=claim), by)


def publication(w: World, new: OrganizationKey, generation: int) -> Signed:
    claim = new.claim(w["Alpha"].address, generation, NOW)
    return entry(w, "organization.publish_key", OrganizationPublishKey(key_claim=claim))


def proposed(w: World, **fields: Any) -> bytes:
    """Let Alpha propose an image; return what names the proposal."""
    proposal = AlgorithmPropose(**({"image": IMAGE} | fields))
    key = w["Alpha"].governance_key
    return digest(w.append(algorithm_propose_entry(w.state, proposal, governance_key=key, now=w.now)).body)


def allowed(w: World, proposal: bytes) -> None:
    """Let Alpha and Beta allow an image."""
    for name in ("Alpha", "Beta"):
        key = w[name].governance_key
        w.append(algorithm_vote_entry(w.state, proposal, APPROVE, governance_key=key, now=w.now))


def algorithm_vote(w: World, proposal: bytes, by: str = "Beta", **changes: Any) -> Signed:
    return entry(w, "algorithm.vote", AlgorithmVote(proposal_hash=proposal, decision=APPROVE), by, **changes)


# ---- who goes -------------------------------------------------------------------------------------------------------


def signer(w: World) -> Breaches:
    """Entries of organizations that are members no more."""
    w.leave("Gamma")
    yield "leaves twice", on(w, entry(w, "organization.leave", OrganizationLeave(), "Gamma"))
    claim = w.claim("Gamma", "gamma-2", SigningKey.generate(w.random))
    yield "a node of a former member", on(w, node_approve(w, claim, "Gamma"))


def signature(w: World) -> Breaches:
    """Each intent, signed with the key that a laptop has."""
    laptop = w["Alpha"].organization_key.task_signing
    removal, proposal = w.request_removal("Beta", "Gamma"), proposed(w)
    new = organization_key("new")
    data: dict[str, Message] = {
        "organization.request_removal": OrganizationRequestRemoval(target_organization_id=w["Beta"].address),
        "organization.vote": OrganizationVote(removal_hash=removal, decision=APPROVE),
        "organization.leave": OrganizationLeave(),
        "organization.rotate_key": OrganizationRotateKey(key_claim=new.claim(w["Alpha"].address, 2, NOW)),
        "organization.revoke_key": OrganizationRevokeKey(key_ids=[laptop.key_id]),
        "node.revoke": NodeRevoke(node_id=w["Alpha"].nodes["alpha-1"].fingerprint),
        "algorithm.propose": AlgorithmPropose(image=IMAGE),
        "algorithm.vote": AlgorithmVote(proposal_hash=proposal, decision=APPROVE),
        "algorithm.revoke": AlgorithmRevoke(proposal_hash=proposal),
    }
    for intent, message in data.items():
        yield f"a stolen laptop's key: {intent}", on(w, entry(w, intent, message, key=laptop))


def removal_unknown(w: World) -> Breaches:
    """Votes on removals that nobody asked for."""
    w.request_removal("Alpha", "Gamma")
    yield "a removal that nobody asked for", on(w, removal_vote(w, bytes(32)))
    yield "a removal named by another entry", on(w, removal_vote(w, w.genesis))


def removal_void(w: World) -> Breaches:
    """Votes on removals that are over."""
    late = fork(w)
    removal = late.request_removal("Alpha", "Gamma")
    yield "90 days later", on(late, removal_vote(late, removal, created_at=stamp(NOW + 90 * DAY)))
    done = fork(w)
    removal = done.request_removal("Alpha", "Gamma")
    done.vote_removal("Alpha", removal)
    done.vote_removal("Beta", removal)
    yield "after it passed", on(done, removal_vote(done, removal, "Alpha", DECLINE))
    back = fork(w)
    removal = back.request_removal("Alpha", "Gamma")
    back.vote_removal("Alpha", removal)
    back.leave("Gamma")
    yield "of who left", on(back, removal_vote(back, removal, "Beta"))
    back.join(back["Gamma"])
    yield "of who left and came back", on(back, removal_vote(back, removal, "Beta"))


def target_votes(w: World) -> Breaches:
    """The one in question votes."""
    removal = w.request_removal("Alpha", "Gamma")
    yield "declines its own removal", on(w, removal_vote(w, removal, "Gamma", DECLINE))


def target(w: World) -> Breaches:
    """Removals of nobody."""
    yield "removal of an outsider", on(w, request_removal(w, organization("Delta").address))
    yield "removal by name", on(w, request_removal(w, "Gamma"))
    w.leave("Gamma")
    yield "removal of a former member", on(w, request_removal(w, w["Gamma"].address))


def target_self(w: World) -> Breaches:
    """An organization asks for its own removal."""
    yield "removal of itself", on(w, request_removal(w, w["Alpha"].address))


def rule_of_two(w: World) -> Breaches:
    """One of two would remove the other."""
    w.leave("Gamma")
    yield "one of two removes the other", on(w, request_removal(w, w["Beta"].address))


def removal_open(w: World) -> Breaches:
    """A second removal of the same member, beside the first."""
    w.request_removal("Alpha", "Gamma")
    address = w["Gamma"].address
    yield "asked for twice", on(w, request_removal(w, address))
    yield "asked for by another member too", on(w, request_removal(w, address, "Beta"))
    last = stamp(NOW + 90 * DAY, -1)
    yield "a nanosecond before the first is void", on(w, request_removal(w, address, created_at=last))


def last_member(w: World) -> Breaches:
    """Nobody would be left."""
    w.leave("Gamma")
    w.leave("Beta")
    yield "the last member leaves", on(w, entry(w, "organization.leave", OrganizationLeave()))


# ---- keys -----------------------------------------------------------------------------------------------------------


def key_spent(w: World) -> Breaches:
    """Keys that come back."""
    first = w["Alpha"].organization_key
    w.rotate("Alpha", organization_key("second"))
    yield "rotated back", on(w, rotation(w, first, 3))
    gone = fork(w)
    gone.revoke("Gamma", gone["Gamma"].organization_key.task_signing.key_id)
    gone.leave("Gamma")
    yield "revoked keys of who joins again", on(gone, claimed_by(gone, "Gamma"))


def claimed_by(w: World, name: str) -> Signed:
    """Return a vote on a former member's new request, with the keys that it has."""
    wish = w.join_request(w[name])
    return entry(w, "organization.vote", OrganizationVote(join_request=wish, decision=APPROVE))


def key_reused(w: World) -> Breaches:
    """Only one key of a pair is new, or one is somebody else's."""
    mine, new = w["Alpha"].organization_key, organization_key("new")
    yield "rotates the receiving key only", on(w, rotation(w, OrganizationKey(new.encryption, mine.task_signing), 2))
    yield "rotates the signing key only", on(w, rotation(w, OrganizationKey(mine.encryption, new.task_signing), 2))
    yield "rotates to another member's keys", on(w, rotation(w, w["Beta"].organization_key, 2))
    own = OrganizationKey(new.encryption, w["Alpha"].governance_key)
    yield "rotates to the governance key", on(w, rotation(w, own, 2))


def key_generation(w: World) -> Breaches:
    """Generations that don't follow."""
    new = organization_key("new")
    yield "rotates to the same generation", on(w, rotation(w, new, 1))
    yield "leaves a generation out", on(w, rotation(w, new, 3))
    w.revoke("Alpha", w["Alpha"].organization_key.task_signing.key_id)
    yield "publishes the generation that was revoked", on(w, publication(w, new, 1))


def key_claim_rule(w: World) -> Breaches:
    """Rotations without keys, or with keys of others."""
    beta = organization_key("new").claim(w["Beta"].address, 2, NOW)
    data = OrganizationRotateKey(key_claim=beta)
    yield "rotates to keys presented for another", on(w, entry(w, "organization.rotate_key", data))
    yield "rotates to nothing", on(w, entry(w, "organization.rotate_key", OrganizationRotateKey()))


def keys_present(w: World) -> Breaches:
    """New keys beside present ones."""
    old = w["Alpha"].organization_key
    w.rotate("Alpha", organization_key("second"))
    claim = organization_key("third").claim(w["Alpha"].address, 3, NOW)
    yield "revokes former keys and brings new ones", on(w, revocation(w, [old.task_signing.key_id], claim))


def keys_absent(w: World) -> Breaches:
    """Rotates what is not there."""
    w.revoke("Alpha", w["Alpha"].organization_key.task_signing.key_id)
    yield "rotates keys that it revoked", on(w, rotation(w, organization_key("new"), 2))


def keys_revoked(w: World) -> Breaches:
    """Revokes what it can't."""
    alpha, mine = w["Alpha"], w["Alpha"].organization_key
    signing = mine.task_signing.key_id
    yield "revokes nothing", on(w, revocation(w, []))
    yield "revokes a key twice in one entry", on(w, revocation(w, [signing, signing]))
    yield "revokes another member's key", on(w, revocation(w, [w["Beta"].organization_key.task_signing.key_id]))
    yield "revokes its governance key", on(w, revocation(w, [alpha.governance_key.key_id]))
    yield "revokes a node's key", on(w, revocation(w, [alpha.nodes["alpha-1"].key_id]))
    yield "revokes a key that nobody has", on(w, revocation(w, [bytes(32)]))
    w.revoke("Alpha", signing)
    yield "revokes a key again", on(w, revocation(w, [signing]))


# ---- nodes, algorithms, successors ----------------------------------------------------------------------------------


def node(w: World) -> Breaches:
    """Revokes nodes that are not its own, or not admitted."""
    mine = NodeRevoke(node_id=w["Alpha"].nodes["alpha-1"].fingerprint)
    yield "revokes another organization's node", on(w, entry(w, "node.revoke", mine, "Beta"))
    yield "revokes a node by name", on(w, entry(w, "node.revoke", NodeRevoke(node_id="alpha-1")))
    w.revoke_node("Alpha", "alpha-1")
    yield "revokes a node again", on(w, entry(w, "node.revoke", mine))


def node_key_again(w: World) -> Breaches:
    """The key of a node that was revoked."""
    key = w["Alpha"].nodes["alpha-1"]
    w.revoke_node("Alpha", "alpha-1")
    yield "a revoked node under a new name", on(w, node_approve(w, w.claim("Alpha", "new", key)))


def algorithm(w: World) -> Breaches:
    """Proposals that say too little or too much."""
    wrong: dict[str, dict[str, Any]] = {
        "no image": {"image": ""},
        "an image of 513 bytes": {"image": "i" * 513},
        "a function twice": {"functions": ["mean", "mean"]},
        "a label without letters": {"labels": [""]},
        "a label of 129 bytes": {"labels": ["l" * 129]},
        "expired as it is made": {"expires_at": stamp(NOW)},
    }
    for case, fields in wrong.items():
        proposal = AlgorithmPropose(**({"image": IMAGE} | fields))
        yield f"proposes {case}", on(w, entry(w, "algorithm.propose", proposal))


def proposal_unknown(w: World) -> Breaches:
    """Votes on proposals that nobody made."""
    yield "votes on a proposal that nobody made", on(w, algorithm_vote(w, bytes(32)))
    nothing = AlgorithmRevoke(proposal_hash=bytes(32))
    yield "withdraws a proposal that nobody made", on(w, entry(w, "algorithm.revoke", nothing))


def proposal_void(w: World) -> Breaches:
    """Votes on proposals that are over."""
    decided = fork(w)
    proposal = proposed(decided)
    allowed(decided, proposal)
    yield "votes on what is allowed", on(decided, algorithm_vote(decided, proposal, "Gamma"))
    expiring = fork(w)
    proposal = proposed(expiring, expires_at=stamp(NOW + DAY))
    yield "votes on what has expired", on(expiring, algorithm_vote(expiring, proposal, created_at=stamp(NOW + DAY)))
    proposal = proposed(w)
    w.append(algorithm_revoke_entry(w.state, proposal, governance_key=w["Alpha"].governance_key, now=NOW))
    yield "votes on what was withdrawn", on(w, algorithm_vote(w, proposal))
    again = entry(w, "algorithm.revoke", AlgorithmRevoke(proposal_hash=proposal))
    yield "withdraws twice", on(w, again)


def proposer(w: World) -> Breaches:
    """Withdraws what another one proposed."""
    proposal = proposed(w)
    yield (
        "withdraws another's proposal",
        on(w, entry(w, "algorithm.revoke", AlgorithmRevoke(proposal_hash=proposal), "Beta")),
    )


def decision(w: World) -> Breaches:
    """Votes neither for nor against."""
    removal, proposal = w.request_removal("Alpha", "Gamma"), proposed(w)
    yield "removal: no decision", on(w, removal_vote(w, removal, decision=0))
    data = AlgorithmVote(proposal_hash=proposal, decision=3)  # type: ignore[arg-type]
    yield "algorithm: a third decision", on(w, entry(w, "algorithm.vote", data))


def reason_digest(w: World) -> Breaches:
    """Reasons in words."""
    data = OrganizationRequestRemoval(target_organization_id=w["Gamma"].address, reason_digest=b"because")
    yield "removal: a reason in words", on(w, entry(w, "organization.request_removal", data))
    vote = AlgorithmVote(proposal_hash=proposed(w), decision=APPROVE, reason_digest=b"why not")
    yield "algorithm: a reason in words", on(w, entry(w, "algorithm.vote", vote))


def predecessor(_: World) -> Breaches:
    """Successors of nothing in particular."""
    head = LedgerPosition(sequence=3, hash=bytes(32))
    yield "succeeds nothing", [founding(predecessor=Predecessor(head=head))]
    yield "succeeds half a genesis", [founding(predecessor=Predecessor(genesis=bytes(16), head=head))]
    yield "succeeds a ledger without head", [founding(predecessor=Predecessor(genesis=bytes(32)))]


def post_quantum(_: World) -> Breaches:
    """Rotates to a kind that the terms forbid."""
    w = world(("Alpha", "Beta"), nodes=False, post_quantum=PostQuantum.POST_QUANTUM_REQUIRED)
    rsa = key_claim(w["Alpha"], encryption=rsa_public(3072), generation=2)
    yield "rotates to an RSA key", on(w, entry(w, "organization.rotate_key", OrganizationRotateKey(key_claim=rsa)))


def name_taken(w: World) -> Breaches:
    """The name of who left is somebody else's now."""
    w.leave("Gamma")
    heir = organization("Another Gamma")
    w.organizations["Gamma's heir"] = heir
    wish = w.join_request(heir, name="Gamma")
    w.vote("Alpha", wish)
    w.vote("Beta", wish)
    yield "comes back under a name that was given away", on(w, claimed_by(w, "Gamma"))


RULES = {
    "SIGNER": signer,
    "SIGNATURE": signature,
    "NAME_TAKEN": name_taken,
    "KEY_REUSED": key_reused,
    "KEY_SPENT": key_spent,
    "KEY_GENERATION": key_generation,
    "KEY_CLAIM": key_claim_rule,
    "POST_QUANTUM": post_quantum,
    "PREDECESSOR": predecessor,
    "DECISION": decision,
    "REASON_DIGEST": reason_digest,
    "REMOVAL_UNKNOWN": removal_unknown,
    "REMOVAL_VOID": removal_void,
    "TARGET_VOTES": target_votes,
    "TARGET": target,
    "TARGET_SELF": target_self,
    "RULE_OF_TWO": rule_of_two,
    "REMOVAL_OPEN": removal_open,
    "LAST_MEMBER": last_member,
    "KEYS_PRESENT": keys_present,
    "KEYS_ABSENT": keys_absent,
    "KEYS_REVOKED": keys_revoked,
    "NODE": node,
    "ALGORITHM": algorithm,
    "PROPOSAL_UNKNOWN": proposal_unknown,
    "PROPOSAL_VOID": proposal_void,
    "PROPOSER": proposer,
}
MORE = {"KEY_REUSED": node_key_again}
