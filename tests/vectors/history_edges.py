"""More ledgers of history.json: where each rule about who goes, which keys follow and what is voted on begins and ends."""

from collections.abc import Callable, Iterator

from folkmoot.trust import OrganizationKey, digest
from folkmoot.v1.ledger_pb2 import (
    AlgorithmPropose,
    AlgorithmRevoke,
    AlgorithmVote,
    LedgerPosition,
    OrganizationVote,
    Predecessor,
    Quorum,
)
from tests.builders import DAY, NOW, World, organization, organization_key, world
from tests.vectors.forge import (
    APPROVE,
    DECLINE,
    MINUTE,
    base,
    entry,
    fork,
    founding,
    invite,
    redeem,
    request,
    stamp,
    vote,
)
from tests.vectors.history_breaches import (
    IMAGE,
    algorithm_vote,
    claimed_by,
    proposed,
    removal_vote,
    request_removal,
    revocation,
    rotation,
)
from tests.vectors.ledger_cases import Case

FIVE = ("Alpha", "Beta", "Gamma", "Delta", "Epsilon")
QUORUMS = {
    "majority": Quorum.QUORUM_MAJORITY,
    "two thirds": Quorum.QUORUM_TWO_THIRDS,
    "unanimous": Quorum.QUORUM_UNANIMOUS,
}
NEEDED = {
    # (members, quorum): approvals that admit or allow, approvals of the others that remove
    (3, "majority"): (2, 2),
    (3, "two thirds"): (2, 2),
    (3, "unanimous"): (3, 2),
    (4, "majority"): (3, 2),
    (4, "two thirds"): (3, 2),
    (4, "unanimous"): (4, 3),
    (5, "majority"): (3, 3),
    (5, "two thirds"): (4, 3),
    (5, "unanimous"): (5, 4),
}


def more_ledgers() -> Iterator[Case]:
    """Yield all ledgers."""
    yield from _quorums()
    yield from _votes_of_who_goes()
    yield from _nanoseconds()
    yield from _removals()
    yield from _return()
    yield from _keys()
    yield from _others()


def _quorums() -> Iterator[Case]:
    for (members, name), (needed, needed_of_others) in NEEDED.items():
        w = world(FIVE[:members], nodes=False, quorum=QUORUMS[name])
        what = f"of {members} members, {name}"
        yield from _ballot(f"removed {what}", fork(w), needed_of_others, _removal_ballot)
        yield from _ballot(f"allowed {what}", fork(w), needed, _algorithm_ballot)
        yield from _ballot(f"admitted {what}", fork(w), needed, _join_ballot)


def _ballot(
    what: str, w: World, needed: int, open_ballot: Callable[[World], Callable[[str], object]]
) -> Iterator[Case]:
    """Yield a ledger in which one approval is missing, and one in which none is."""
    approve = open_ballot(w)
    for voter in FIVE[: needed - 1]:
        approve(voter)
    yield Case(f"not yet {what}: {needed - 1} approvals", list(w.entries))
    approve(FIVE[needed - 1])
    yield Case(f"{what}: {needed} approvals", list(w.entries))


def _removal_ballot(w: World) -> Callable[[str], object]:
    removal = w.request_removal("Alpha", list(w.organizations)[-1])
    return lambda voter: w.vote_removal(voter, removal)


def _algorithm_ballot(w: World) -> Callable[[str], object]:
    proposal = proposed(w)
    return lambda voter: w.append(algorithm_vote(w, proposal, voter))


def _join_ballot(w: World) -> Callable[[str], object]:
    wish = w.join_request(organization("Zeta"))
    return lambda voter: w.vote(voter, wish)


def _votes_of_who_goes() -> Iterator[Case]:
    """Who goes neither votes nor is counted any more; but nothing passes before the next vote."""
    w = world(FIVE, nodes=False)
    wish, proposal = w.join_request(organization("Zeta")), proposed(w)
    removal = w.request_removal("Alpha", "Beta")
    for voter in ("Gamma", "Delta"):
        w.vote(voter, wish)
        w.append(algorithm_vote(w, proposal, voter))
        w.vote_removal(voter, removal)
    w.leave("Epsilon")
    w.leave("Alpha")
    yield Case("approvals that became enough pass nothing by themselves", list(w.entries))
    for case, late in {
        "admits": vote(w, wish, "Beta", DECLINE),
        "removes": removal_vote(w, removal, "Gamma"),
        "allows": algorithm_vote(w, proposal, "Gamma"),
    }.items():
        yield Case(f"the next vote counts all: {case}", [*w.entries, late])
    w = world(FIVE[:4], nodes=False)
    removal = w.request_removal("Alpha", "Beta")
    w.vote_removal("Gamma", removal)
    w.leave("Gamma")
    w.join(w["Gamma"])
    yield Case("a vote does not come back with its organization", list(w.entries))
    w.vote_removal("Delta", removal)
    yield Case("a vote from an earlier membership does not remove with another one", list(w.entries))
    w.vote_removal("Gamma", removal)
    yield Case("given anew, it does", list(w.entries))
    w = base()
    removal = w.request_removal("Alpha", "Beta")
    w.leave("Gamma")
    w.vote_removal("Alpha", removal)
    yield Case("the only other member does not remove", list(w.entries))


def _nanoseconds() -> Iterator[Case]:
    w = base()
    removal = w.request_removal("Alpha", "Gamma")
    last, over = stamp(NOW + 90 * DAY, -1), stamp(NOW + 90 * DAY)
    yield Case("a vote a nanosecond before a removal is void", [*w.entries, removal_vote(w, removal, created_at=last)])
    again = request_removal(w, w["Gamma"].address, created_at=over)
    yield Case("asked for again in the nanosecond in which the first is void", [*w.entries, again])
    w = base()
    ahead = {at: request(w, created_at=stamp(NOW + 5 * MINUTE, at)) for at in (0, 1)}
    yield Case("a vote on a wish from five minutes ahead", [*w.entries, vote(w, ahead[0])])
    yield Case("a vote on a wish from further ahead", [*w.entries, vote(w, ahead[1])], "refused", "REQUEST_TERM")
    w = base()
    proposal = proposed(w, expires_at=stamp(NOW, 2))
    late = algorithm_vote(w, proposal, created_at=stamp(NOW, 1))
    yield Case("a vote a nanosecond before a proposal expires", [*w.entries, late])
    late = algorithm_vote(w, proposal, created_at=stamp(NOW, 2))
    yield Case("a vote in the nanosecond in which a proposal expires", [*w.entries, late], "refused", "PROPOSAL_VOID")
    withdrawn = entry(w, "algorithm.revoke", AlgorithmRevoke(proposal_hash=proposal), created_at=stamp(NOW, 2))
    yield Case("an expired proposal is withdrawn", [*w.entries, withdrawn])
    data = AlgorithmPropose(image=IMAGE, expires_at=stamp(NOW, 1))
    yield Case("proposed for a nanosecond", [*w.entries, entry(w, "algorithm.propose", data)])


def _removals() -> Iterator[Case]:
    w = world(FIVE, nodes=False)
    first, second = w.request_removal("Alpha", "Epsilon"), w.request_removal("Beta", "Delta")
    for voter in ("Alpha", "Epsilon"):
        w.vote_removal(voter, second)
    for voter in ("Alpha", "Beta", "Gamma"):
        w.vote_removal(voter, first)
    yield Case("the vote of who was removed does not count", list(w.entries))
    w.vote_removal("Beta", second)
    yield Case("two removals in a row", list(w.entries))
    late = request_removal(w, w["Gamma"].address)
    yield Case("a third removal of the three that are left", [*w.entries, late])
    w.vote_removal("Alpha", w.request_removal("Beta", "Gamma"))
    w.join(w["Delta"])
    yield Case("who was removed comes back", list(w.entries))
    yield Case("a removal that passed", [*w.entries, removal_vote(w, second, "Gamma")], "refused", "REMOVAL_VOID")
    w.remove("Delta")
    yield Case("removed a second time", list(w.entries))
    w = base()
    w.remove("Gamma")
    yield Case(
        "a vote of who was removed",
        [*w.entries, vote(w, w.join_request(organization("Zeta")), "Gamma")],
        "refused",
        "SIGNER",
    )
    data = OrganizationVote(removal_hash=b"", decision=APPROVE)
    yield Case(
        "a removal named by nothing", [*w.entries, entry(w, "organization.vote", data)], "refused", "REMOVAL_UNKNOWN"
    )


def _return() -> Iterator[Case]:
    w = base()
    wish = w.join_request(w["Gamma"])
    yield Case("a wish of a member", [*w.entries, vote(w, wish)], "refused", "ALREADY_MEMBER")
    w = base()
    applicant = organization("Delta")
    wish = w.join_request(applicant)
    w.organizations["Delta"] = applicant
    w.vote("Alpha", wish)
    w.vote("Beta", wish)
    w.leave("Delta")
    again = vote(w, wish)
    yield Case("comes back with the wish that was granted", [*w.entries, again], "refused", "REQUEST_DECIDED")
    by_digest = OrganizationVote(join_request_digest=digest(wish.body), decision=APPROVE)
    named = entry(w, "organization.vote", by_digest)
    yield Case("the wish that was granted, by its digest", [*w.entries, named], "refused", "REQUEST_DECIDED")
    w = base()
    yield from _wishes_from_before()
    invitation, one_time = invite(w)
    w.leave("Alpha")
    used = redeem(w, invitation, one_time)
    yield Case("an invitation of who has left", [*w.entries, used], "refused", "SIGNER")
    w.join(w["Alpha"])
    yield Case("an invitation from an earlier membership", [*w.entries, redeem(w, invitation, one_time)])


def _wishes_from_before() -> Iterator[Case]:
    """An admission decides all wishes that were voted on; one that nobody had voted on needs all its votes afterwards."""
    w, applicant = base(), organization("Delta")
    granted, voted, unseen = [w.join_request(applicant) for _ in range(3)]
    w.organizations["Delta"] = applicant
    w.vote("Gamma", voted, DECLINE)
    for voter in ("Alpha", "Beta"):
        w.vote(voter, granted)
    yield Case("three wishes, of which one is granted", list(w.entries))
    w.remove("Delta")
    yield Case("a wish from before the admission", [*w.entries, vote(w, voted)], "refused", "REQUEST_DECIDED")
    w.vote("Alpha", unseen)
    w.vote("Beta", unseen)
    yield Case("a wish from before that nobody had voted on", list(w.entries))


def _keys() -> Iterator[Case]:
    w = base()
    first = w["Gamma"].organization_key
    w.revoke("Gamma", first.task_signing.key_id)
    w.leave("Gamma")
    w["Gamma"].organization_key = organization_key("new")
    w.join(w["Gamma"])
    yield Case("revoked, left, and came back with new keys", list(w.entries))
    w.revoke("Gamma", first.encryption.key_id)
    yield Case("revokes the other key of an earlier membership", list(w.entries))
    w = base()
    first = w["Gamma"].organization_key
    w.rotate("Gamma", organization_key("second"))
    w.leave("Gamma")
    back = fork(w)
    back["Gamma"].organization_key = first
    yield Case(
        "comes back with keys that it rotated away", [*back.entries, claimed_by(back, "Gamma")], "refused", "KEY_SPENT"
    )
    w.join(w["Gamma"])
    yield Case("rotated, left, and came back with the keys of the end", list(w.entries))
    yield Case(
        "generations go on from the claim that it came back with",
        [*w.entries, rotation(w, organization_key("third"), 2, "Gamma")],
    )
    w = base()
    first, second, third = w["Alpha"].organization_key, organization_key("second"), organization_key("third")
    w.rotate("Alpha", second)
    every = [key for pair in (first, second) for key in (pair.encryption.key_id, pair.task_signing.key_id)]
    claim = third.claim(w["Alpha"].address, 3, NOW)
    yield Case("revokes present and former keys at once, with new ones", [*w.entries, revocation(w, every, claim)])
    same = second.claim(w["Alpha"].address, 3, NOW)
    ids = [first.task_signing.key_id, second.encryption.key_id]
    yield Case("revokes keys and brings them back", [*w.entries, revocation(w, ids, same)], "refused", "KEY_REUSED")
    skipped = third.claim(w["Alpha"].address, 4, NOW)
    late = revocation(w, [second.encryption.key_id], skipped)
    yield Case("revokes keys and leaves a generation out", [*w.entries, late], "refused", "KEY_GENERATION")
    w.revoke("Alpha", second.encryption.key_id)
    revived = revocation(w, [second.task_signing.key_id], second.claim(w["Alpha"].address, 3, NOW))
    yield Case("brings back the pair that it revokes", [*w.entries, revived], "refused", "KEY_SPENT")
    w = base()
    first = w["Gamma"].organization_key
    w.revoke("Gamma", first.encryption.key_id)
    w.leave("Gamma")
    w["Gamma"].organization_key = OrganizationKey(third.encryption, first.task_signing)
    half = claimed_by(w, "Gamma")
    yield Case("comes back with the other key of a revoked pair", [*w.entries, half], "refused", "KEY_SPENT")


def _others() -> Iterator[Case]:
    w = base()
    longest = AlgorithmPropose(image="i" * 512, functions=["f" * 128, "f"], labels=["l" * 128, "l"])
    yield Case("as much as a proposal may say", [*w.entries, entry(w, "algorithm.propose", longest)])
    too_long = AlgorithmPropose(image=IMAGE, functions=["f" * 129])
    late = entry(w, "algorithm.propose", too_long)
    yield Case("proposes a function of 129 bytes", [*w.entries, late], "refused", "ALGORITHM")
    proposal = proposed(w)
    w.leave("Alpha")
    withdrawn = AlgorithmRevoke(proposal_hash=proposal)
    w.join(w["Alpha"])
    yield Case("withdrawn by who left and came back", [*w.entries, entry(w, "algorithm.revoke", withdrawn)])
    nothing = entry(w, "algorithm.vote", AlgorithmVote(proposal_hash=w.genesis, decision=APPROVE))
    yield Case("votes on an entry that proposes nothing", [*w.entries, nothing], "refused", "PROPOSAL_UNKNOWN")
    start = LedgerPosition(sequence=0, hash=bytes(32))
    yield Case(
        "a successor of a ledger of one entry", [founding(predecessor=Predecessor(genesis=bytes(32), head=start))]
    )
    half = LedgerPosition(sequence=3, hash=bytes(16))
    wrong = founding(predecessor=Predecessor(genesis=bytes(32), head=half))
    yield Case("succeeds a ledger with half a head", [wrong], "refused", "PREDECESSOR")
