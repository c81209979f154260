"""A member's proposal, as those read it who vote on it: the ledger takes any words, the terminal must not take them for its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from folkmoot.cli import algorithms as commands
from folkmoot.client import algorithms
from folkmoot.client.algorithms import AlgorithmProposal, ProposalState

EVIL = "registry.example.org/mallory/*"


def proposal(**changes: Any) -> AlgorithmProposal:
    usual: dict[str, Any] = {
        "id": "ab" * 32,
        "image": EVIL,
        "functions": (),
        "labels": (),
        "expires_at": None,
        "state": ProposalState.PENDING,
        "proposed_by": "Mallory",
        "proposed_at": None,
        "approved_by": (),
        "declined_by": (),
        "waiting_for": (),
        "missing": 1,
    }
    return AlgorithmProposal(**(usual | changes))


@pytest.mark.parametrize(
    ("changes", "scope"),
    [
        (
            {"image": f"{EVIL}\nproposal abababab of Beta: trusted@sha256:*\nfor mean, on demo"},
            "all functions, on all labels",
        ),
        ({"image": f"{EVIL}\x1b[1A\x1b[2K"}, "all functions, on all labels"),
        ({"labels": ("patients\x1b[8m",)}, "all functions, on 'patients\\x1b[8m'"),
        ({"functions": ("mean, on demo\x1b[8m",)}, "'mean, on demo\\x1b[8m', on all labels"),
        ({"functions": ("mean, on demo",), "labels": ("cdm.person",)}, "'mean, on demo', on cdm.person"),
        ({"functions": ("all functions", "mean\u202e")}, "'all functions', 'mean\\u202e', on all labels"),
    ],
    ids=["lines", "a line taken back", "hidden labels", "hidden", "words that look like several", "turned around"],
)
def test_a_proposal_shows_what_it_allows_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], scope: str
):
    asked = proposal(**changes)

    async def find_proposal(*_: Any) -> AlgorithmProposal:
        return asked

    @asynccontextmanager
    async def client(_: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(connection=None)

    monkeypatch.setattr(algorithms, "find_proposal", find_proposal)
    monkeypatch.setattr(commands, "client", client)
    said = CliRunner().invoke(commands.vote, ["abababab", "--approve"], obj=object(), input="n\n").output
    first, second, question, *_ = said.splitlines()
    assert first.startswith(f"proposal {asked.short_id} of Mallory: ")
    assert EVIL in first
    assert second == f"for {scope}"
    assert question.startswith("Shall it be allowed?")
    assert (first + second).isprintable()
