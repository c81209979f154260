"""Random histories: two readers that know nothing of each other agree on every entry and on everything that follows from it."""

from collections.abc import Iterable
from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import replay
from tests.unit.trust.random_history import NAMES, History, Step, quorums, tries

BALLOTS = [
    ("", "organization.vote:join"),
    ("organization.request_removal", "organization.vote:removal"),
    ("algorithm.propose", "algorithm.vote"),
]
"""How a subject comes into the ledger, if not by the first vote, and how it is voted on."""


@given(members=st.integers(1, len(NAMES)), quorum=quorums, steps=st.lists(tries, min_size=20, max_size=60))
def test_both_readers_agree_on_every_entry_and_on_what_follows(members, quorum, steps):
    history = History(members, quorum)
    for step in steps:
        history.take(step)


@given(
    members=st.integers(2, len(NAMES)), quorum=quorums, steps=st.lists(tries, min_size=10, max_size=40), data=st.data()
)
def test_equal_sequences_give_equal_states_however_they_are_cut(members, quorum, steps, data):
    history = History(members, quorum)
    for step in steps:
        history.take(step)
    entries, state = history.world.entries, None
    cuts = sorted(data.draw(st.sets(st.integers(1, len(entries) - 1), max_size=5)))
    for start, end in pairwise([0, *cuts, len(entries)]):
        state = replay(entries[start:end], state=state)
    assert state == replay(entries) == history.world.state


@given(
    members=st.integers(1, len(NAMES) - 1),
    quorum=quorums,
    ballot=st.sampled_from(BALLOTS),
    decisions=st.permutations(NAMES).flatmap(
        lambda order: st.tuples(*(st.tuples(st.just(n), st.booleans()) for n in order))
    ),
)
def test_votes_of_different_organizations_come_to_the_same_in_any_order(members, quorum, ballot, decisions):
    """Those that come after the decision are refused; where there is none, it shows nowhere who voted first."""
    votes = [(name, in_favour) for name, in_favour in decisions if name in NAMES[:members]]
    assert outcome(History(members, quorum), ballot, votes) == outcome(History(members, quorum), ballot, sorted(votes))


def outcome(history: History, ballot: tuple[str, str], votes: Iterable[tuple[str, bool]]) -> object:
    """Let members vote on a wish, a removal or a proposal; return what came of it."""
    ask, vote = ballot
    if ask:
        history.take(Step(ask, "Alpha", "Beta", 0, True, timedelta()))
    for name, in_favour in votes:
        history.take(Step(vote, name, "Epsilon", 0, in_favour, timedelta()))
    second = history.second
    subjects = [None, *second.requests.values(), *second.removals.values(), *second.proposals.values()]
    newest = subjects[-1]
    return newest and (newest.decided or newest.told()), sorted(second.members)
