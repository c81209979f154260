"""The voted list: an image is on it if the members approved a proposal that covers it, and that is in force still."""

from datetime import timedelta

import pytest

from folkmoot.trust import (
    algorithm_propose_entry,
    algorithm_revoke_entry,
    algorithm_vote_entry,
    digest,
    timestamp,
)
from folkmoot.v1.ledger_pb2 import AlgorithmPropose, Decision
from tests.builders import NOW, World, world

IMAGE = "registry.example.org/mean@sha256:" + "a" * 64
PATTERN = "registry.example.org/mean@sha256:*"


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"))


def propose(w: World, **proposal: object) -> bytes:
    wish = AlgorithmPropose(**{"image": PATTERN, **proposal})  # type: ignore[arg-type]
    key = w["Alpha"].governance_key
    return digest(w.append(algorithm_propose_entry(w.state, wish, governance_key=key, now=w.now)).body)


def vote(w: World, proposal: bytes, *voters: str, decision: Decision.ValueType = Decision.DECISION_APPROVE) -> None:
    for voter in voters:
        key = w[voter].governance_key
        w.append(algorithm_vote_entry(w.state, proposal, decision, governance_key=key, now=w.now))


def allowed(
    w: World, image: str = IMAGE, function: str | None = "mean", labels: tuple[str, ...] = ("patients",)
) -> bool:
    return w.state.allowed_algorithm(image, function, labels, w.now) is not None


def test_a_proposal_counts_once_the_members_have_approved_it(lung: World):
    proposal = propose(lung)
    assert not allowed(lung)
    vote(lung, proposal, "Alpha")
    assert not allowed(lung)
    vote(lung, proposal, "Beta")
    found = lung.state.allowed_algorithm(IMAGE, "mean", ["patients"], lung.now)
    assert found is not None
    assert found.hash == proposal


def test_what_was_declined_does_not_count(lung: World):
    proposal = propose(lung)
    vote(lung, proposal, "Alpha")
    vote(lung, proposal, "Beta", "Gamma", decision=Decision.DECISION_DECLINE)
    assert not allowed(lung)


@pytest.mark.parametrize(
    ("asked", "covered"),
    [
        ({}, True),
        ({"function": None}, True),
        ({"labels": ()}, True),
        ({"labels": ("patients", "staff")}, True),
        ({"labels": ("patients", "cars")}, False),
        ({"function": "sum"}, False),
        ({"image": "registry.example.org/mean2@sha256:aa"}, False),
        ({"image": "REGISTRY.example.org/mean@sha256:aa"}, False),
    ],
)
def test_a_proposal_covers_what_it_names_and_no_more(lung: World, asked: dict[str, object], covered: bool):
    vote(lung, propose(lung, functions=["mean"], labels=["patients", "staff"]), "Alpha", "Beta")
    assert allowed(lung, **asked) == covered  # type: ignore[arg-type]


def test_one_proposal_must_cover_everything(lung: World):
    for words in ({"functions": ["mean"], "labels": ["staff"]}, {"functions": ["sum"], "labels": ["patients"]}):
        vote(lung, propose(lung, **words), "Alpha", "Beta")
    assert not allowed(lung)


def test_what_was_withdrawn_or_has_expired_does_not_count(lung: World):
    expires_at = lung.now + timedelta(days=30)
    vote(lung, propose(lung, expires_at=timestamp(expires_at)), "Alpha", "Beta")
    assert lung.state.allowed_algorithm(IMAGE, "mean", (), expires_at - timedelta(microseconds=1))
    assert not lung.state.allowed_algorithm(IMAGE, "mean", (), expires_at)
    other = propose(lung)
    vote(lung, other, "Alpha", "Beta")
    assert lung.state.allowed_algorithm(IMAGE, "mean", (), expires_at)
    key = lung["Alpha"].governance_key
    lung.append(algorithm_revoke_entry(lung.state, other, governance_key=key, now=lung.now))
    assert not lung.state.allowed_algorithm(IMAGE, "mean", (), expires_at)
    assert lung.now == NOW
