"""Cases of ledger.json: ledgers that everybody must take, and ledgers of which everybody must refuse exactly one entry.

Each bad case is a good ledger with one more entry that breaks one rule (`ledger_breaches`), or a founding entry that does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from folkmoot.trust import SigningKey, digest, fingerprint, serialize, sign
from folkmoot.v1.ledger_pb2 import (
    LedgerPosition,
    NodeRevoke,
    OrganizationVote,
    PostQuantum,
    Predecessor,
    Quorum,
)
from folkmoot.v1.signed_pb2 import Signed
from tests.builders import DAY, NOW, organization, world
from tests.vectors.forge import (
    APPROVE,
    DECLINE,
    ENTRY,
    MINUTE,
    UNKNOWN_FIELD,
    base,
    claimed,
    entry,
    founded,
    founding,
    founding_data,
    founding_entry,
    invite,
    key_claim,
    new_claim,
    node_approve,
    redeem,
    request,
    rsa_public,
    stamp,
    vote,
)
from tests.vectors.ledger_breaches import RULES


@dataclass(frozen=True)
class Case:
    """A ledger and what a reader must say to it."""

    name: str
    entries: list[Signed]
    verdict: str = "accepted"
    """Or "refused", "upgrade needed", "wrong collaboration"."""
    rule: str = ""
    """Of refused ones: the rule that the last entry breaks."""
    now: datetime | None = None
    expected_genesis: bytes | None = None


# ---- ledgers that are good ------------------------------------------------------------------------------------------


def good() -> Iterator[Case]:
    """Yield ledgers that everybody takes."""
    w = base()
    yield Case("three organizations with a node each", w.entries, now=NOW, expected_genesis=w.genesis)
    yield Case("one organization alone", w.entries[:1])
    w = world(("Alpha", "Beta", "Gamma", "Delta"), nodes=False, quorum=Quorum.QUORUM_UNANIMOUS)
    yield Case("all must approve", w.entries)
    w = world(("Alpha", "Beta", "Gamma", "Delta"), nodes=False, quorum=Quorum.QUORUM_TWO_THIRDS)
    yield Case("two of three approve", w.entries)
    w = world(("Alpha", "Beta"), nodes=False, post_quantum=PostQuantum.POST_QUANTUM_REQUIRED)
    yield Case("post-quantum keys where they are required", w.entries)
    yield from _good_votes()
    yield from _good_nodes()


def _good_votes() -> Iterator[Case]:
    w = base()
    wish = request(w)
    w.append(vote(w, wish))
    yield Case("one approval of three admits nobody", list(w.entries))
    w.append(vote(w, wish, "Alpha", DECLINE))
    w.append(vote(w, wish, "Beta", DECLINE))
    w.append(vote(w, wish, "Gamma", DECLINE))
    yield Case("declined by all", list(w.entries))
    w.append(vote(w, wish, "Gamma"))
    w.vote("Beta", digest(wish.body))
    yield Case("votes are replaced until they admit", list(w.entries))
    w = base()
    last = request(w, expires_at=stamp(NOW + DAY))
    yield Case("a vote one nanosecond before expiry", [*w.entries, vote(w, last, created_at=stamp(NOW + DAY, -1))])
    yield Case("a request for all of 90 days", [*w.entries, vote(w, request(w, expires_at=stamp(NOW + 90 * DAY)))])
    w.append(vote(w, request(w, organization("Delta"), name="Delta one")))
    w.append(vote(w, request(w, organization("Epsilon"), name="Delta one"), "Beta"))
    yield Case("two pending requests for one name", list(w.entries))
    yield Case(
        "an RSA key of 3,072 bits",
        [*w.entries, claimed(w, key_claim(organization("Delta"), encryption=rsa_public(3072)))],
    )
    yield Case("keys of a later generation", [*w.entries, claimed(w, key_claim(organization("Delta"), generation=7))])


def _good_nodes() -> Iterator[Case]:
    w = base()
    yield Case("a node without invitation", [*w.entries, node_approve(w, new_claim(w))])
    yield Case(
        "an entry five minutes ahead",
        [*w.entries, node_approve(w, new_claim(w), created_at=stamp(NOW + 5 * MINUTE))],
        now=NOW,
    )
    w.append(node_approve(w, w.claim("Alpha", "beta-1", SigningKey.generate(w.random))))
    yield Case("the same node name in two organizations", list(w.entries))
    for each in range(2):
        invitation, one_time = invite(w, node_name=f"invited {each}")
        w.append(redeem(w, invitation, one_time, f"invited {each}"))
    yield Case("two invitations of one organization", list(w.entries))
    invitation, one_time = invite(w, expires_at=stamp(NOW + DAY))
    late = redeem(w, invitation, one_time, created_at=stamp(NOW + DAY, -1))
    yield Case("an invitation used one nanosecond before expiry", [*w.entries, late])


def founders() -> Iterator[tuple[str, str, Signed]]:
    """Yield rule, case and founding entry of ledgers that don't even begin."""
    alpha, beta = founded()["Alpha"], founded()["Beta"]
    yield "SEQUENCE", "first entry with sequence 1", founding_entry(sequence=1)
    yield "PREVIOUS_HASH", "first entry with an entry before it", founding_entry(previous_hash=bytes(32))
    yield "GENESIS", "first entry with a genesis", founding_entry(genesis=bytes(32))
    yield "FOUNDING", "first entry that founds nothing", founding_entry(intent="node.approve")
    yield "FOUNDER", "founded in another organization's name", founding_entry(organization_id=beta.address)
    body = founded().entries[0].body
    yield "SIGNATURE", "founded by another key", sign(ENTRY, body, key=beta.governance_key)
    yield "SIGNATURE", "founded with a genesis", sign(ENTRY, body, key=alpha.governance_key, genesis=bytes(32))
    yield "FORM", "founded with an unknown field", founding_entry(data=serialize(founding_data()) + UNKNOWN_FIELD)
    for field in ("encryption", "post_quantum", "quorum"):
        yield "TERMS", f"founded without {field}", founding(**{field: None})
        yield "TERMS", f"founded with a later release's {field}", founding(**{field: 9})
    yield "NONCE", "founded without nonce", founding(nonce=None)
    yield "NAME", "founded without name", founding(name=None)
    yield "NAME", "founded under a fingerprint", founding(name=beta.address)
    yield "NAME", "founder without name", founding(founder_name=None)
    yield "KEY_KIND", "founded by a key that receives", founding(governance_key=rsa_public(3072))
    yield "KEY_CLAIM", "founded with another organization's keys", founding(key_claim=key_claim(beta))
    required = PostQuantum.POST_QUANTUM_REQUIRED
    rsa = key_claim(alpha, encryption=rsa_public(3072))
    yield "POST_QUANTUM", "RSA key of the founder", founding(post_quantum=required, key_claim=rsa)


def _post_quantum() -> Case:
    w = world(("Alpha",), nodes=False, post_quantum=PostQuantum.POST_QUANTUM_REQUIRED)
    rsa = key_claim(organization("Delta"), encryption=rsa_public(4096))
    return Case("RSA key of who joins", [*w.entries, claimed(w, rsa)], "refused", "POST_QUANTUM")


def later() -> Iterator[Case]:
    """Yield ledgers of later releases: nobody may skip what he does not understand, nor call it wrong."""
    w = base()
    for case, unknown in {
        "an intent that nobody knows": entry(w, "organization.dance", b"data"),
        "data of format 2": node_approve(w, new_claim(w), data_version=2),
        "data of format 0": node_approve(w, new_claim(w), data_version=0),
    }.items():
        yield Case(case, [*w.entries, unknown], "upgrade needed")
    yield Case("founded in format 2", [founding_entry(data_version=2)], "upgrade needed")


def then_later() -> Iterator[Case]:
    """Yield what the first release knew only by name, and could not judge yet."""
    w = base()
    nobody = entry(w, "node.revoke", NodeRevoke(node_id=fingerprint(bytes(32))))
    yield Case("an intent of the next release", [*w.entries, nobody], "refused", "NODE")
    removal = OrganizationVote(removal_hash=bytes(32), decision=APPROVE)
    unknown = entry(w, "organization.vote", removal)
    yield Case("a vote on a removal", [*w.entries, unknown], "refused", "REMOVAL_UNKNOWN")
    head = LedgerPosition(sequence=3, hash=bytes(32))
    yield Case("a successor", [founding(predecessor=Predecessor(genesis=bytes(32), head=head))])


def cases() -> Iterator[Case]:
    """Yield all cases."""
    yield from good()
    for rule, breaches in RULES.items():
        w = base()
        for case, bad in breaches(w):
            now = NOW if rule == "TIME_AHEAD" else None
            yield Case(case, [*w.entries, bad], "refused", rule, now)
    for rule, case, bad in founders():
        yield Case(case, [bad], "refused", rule)
    yield _post_quantum()
    yield from later()
    yield from then_later()
    yield Case("a ledger that was not asked for", base().entries, "wrong collaboration", expected_genesis=bytes(32))
