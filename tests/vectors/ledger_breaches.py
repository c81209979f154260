"""Entries that break one rule of replay each, by rule. Every function yields cases, and may let its ledger grow before one.

Their author holds every key that he could hold. A function's docstring says what its rule keeps out; the cases' names say
the fault or the attack.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from folkmoot.trust import SigningKey, digest, serialize, sign
from folkmoot.v1.keys_pb2 import KeyKind, OrganizationKeys, PublicKey
from folkmoot.v1.ledger_pb2 import (
    JoinRequest,
    LedgerEntry,
    NodeApprove,
    OrganizationPublishKey,
    OrganizationVote,
)
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from tests.builders import DAY, NOW, World, organization
from tests.vectors.forge import (
    APPROVE,
    DECLINE,
    ENTRY,
    MINUTE,
    UNKNOWN_FIELD,
    changed,
    claimed,
    entry,
    entry_message,
    founding_data,
    invite,
    key_claim,
    new_claim,
    node_approve,
    overgrown,
    redeem,
    request,
    rsa_public,
    signed_again,
    stamp,
    vote,
)
from tests.vectors.key_cases import without_null


def form(w: World) -> Iterator[tuple[str, Signed]]:
    """An entry that is not written as this release writes it."""
    key, message = w["Alpha"].governance_key, entry_message(w, "node.approve", NodeApprove(claim=new_claim(w)))
    body = serialize(message)
    yield "unknown field in the entry", sign(ENTRY, body + UNKNOWN_FIELD, key=key, genesis=w.genesis)
    first = body.index(b"\x12")  # behind the sequence, which comes first
    yield "fields out of order", sign(ENTRY, body[first:] + body[:first], key=key, genesis=w.genesis)
    yield "field given twice", sign(ENTRY, body[:first] + body, key=key, genesis=w.genesis)
    yield "cut off", sign(ENTRY, body[:-1], key=key, genesis=w.genesis)
    data = serialize(NodeApprove(claim=new_claim(w)))
    yield "unknown field in the data", entry(w, "node.approve", data + UNKNOWN_FIELD)
    yield "data that does not parse", entry(w, "node.approve", b"\xff")
    wide = overgrown(entry_message(w, "node.approve", NodeApprove(claim=new_claim(w))), "data_version")
    yield "a data_version that is 1 only if cut off", sign(ENTRY, wide, key=key, genesis=w.genesis)
    data = overgrown(OrganizationVote(join_request=request(w), decision=APPROVE), "decision")
    yield "a decision that is one only if cut off", entry(w, "organization.vote", data)


def sequence(w: World) -> Iterator[tuple[str, Signed]]:
    """A place that is not the next one."""
    here = w.state.position.sequence
    yield "a sequence again", node_approve(w, new_claim(w), sequence=here)
    yield "a sequence left out", node_approve(w, new_claim(w), sequence=here + 2)


def previous_hash(w: World) -> Iterator[tuple[str, Signed]]:
    """A place behind another entry."""
    yield "another entry before it", node_approve(w, new_claim(w), previous_hash=bytes(32))
    yield "hash of an earlier entry", node_approve(w, new_claim(w), previous_hash=w.state.hash_at(1))


def genesis(w: World) -> Iterator[tuple[str, Signed]]:
    """An entry for another ledger."""
    yield "genesis of another ledger", node_approve(w, new_claim(w), genesis=bytes(32))
    yield "without genesis", node_approve(w, new_claim(w), genesis=b"")


def time(w: World) -> Iterator[tuple[str, Signed]]:
    """A time that is none."""
    yield "without time", node_approve(w, new_claim(w), created_at=None)
    yield "before 1970", node_approve(w, new_claim(w), created_at=Timestamp(seconds=-1))
    yield (
        "a second of too many nanoseconds",
        node_approve(w, new_claim(w), created_at=Timestamp(seconds=1, nanos=10**9)),
    )
    yield "after 9999", node_approve(w, new_claim(w), created_at=Timestamp(seconds=253_402_300_800))


def time_order(w: World) -> Iterator[tuple[str, Signed]]:
    """A time before the last entry's."""
    yield "one nanosecond earlier", node_approve(w, new_claim(w), created_at=stamp(NOW, -1))


def time_ahead(w: World) -> Iterator[tuple[str, Signed]]:
    """A time in the reader's future."""
    yield "five minutes and a nanosecond ahead", node_approve(w, new_claim(w), created_at=stamp(NOW + 5 * MINUTE, 1))


def created_by(w: World) -> Iterator[tuple[str, Signed]]:
    """Text where a reference belongs."""
    yield "a reference of 129 bytes", node_approve(w, new_claim(w), created_by="x" * 129)
    yield "a reference of 65 letters and 130 bytes", node_approve(w, new_claim(w), created_by="\u00e9" * 65)


def founding_rule(w: World) -> Iterator[tuple[str, Signed]]:
    """A second beginning."""
    yield "founded again", entry(w, "collaboration.create", founding_data())


def signer(w: World) -> Iterator[tuple[str, Signed]]:
    """An entry of somebody outside."""
    w.organizations["Delta"] = organization("Delta")
    yield "not a member", node_approve(w, w.claim("Delta", "new", SigningKey.generate(w.random)), "Delta")
    yield "a member's name in place of its address", node_approve(w, new_claim(w), organization_id="Alpha")


def signature(w: World) -> Iterator[tuple[str, Signed]]:
    """An entry that its organization has not signed so."""
    right, claim = node_approve(w, new_claim(w)), new_claim(w)
    body, key = right.body, w["Alpha"].governance_key
    yield "another member's key", node_approve(w, claim, key=w["Beta"].governance_key)
    yield "the organization's task-signing key", node_approve(w, claim, key=w["Alpha"].organization_key.task_signing)
    yield "the organization's node key", node_approve(w, claim, key=w["Alpha"].nodes["alpha-1"])
    yield "signed as a task", sign(SignedKind.SIGNED_KIND_TASK_SPEC, body, key=key, genesis=w.genesis)
    yield "signed for another collaboration", sign(ENTRY, body, key=key, genesis=bytes(32))
    yield "signed for no collaboration", sign(ENTRY, body, key=key)
    yield (
        "a bit of the signature flipped",
        changed(right, signature=bytes([right.signature[0] ^ 1]) + right.signature[1:]),
    )
    yield "a signature cut off", changed(right, signature=right.signature[:-1])
    yield "another key id", changed(right, key_id=w["Beta"].governance_key.key_id)
    yield "said to be of another kind", changed(right, kind=SignedKind.SIGNED_KIND_NODE_CLAIM)
    other = serialize(changed(LedgerEntry.FromString(body), created_by="mallory"))
    yield "body altered after signing", changed(right, body=other)
    yield "vote with another member's key", vote(w, request(w), key=w["Beta"].governance_key)
    yield "vote with the applicant's key", vote(w, request(w), key=organization("Delta").governance_key)
    yield "vote with the organization's node key", vote(w, request(w), key=w["Alpha"].nodes["alpha-1"])
    yield "governance key in place of the invitation's", _with_invitation(w, None)
    yield "one-time key of another invitation", _with_invitation(w, invite(w)[1])


def _with_invitation(w: World, key: SigningKey | None) -> Signed:
    invitation, _ = invite(w)
    return redeem(w, invitation, key or w["Alpha"].governance_key)


def name(w: World) -> Iterator[tuple[str, Signed]]:
    """Names that could be taken for something else."""
    wrong = {
        "no name": "",
        "64 letters": "a" * 64,
        "a space at the end": "Delta ",
        "a letter outside of ASCII": "D\u0435lta",
        "a line break": "Del\nta",
        "an @": "delta@home",
        "the form of a fingerprint": organization("Epsilon").address,
        "the form of a fingerprint in capitals": organization("Epsilon").address.upper(),
    }
    for case, value in wrong.items():
        yield f"organization name: {case}", vote(w, request(w, name=value))
    yield "node name: a space at the beginning", node_approve(w, new_claim(w, node_name=" new"))
    yield "node name: the form of a fingerprint", node_approve(w, new_claim(w, node_name="a" * 56))


def name_taken(w: World) -> Iterator[tuple[str, Signed]]:
    """Names of others."""
    yield "a member's name", vote(w, request(w, name="Beta"))
    yield "a member's name in capitals", vote(w, request(w, name="BETA"))
    yield "the name of another node", node_approve(w, new_claim(w, node_name="alpha-1"))
    yield "the name of another node in capitals", node_approve(w, new_claim(w, node_name="ALPHA-1"))


def key_kind(w: World) -> Iterator[tuple[str, Signed]]:
    """Keys that can't sign where keys must."""
    x_wing = w["Alpha"].organization_key.encryption.public
    short = PublicKey(kind=KeyKind.KEY_KIND_ED25519, public=bytes(31))
    yield "governance key that receives", vote(w, request(w, governance_key=x_wing))
    yield "node key of 31 bytes", node_approve(w, new_claim(w, public_key=short))
    yield "one-time key that receives", redeem(w, invite(w, public_key=x_wing)[0], w["Alpha"].governance_key)
    yield "node key of no kind", node_approve(w, new_claim(w, public_key=PublicKey(public=bytes(32))))


def key_reused(w: World) -> Iterator[tuple[str, Signed]]:
    """Keys with a second owner or a second use."""
    delta, alpha = organization("Delta"), w["Alpha"]
    stolen = key_claim(delta, encryption=alpha.organization_key.encryption.public)
    yield "another member's encryption key", claimed(w, stolen)
    governance = delta.governance_key
    both = OrganizationKeys.FromString(key_claim(delta).body)
    both.task_signing.CopyFrom(governance.public)
    one_key = sign(SignedKind.SIGNED_KIND_KEY_CLAIM, serialize(both), key=governance)
    yield "governance key as task-signing key", claimed(w, one_key)
    for case, key in {
        "the same node under a second name": alpha.nodes["alpha-1"],
        "another organization's node key": w["Beta"].nodes["beta-1"],
        "governance key as node key": alpha.governance_key,
        "task-signing key as node key": alpha.organization_key.task_signing,
    }.items():
        yield case, node_approve(w, w.claim("Alpha", "new", key))
    invitation, one_time = invite(w)
    data = NodeApprove(claim=w.claim("Alpha", "invited", one_time), invitation=invitation)
    yield "one-time key as node key", entry(w, "node.approve", data, key=one_time)


def key_claim_rule(w: World) -> Iterator[tuple[str, Signed]]:
    """Organization keys that are not presented as they must be."""
    delta, epsilon = organization("Delta"), organization("Epsilon")
    yield "presented for another organization", claimed(w, key_claim(delta, organization_id=epsilon.address))
    yield "presented by another organization", claimed(w, key_claim(epsilon))
    yield "generation 0", claimed(w, key_claim(delta, generation=None))
    yield "without time", claimed(w, key_claim(delta, created_at=None))
    yield "format 2", claimed(w, key_claim(delta, version=2))
    yield "signed for a collaboration", claimed(w, key_claim(delta, genesis=w.genesis))
    others = key_claim(delta, task_signing=epsilon.organization_key.task_signing.public)
    yield "another organization's task-signing key", claimed(w, others)
    yield "RSA key of 2,048 bits", claimed(w, key_claim(delta, encryption=rsa_public(2048)))
    yield (
        "RSA key that is not a key",
        claimed(w, key_claim(delta, encryption=PublicKey(kind=KeyKind.KEY_KIND_RSA, public=b"key"))),
    )
    half = PublicKey(kind=KeyKind.KEY_KIND_X_WING, public=delta.organization_key.encryption.public.public[:1184])
    yield "half an X-Wing key", claimed(w, key_claim(delta, encryption=half))
    yield "key that signs, to receive", claimed(w, key_claim(delta, encryption=delta.governance_key.public))
    kind, governance = SignedKind.SIGNED_KIND_JOIN_REQUEST, delta.governance_key
    bare = changed(JoinRequest.FromString(request(w).body), key_claim=None)
    yield "no key claim", vote(w, sign(kind, serialize(bare), key=governance, genesis=w.genesis))
    nameless = without_null(rsa_public(3072).public)
    other_form = PublicKey(kind=KeyKind.KEY_KIND_RSA, public=nameless)
    yield "RSA key in another encoding, and so with another id", claimed(w, key_claim(delta, encryption=other_form))
    wide = overgrown(OrganizationKeys.FromString(key_claim(delta).body), "generation")
    signing = delta.organization_key.task_signing
    yield (
        "a generation that is 1 only if cut off",
        claimed(w, sign(SignedKind.SIGNED_KIND_KEY_CLAIM, wide, key=signing)),
    )


def nonce(w: World) -> Iterator[tuple[str, Signed]]:
    """Nonces of another length."""
    yield "nonce of 15 bytes", vote(w, request(w, nonce=bytes(15)))


def subject(w: World) -> Iterator[tuple[str, Signed]]:
    """A vote about nothing."""
    yield "no subject", entry(w, "organization.vote", OrganizationVote(decision=APPROVE))


def decision(w: World) -> Iterator[tuple[str, Signed]]:
    """A vote neither for nor against."""
    yield "no decision", vote(w, request(w), decision=0)
    yield "a third decision", vote(w, request(w), decision=3)


def reason_digest(w: World) -> Iterator[tuple[str, Signed]]:
    """A reason in words."""
    data = OrganizationVote(join_request=request(w), decision=DECLINE, reason_digest=b"because")
    yield "a reason in words", entry(w, "organization.vote", data)


def request_rule(w: World) -> Iterator[tuple[str, Signed]]:
    """Join requests of others, or for others."""
    kind, delta = SignedKind.SIGNED_KIND_JOIN_REQUEST, organization("Delta").governance_key
    right = request(w)
    yield "for another collaboration", vote(w, request(w, genesis=bytes(32)))
    yield "signed for another collaboration", vote(w, sign(kind, right.body, key=delta, genesis=bytes(32)))
    yield "signed by who wants it in", vote(w, sign(kind, right.body, key=w["Alpha"].governance_key, genesis=w.genesis))
    other = serialize(changed(JoinRequest.FromString(right.body), name="Mallory"))
    yield "name altered after signing", vote(w, changed(right, body=other))
    yield "without expiry", vote(w, request(w, expires_at=None))
    yield "unknown field in the request", vote(w, sign(kind, right.body + UNKNOWN_FIELD, key=delta, genesis=w.genesis))
    w.append(vote(w, right))
    broken = changed(right, signature=bytes(64))
    yield "known, embedded again without its signature", vote(w, broken, "Beta")


def request_term(w: World) -> Iterator[tuple[str, Signed]]:
    """Requests that would wait for ever, or never could."""
    yield "90 days and a nanosecond", vote(w, request(w, expires_at=stamp(NOW + 90 * DAY, 1)))
    yield "expires as it is made", vote(w, request(w, expires_at=stamp(NOW)))


def request_expired(w: World) -> Iterator[tuple[str, Signed]]:
    """Votes that come too late."""
    wish = request(w, expires_at=stamp(NOW + DAY))
    yield "embedded at its expiry", vote(w, wish, created_at=stamp(NOW + DAY))
    w.append(vote(w, wish))
    data = OrganizationVote(join_request_digest=digest(wish.body), decision=APPROVE)
    yield "by digest at its expiry", entry(w, "organization.vote", data, "Beta", created_at=stamp(NOW + DAY))


def request_unknown(w: World) -> Iterator[tuple[str, Signed]]:
    """Votes on what nobody has shown."""
    unseen = OrganizationVote(join_request_digest=digest(request(w).body), decision=APPROVE)
    yield "by digest before it was embedded", entry(w, "organization.vote", unseen)
    yield (
        "by an empty digest",
        entry(w, "organization.vote", OrganizationVote(join_request_digest=b"", decision=APPROVE)),
    )


def request_decided(w: World) -> Iterator[tuple[str, Signed]]:
    """Votes that change nothing any more."""
    wish = request(w)
    w.append(vote(w, wish))
    w.append(vote(w, wish, "Beta"))
    yield "after it admitted", vote(w, wish, "Gamma")
    data = OrganizationVote(join_request_digest=digest(wish.body), decision=DECLINE)
    yield "taken back after it admitted", entry(w, "organization.vote", data, "Beta")


def already_member(w: World) -> Iterator[tuple[str, Signed]]:
    """Members that ask again."""
    yield "a member under another name", vote(w, request(w, w["Gamma"], name="Gamma two"))


def keys_present(w: World) -> Iterator[tuple[str, Signed]]:
    """Keys published over keys."""
    claim = w["Alpha"].organization_key.claim(w["Alpha"].address, 2, NOW)
    yield "publish keys over keys", entry(w, "organization.publish_key", OrganizationPublishKey(key_claim=claim))


def node_claim(w: World) -> Iterator[tuple[str, Signed]]:
    """Claims of other nodes, or for others."""
    kind = SignedKind.SIGNED_KIND_NODE_CLAIM
    right = new_claim(w)
    yield "claim to be another organization's node", node_approve(w, new_claim(w, organization_id=w["Beta"].address))
    yield "claim for another collaboration", node_approve(w, new_claim(w, genesis=bytes(32)))
    foreign = sign(kind, right.body, key=w["Alpha"].governance_key, genesis=w.genesis)
    yield "claim signed by somebody else's key", node_approve(w, foreign)
    yield "claim without time", node_approve(w, new_claim(w, created_at=None))
    yield "claim signed as an invitation", node_approve(w, changed(right, kind=SignedKind.SIGNED_KIND_INVITATION))
    yield "no claim", entry(w, "node.approve", NodeApprove())


def invitation(w: World) -> Iterator[tuple[str, Signed]]:
    """Invitations of others, or for others."""
    wrong: dict[str, dict[str, Any]] = {
        "for another organization": {"organization_id": w["Beta"].address},
        "for another collaboration": {"genesis": bytes(32)},
        "for another node name": {"node_name": "another"},
        "expires as it is written": {"expires_at": stamp(NOW)},
        "without expiry": {"expires_at": None},
    }
    for case, changes in wrong.items():
        yield f"invitation {case}", redeem(w, *invite(w, **changes))
    yield "invitation by another organization", redeem(w, *invite(w, w["Beta"].governance_key))
    yield "invitation by the server", redeem(w, *invite(w, SigningKey.generate(w.random)))
    yield "invitation by a node of the organization", redeem(w, *invite(w, w["Alpha"].nodes["alpha-1"]))


def invitation_expired(w: World) -> Iterator[tuple[str, Signed]]:
    """Invitations used too late."""
    yield (
        "invitation used at its expiry",
        redeem(w, *invite(w, expires_at=stamp(NOW + DAY)), created_at=stamp(NOW + DAY)),
    )


def invitation_used(w: World) -> Iterator[tuple[str, Signed]]:
    """Invitations used twice."""
    once, one_time = invite(w)
    again = signed_again(
        once, SignedKind.SIGNED_KIND_INVITATION, w["Alpha"].governance_key, w.genesis, node_name="second"
    )
    w.append(redeem(w, once, one_time))
    yield "invitation used again", redeem(w, once, one_time)
    yield "one-time key of a used invitation in another one", redeem(w, again, one_time, "second")


RULES = {
    "FORM": form,
    "SEQUENCE": sequence,
    "PREVIOUS_HASH": previous_hash,
    "GENESIS": genesis,
    "TIME": time,
    "TIME_ORDER": time_order,
    "TIME_AHEAD": time_ahead,
    "CREATED_BY": created_by,
    "FOUNDING": founding_rule,
    "SIGNER": signer,
    "SIGNATURE": signature,
    "NAME": name,
    "NAME_TAKEN": name_taken,
    "KEY_KIND": key_kind,
    "KEY_REUSED": key_reused,
    "KEY_CLAIM": key_claim_rule,
    "NONCE": nonce,
    "SUBJECT": subject,
    "DECISION": decision,
    "REASON_DIGEST": reason_digest,
    "REQUEST": request_rule,
    "REQUEST_TERM": request_term,
    "REQUEST_EXPIRED": request_expired,
    "REQUEST_UNKNOWN": request_unknown,
    "REQUEST_DECIDED": request_decided,
    "ALREADY_MEMBER": already_member,
    "KEYS_PRESENT": keys_present,
    "NODE_CLAIM": node_claim,
    "INVITATION": invitation,
    "INVITATION_EXPIRED": invitation_expired,
    "INVITATION_USED": invitation_used,
}
