"""A ledger in words: every intent is a line that says who did what about whom, and its data is plain JSON."""

import json
from datetime import datetime, timedelta

import pytest

from folkmoot.client.history import _INTENTS, LedgerEvent, Selection, events
from folkmoot.trust import (
    FolkmootError,
    Predecessor,
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    fingerprint,
    found,
    node_approve_entry,
    publish_key_entry,
    replay,
)
from folkmoot.trust.intents import EFFECTS
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Decision, LedgerEntry
from tests.builders import NOW, organization, organization_key, randomness, world

APPROVE, DECLINE = Decision.DECISION_APPROVE, Decision.DECISION_DECLINE


@pytest.fixture(scope="module")
def told() -> list[LedgerEvent]:
    """A long story in which everything happens that can happen."""
    lung = world(("Alpha", "Beta", "Gamma", "Delta"))
    request = lung.join_request(organization("Epsilon"))
    lung.vote("Alpha", request, DECLINE)
    lung.vote("Beta", digest(request.body))
    key = lung["Alpha"].governance_key
    proposal = algorithm_propose_entry(
        lung.state,
        AlgorithmPropose(image="ghcr.io/average:*", functions=["mean"], labels=["patients"]),
        governance_key=key,
        now=NOW,
    )
    lung.append(proposal)
    hash_of = digest(proposal.body)
    lung.append(algorithm_vote_entry(lung.state, hash_of, APPROVE, governance_key=key, now=NOW))
    lung.append(algorithm_revoke_entry(lung.state, hash_of, governance_key=key, now=NOW))
    machine = lung.claim("Alpha", "alpha-2", organization("machine").governance_key)
    lung.append(node_approve_entry(lung.state, machine, key=key, organization_id=key.fingerprint, now=NOW))
    lung.revoke_node("Alpha", "alpha-1")
    lung.rotate("Beta")
    lung.revoke("Gamma", lung["Gamma"].organization_key.encryption.key_id)
    published = organization_key("Gamma published")
    claim = published.claim(lung["Gamma"].address, 2, lung.now)
    lung.append(publish_key_entry(lung.state, claim, governance_key=lung["Gamma"].governance_key, now=NOW))
    lung.remove("Delta")
    lung.leave("Gamma")
    return events(lung.entries, lung.state)


def lines(told: list[LedgerEvent], intent: str) -> list[str]:
    return [f"{event.organization} {event.text}" for event in told if event.intent == intent]


def test_every_intent_of_the_ledger_has_words(told: list[LedgerEvent]):
    assert _INTENTS.keys() == {*EFFECTS, "collaboration.create"}
    assert {event.intent for event in told} == _INTENTS.keys()


@pytest.mark.parametrize(
    ("intent", "begin"),
    [
        ("collaboration.create", "Alpha founds lung as Alpha (encrypted, majority), key "),
        ("organization.request_removal", "Alpha asks the members to remove Delta"),
        ("organization.leave", "Gamma leaves"),
        ("organization.publish_key", "Gamma publishes key "),
        ("organization.rotate_key", "Beta rotates to key "),
        ("organization.revoke_key", "Gamma revokes key "),
        ("node.revoke", "Alpha revokes the node alpha-1 ("),
        ("algorithm.propose", "Alpha proposes to allow ghcr.io/average:*, functions mean, labels patients"),
        ("algorithm.vote", "Alpha approves ghcr.io/average:*"),
        ("algorithm.revoke", "Alpha withdraws ghcr.io/average:*"),
    ],
)
def test_words_of_an_intent(told: list[LedgerEvent], intent: str, begin: str):
    [line] = lines(told, intent)
    assert line.startswith(begin)


def test_votes_say_on_whom(told: list[LedgerEvent]):
    epsilon, votes = organization("Epsilon").address, lines(told, "organization.vote")
    assert f"Alpha declines Epsilon ({epsilon}) as a member" in votes
    assert f"Beta approves Epsilon ({epsilon}) as a member" in votes
    assert "Alpha approves the removal of Delta" in votes


def test_nodes_say_whether_they_were_invited(told: list[LedgerEvent]):
    invited, by_hand = lines(told, "node.approve")[0], lines(told, "node.approve")[-1]
    assert ", invited until " in invited
    assert by_hand == f"Alpha admits the node alpha-2 ({organization('machine').address})"


def test_data_is_json_and_hashes_are_the_entries(told: list[LedgerEvent]):
    lung = world(nodes=False)
    for event in told:
        json.dumps(event.data)
    assert [event.hash for event in events(lung.entries, lung.state)] == list(lung.state.hashes)


def test_successor_names_what_it_succeeds():
    lung = world(nodes=False)
    alpha = lung["Alpha"]
    entry = found(
        name="lung",
        founder_name="Alpha",
        governance_key=alpha.governance_key,
        organization_key=alpha.organization_key,
        now=NOW,
        random=randomness("successor"),
        predecessor=Predecessor(lung.genesis, lung.state.position),
    )
    [event] = events([entry], replay([entry]))
    assert f"as successor of {fingerprint(lung.genesis)} from its entry {lung.state.position.sequence} on" in event.text


@pytest.mark.parametrize(
    ("selection", "number"),
    [
        (Selection(), 7),
        (Selection(intent="node"), 3),
        (Selection(intent="node.approve"), 3),
        (Selection(intent="nod"), 0),
        (Selection(organization="alpha"), 4),
        (Selection(organization=organization("Beta").address), 2),
        (Selection(created_by="admin"), 4),
        (Selection(since=NOW), 7),
        (Selection(since=NOW + timedelta(seconds=1)), 0),
        (Selection(until=NOW), 0),
    ],
)
def test_what_is_selected(selection: Selection, number: int):
    lung = world()
    assert sum(map(selection.takes, events(lung.entries, lung.state))) == number


@pytest.mark.parametrize(
    "mistyped", [Selection(intent="organisation.vote"), Selection(intent="nod"), Selection(organization="Alpah")]
)
def test_mistyped_selection_is_an_error_and_not_an_empty_list(mistyped: Selection):
    state = world().state
    with pytest.raises(FolkmootError):
        mistyped.check(state)
    for wanted in (Selection(intent="node"), Selection(intent="node.revoke"), Selection(organization="aLPHA")):
        wanted.check(state)


def test_times_are_those_of_the_entries():
    lung = world()
    told = events(lung.entries, lung.state)
    assert isinstance(told[0].created_at, datetime)
    assert [event.sequence for event in told] == [LedgerEntry.FromString(e.body).sequence for e in lung.entries]
