"""The run's state machine: whatever comes, in whatever order, an end is an end."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server.tasks import states
from folkmoot.server.tasks.states import Cancel, Commit, Run, Station, Verdict
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import RunState, TaskState, Waiting, WaitReason

NODE, OTHER_NODE = 1, 2
NOW = datetime(2026, 7, 1, tzinfo=UTC)
ALL_STATES = [RunState.ValueType(value) for value in RunState.values() if value]
FRESH = Run(run_id="run", task_id="task", state=states.PENDING, link_id=NODE)


def held(state: RunState.ValueType = RunState.RUN_STATE_RUNNING, **changes) -> Run:
    return replace(FRESH, state=state, **changes)


# ---- anything, in any order ----------------------------------------------------------------------------------------

nodes = st.sampled_from([NODE, OTHER_NODE])
attempts = st.integers(1, 2)
events = st.one_of(
    st.tuples(st.just("acknowledge"), nodes),
    st.tuples(st.just("report"), nodes, attempts, st.sampled_from(ALL_STATES)),
    st.tuples(st.just("commit"), nodes, attempts, st.sampled_from(sorted(states.NODE_OUTCOMES)), st.binary(max_size=1)),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("expire")),
)


def step(run: Run, event: tuple) -> Run:
    """Carry out what the decisions allow, as the store does."""
    match event:
        case ("acknowledge", node):
            return replace(run, state=states.ASSIGNED) if states.accepts(run, node, run.attempt) else run
        case ("report", node, attempt, state):
            return replace(run, state=state) if states.reports(run, link_id=node, attempt=attempt, state=state) else run
        case ("commit", node, attempt, outcome, receipt):
            try:
                decided = states.commit(run, link_id=node, attempt=attempt, receipt=receipt)
            except FolkmootError:
                return run
            return replace(run, state=outcome, receipt=receipt) if decided is Commit.ENDS else run
        case ("cancel",):
            match states.cancel(run):
                case Cancel.ENDS:
                    return replace(run, state=states.CANCELLED)
                case Cancel.ASKS_NODE:
                    return replace(run, cancelling=True)
                case _:
                    return run
        case ("expire",):
            return replace(run, state=states.EXPIRED) if run.state == states.PENDING else run
    raise AssertionError(event)


@given(st.lists(events, max_size=30))
def test_a_terminal_state_never_changes(history: list[tuple]) -> None:
    run = FRESH
    for event in history:
        after = step(run, event)
        if run.ended:
            assert after == run
        run = after


@given(st.lists(events, max_size=30))
def test_an_accepted_run_ends_only_by_a_receipt_of_its_node(history: list[tuple]) -> None:
    run = FRESH
    for event in history:
        after = step(run, event)
        if run.state in states.OF_A_NODE and after.ended:
            assert event[:3] == ("commit", NODE, 1)
        if run.state in states.OF_A_NODE:
            assert after.state != states.PENDING
        run = after


@given(st.lists(events, max_size=30))
def test_another_node_changes_nothing(history: list[tuple]) -> None:
    run = FRESH
    for event in history:
        foreign = event[1:2] == (OTHER_NODE,)
        after = step(run, event)
        assert not foreign or after == run
        run = after


# ---- receipts ------------------------------------------------------------------------------------------------------


def test_the_same_receipt_again_is_a_repetition() -> None:
    done = held(states.COMPLETED, receipt=b"receipt")
    assert states.commit(done, link_id=NODE, attempt=1, receipt=b"receipt") is Commit.REPEATED


@pytest.mark.parametrize(
    ("run", "link_id", "attempt"),
    [
        (held(states.COMPLETED, receipt=b"first"), NODE, 1),
        (held(states.CANCELLED), NODE, 1),
        (held(states.EXPIRED), NODE, 1),
        (held(), OTHER_NODE, 1),
        (held(), NODE, 2),
        (replace(FRESH, link_id=None), NODE, 1),
    ],
    ids=["another receipt", "cancelled", "expired", "another node", "another attempt", "placed nowhere"],
)
def test_a_receipt_that_is_too_late_or_foreign_is_a_conflict(run: Run, link_id: int, attempt: int) -> None:
    with pytest.raises(FolkmootError) as refused:
        states.commit(run, link_id=link_id, attempt=attempt, receipt=b"second")
    assert refused.value.reason == ErrorReason.ERROR_REASON_RUN_CONFLICT


def test_a_commit_may_overtake_the_acknowledgement() -> None:
    assert states.commit(FRESH, link_id=NODE, attempt=1, receipt=b"receipt") is Commit.ENDS


# ---- cancelling ----------------------------------------------------------------------------------------------------


def test_cancelling_ends_at_once_what_no_node_has() -> None:
    assert states.cancel(FRESH) is Cancel.ENDS


@pytest.mark.parametrize("state", sorted(states.OF_A_NODE))
def test_cancelling_asks_the_node_for_what_it_holds(state: RunState.ValueType) -> None:
    assert states.cancel(held(state)) is Cancel.ASKS_NODE
    assert states.cancel(held(state, cancelling=True)) is Cancel.NOTHING


def test_a_result_may_win_over_a_cancellation() -> None:
    assert states.commit(held(cancelling=True), link_id=NODE, attempt=1, receipt=b"receipt") is Commit.ENDS


# ---- derived states ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of_runs", "expected"),
    [
        (["PENDING", "PENDING"], "PENDING"),
        (["PENDING", "ASSIGNED"], "RUNNING"),
        (["PENDING", "COMPLETED"], "RUNNING"),
        (["FAILED", "RUNNING"], "RUNNING"),
        (["COMPLETED", "COMPLETED"], "COMPLETED"),
        (["COMPLETED", "FAILED"], "FAILED"),
        (["REFUSED", "EXPIRED"], "FAILED"),
        (["COMPLETED", "CANCELLED", "CRASHED"], "CANCELLED"),
    ],
)
def test_a_tasks_state_follows_from_its_runs(of_runs: list[str], expected: str) -> None:
    given_states = [RunState.Value(f"RUN_STATE_{state}") for state in of_runs]
    assert states.task_state(given_states) == TaskState.Value(f"TASK_STATE_{expected}")


@pytest.mark.parametrize(
    ("of_runs", "expected"),
    [
        ([], Verdict.START),
        (["COMPLETED", "COMPLETED"], Verdict.START),
        (["COMPLETED", "RUNNING"], Verdict.WAIT),
        (["RUNNING", "CRASHED"], Verdict.FAIL),
        (["COMPLETED", "EXPIRED"], Verdict.FAIL),
    ],
)
def test_what_dependencies_mean(of_runs: list[str], expected: Verdict) -> None:
    assert states.verdict(RunState.Value(f"RUN_STATE_{state}") for state in of_runs) is expected


# ---- why ---------------------------------------------------------------------------------------------------------

HERE = Station(admitted=True, away_since=None)
AWAY = Station(admitted=True, away_since=NOW - timedelta(hours=1))
NOWHERE = Station(admitted=False, away_since=None)
SLOT = Waiting(reason=WaitReason.WAIT_REASON_SLOT)


@pytest.mark.parametrize(
    ("state", "blocked", "station", "reason", "since"),
    [
        ("PENDING", True, AWAY, "DEPENDENCY", NOW),
        ("PENDING", False, NOWHERE, "NO_NODE", NOW),
        ("PENDING", False, AWAY, "NODE_OFFLINE", NOW - timedelta(hours=1)),
        ("PENDING", False, HERE, "ACCEPTANCE", NOW),
        ("RUNNING", False, AWAY, "NODE_OFFLINE", NOW - timedelta(hours=1)),
    ],
)
def test_waiting_says_for_what_and_since_when(state, blocked, station, reason, since) -> None:
    told = states.waiting(
        RunState.Value(f"RUN_STATE_{state}"), blocked=blocked, created_at=NOW, station=station, reported=SLOT
    )
    assert told is not None
    assert WaitReason.Name(told.reason) == f"WAIT_REASON_{reason}"
    assert told.since.ToDatetime(tzinfo=UTC) == since


def test_what_the_node_says_it_waits_for_is_passed_on() -> None:
    arguments: dict[str, Any] = {"blocked": False, "created_at": NOW, "reported": SLOT}
    assert states.waiting(RunState.RUN_STATE_PREPARING, station=HERE, **arguments) == SLOT
    assert states.waiting(RunState.RUN_STATE_COMPLETED, station=AWAY, **arguments) is None


@given(state=st.sampled_from(sorted(RunState.values())), attempt=st.integers(1, 4), allowed=st.integers(1, 4))
def test_another_attempt_is_begun_only_of_open_runs_and_as_often_as_is_signed(
    state: int, attempt: int, allowed: int
) -> None:
    run = states.Run("run", "task", RunState.ValueType(state), attempt, 1, attempts_allowed=allowed)
    for only_unstarted in (False, True):
        if states.may_be_tried_again(run, only_unstarted=only_unstarted):
            assert attempt < allowed
            assert not run.ended
            assert not (only_unstarted and state >= RunState.RUN_STATE_RUNNING)
        assert not states.may_be_tried_again(replace(run, cancelling=True), only_unstarted=only_unstarted)
