"""What a laptop's organization key can't do: it signs root tasks, and speaks neither for a node nor for the organization among members."""

from collections.abc import Callable
from typing import Any

import pytest

from folkmoot.trust import (
    LedgerEntryInvalid,
    NodeNotApproved,
    SigningKey,
    TaskNotProven,
    make_head_statement,
    node_approve_entry,
    read_head,
    sign,
    sign_receipt,
    sign_subtask,
    sign_task,
    verify_receipt,
    verify_task,
    vote_entry,
)
from folkmoot.v1.ledger_pb2 import Decision
from folkmoot.v1.signed_pb2 import Signed, SignedKind
from folkmoot.v1.task_pb2 import Grant, TaskChain
from tests.builders import NOW, World, organization, randomness, world


@pytest.fixture
def lung() -> World:
    return world(("Alpha", "Beta", "Gamma"))


@pytest.fixture
def laptop(lung: World) -> SigningKey:
    """The task-signing key of Beta's organization key."""
    return lung["Beta"].organization_key.task_signing


def test_it_signs_tasks_of_its_organization(lung: World, laptop: SigningKey):
    signed = sign_task(lung.spec("Beta", ["Alpha"]), laptop)
    assert (
        verify_task(TaskChain(specs=[signed]), lung.state, now=NOW).root.initiator.organization_id
        == lung["Beta"].address
    )


def test_a_result_that_it_signs_is_no_nodes(lung: World, laptop: SigningKey):
    task = verify_task(TaskChain(specs=[lung.task("Alpha", ["Beta"])]), lung.state, now=NOW)
    run_id = task.spec.receivers[0].run_id
    own = lung.receipt(task, "Beta", node_id=laptop.fingerprint)
    with pytest.raises(NodeNotApproved):
        verify_receipt(sign_receipt(own, laptop), task=task, run_id=run_id, state=lung.state)
    in_the_nodes_name = lung.receipt(task, "Beta").SerializeToString(deterministic=True)
    signed = sign(SignedKind.SIGNED_KIND_RECEIPT, in_the_nodes_name, key=laptop, genesis=lung.genesis)
    with pytest.raises(TaskNotProven):
        verify_receipt(signed, task=task, run_id=run_id, state=lung.state)


def test_a_subtask_that_it_signs_is_no_nodes(lung: World, laptop: SigningKey):
    root = lung.task("Alpha", ["Beta"], grant=Grant(subtask_depth=1, subtask_number=1))
    spec = lung.subspec(root, "Beta", ["Gamma"])
    verify_task(TaskChain(specs=[root, sign_subtask(spec, lung["Beta"].nodes["beta-1"])]), lung.state, now=NOW)
    with pytest.raises(TaskNotProven) as refused:
        verify_task(TaskChain(specs=[root, sign_subtask(spec, laptop)]), lung.state, now=NOW)
    assert refused.value.metadata["rule"] == "SIGNATURE"


def test_it_is_no_sign_of_a_nodes_life(lung: World, laptop: SigningKey):
    said = make_head_statement(lung.state, node_key=laptop, organization_id=lung["Beta"].address, now=NOW)
    with pytest.raises(NodeNotApproved):
        read_head(said, lung.state, now=NOW)


def vote(lung: World, key: SigningKey) -> Signed:
    request = lung.join_request(organization("Friend"))
    return vote_entry(lung.state, request, Decision.DECISION_APPROVE, governance_key=key, now=lung.now)


def admission(lung: World, key: SigningKey) -> Signed:
    claim = lung.claim("Beta", "beta-2", SigningKey.generate(randomness("thief")))
    return node_approve_entry(lung.state, claim, key=key, organization_id=lung["Beta"].address, now=lung.now)


@pytest.mark.parametrize("make", [vote, admission])
def test_it_neither_votes_nor_admits_a_node(lung: World, laptop: SigningKey, make: Callable[[World, SigningKey], Any]):
    make(lung, lung["Beta"].governance_key)
    with pytest.raises(LedgerEntryInvalid):
        make(lung, laptop)
