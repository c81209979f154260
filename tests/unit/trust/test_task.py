"""Signed tasks and receipts beyond single rules: what a reader gets, and what is refused before it is signed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.trust import (
    Malformed,
    TaskAheadOfLedger,
    TaskExpired,
    TaskNotProven,
    digest,
    sign_receipt,
    sign_subtask,
    sign_task,
    verify_receipt,
    verify_task,
)
from folkmoot.v1.task_pb2 import Grant, RunState, TaskChain, TaskInputRef
from tests.builders import DAY, NOW, organization
from tests.vectors.forge import base, changed
from tests.vectors.task_breaches import root, spec_of, sub


def chain(*specs):
    return TaskChain(specs=specs)


def test_verified_task_tells_its_whole_origin():
    w = base()
    above = root(w)
    below = sub(w, above, grant=Grant(subtask_depth=1, subtask_number=1))
    last = sub(w, below, run_of="Beta")
    task = verify_task(chain(above, below, last), w.state, now=NOW)
    assert task.initiators == (w["Alpha"].address, w["Beta"].address)
    assert (task.root, task.spec) == (spec_of(above), spec_of(last))
    assert task.chain_digests == tuple(digest(each.body) for each in (above, below, last))
    assert task.digest == digest(last.body)
    assert task.signer == w["Beta"].nodes["beta-1"].public


def test_runs_and_inputs_are_found():
    w = base()
    inputs = [
        TaskInputRef(organization_ids=[w[name].address], envelope_digest=w.random(32), size_bytes=1)
        for name in ("Alpha", "Beta")
    ]
    task = verify_task(chain(root(w, inputs=inputs)), w.state, now=NOW)
    for receiver, expected in zip(task.spec.receivers, inputs, strict=True):
        assert task.receiver(receiver.run_id) == receiver
        assert task.input(receiver.organization_id) == expected


def test_runs_and_inputs_of_others_are_not_found():
    w = base()
    task = verify_task(chain(root(w)), w.state, now=NOW)
    with pytest.raises(TaskNotProven, match="has no run"):
        task.receiver("00000000-0000-0000-0000-000000000000")
    with pytest.raises(TaskNotProven, match="is not for the organization"):
        task.input(w["Gamma"].address)


def test_task_made_on_a_newer_ledger_is_proven_after_a_refresh():
    w = base()
    behind = w.state
    w.add_node("Gamma", "gamma-2")
    task = chain(root(w))
    with pytest.raises(TaskAheadOfLedger) as put_off:
        verify_task(task, behind, now=NOW)
    assert put_off.value.metadata == {"sequence": "7"}
    assert verify_task(task, w.state, now=NOW).spec == spec_of(task.specs[0])


def test_new_members_first_task_reaches_a_replica_that_does_not_know_it():
    """Being ahead is told before anything else: without the entry nobody can know whose signature it is."""
    w = base()
    behind, delta = w.state, organization("Delta")
    w.join(delta)
    with pytest.raises(TaskAheadOfLedger):
        verify_task(chain(w.task("Delta", ("Alpha",))), behind, now=NOW)


def test_every_level_is_checked_again_below():
    """A fault anywhere above spoils what is below it, and is told with its level."""
    w = base()
    above = root(w, w["Beta"].organization_key.task_signing)
    with pytest.raises(TaskNotProven) as refused:
        verify_task(chain(above, sub(w, above)), w.state, now=NOW)
    assert refused.value.metadata == {"rule": "SIGNATURE", "level": "0"}


def test_expired_task_is_still_readable():
    w = base()
    task = chain(root(w))
    with pytest.raises(TaskExpired, match="2026-11-21T12:00:00"):
        verify_task(task, w.state, now=NOW + DAY)
    assert verify_task(task, w.state, now=None).spec == spec_of(task.specs[0])


def test_wrong_task_is_not_reported_as_expired():
    """Otherwise whoever alters a task could pass it off as merely late."""
    w = base()
    with pytest.raises(TaskNotProven):
        verify_task(chain(root(w, w["Beta"].governance_key)), w.state, now=NOW + DAY)


@given(st.lists(st.integers(min_value=0, max_value=4), min_size=1, max_size=5))
def test_depth_always_shrinks(depths):
    w = base()
    specs = [root(w, grant=Grant(subtask_depth=depths[0], subtask_number=1))]
    for depth in depths[1:]:
        specs.append(sub(w, specs[-1], grant=Grant(subtask_depth=depth, subtask_number=1)))
    shrinks = all(below < above for above, below in pairwise(depths))
    if shrinks:
        assert len(verify_task(chain(*specs), w.state, now=NOW).chain) == len(depths)
    else:
        with pytest.raises(TaskNotProven, match="depth"):
            verify_task(chain(*specs), w.state, now=NOW)


def test_task_that_nobody_would_take_is_not_signed():
    w = base()
    with pytest.raises(Malformed, match="at least one organization receives the task") as refused:
        sign_task(w.spec("Alpha", ()), w["Alpha"].organization_key.task_signing)
    assert refused.value.metadata == {"rule": "RECEIVERS"}
    with pytest.raises(Malformed, match="may be tried at least once"):
        sign_subtask(w.subspec(root(w), "Beta", max_attempts=0), w["Beta"].nodes["beta-1"])
    with pytest.raises(Malformed, match="entry of the ledger"):
        sign_task(w.spec("Alpha", ledger_position=None), w["Alpha"].organization_key.task_signing)


# ---- receipts -------------------------------------------------------------------------------------------------------


def receipt_of(w):
    task = verify_task(chain(root(w)), w.state, now=NOW)
    return task, w.receipt(task, "Beta")


def test_receipt_of_a_node_is_proof():
    w = base()
    task, receipt = receipt_of(w)
    signed = sign_receipt(receipt, w["Beta"].nodes["beta-1"])
    assert verify_receipt(signed, task=task, run_id=receipt.run_id, state=w.state) == receipt


def test_receipt_of_another_run_of_the_task():
    w = base()
    task, receipt = receipt_of(w)
    signed = sign_receipt(receipt, w["Beta"].nodes["beta-1"])
    other = next(each.run_id for each in task.spec.receivers if each.run_id != receipt.run_id)
    with pytest.raises(TaskNotProven, match="for a run of this task"):
        verify_receipt(signed, task=task, run_id=other, state=w.state)


def test_receipt_of_any_node_of_the_organization_counts():
    w = base()
    second = w.add_node("Beta", "beta-2")
    task, receipt = receipt_of(w)
    signed = sign_receipt(changed(receipt, node_id=second.fingerprint), second)
    assert verify_receipt(signed, task=task, run_id=receipt.run_id, state=w.state).node_id == second.fingerprint


def test_receipt_that_contradicts_itself_is_not_signed():
    w = base()
    _, receipt = receipt_of(w)
    with pytest.raises(Malformed) as refused:
        sign_receipt(changed(receipt, outcome=RunState.RUN_STATE_RUNNING), w["Beta"].nodes["beta-1"])
    assert refused.value.metadata == {"rule": "OUTCOME"}


def test_receipt_in_another_nodes_name_is_not_signed():
    w = base()
    _, receipt = receipt_of(w)
    with pytest.raises(Malformed, match="a node of the run"):
        sign_receipt(receipt, w["Gamma"].nodes["gamma-1"])
