"""A question whether a task would be accepted is proven like the task, and nobody can ever execute it."""

from datetime import timedelta

import pytest

from folkmoot.trust import (
    Malformed,
    TaskExpired,
    TaskNotProven,
    sign_check,
    sign_task,
    timestamp,
    verify_check,
    verify_task,
)
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_pb2 import Grant, TaskChain
from tests.builders import NOW, SECOND, World, world

LATE = timedelta(minutes=5) + SECOND


@pytest.fixture(scope="module")
def lung() -> World:
    return world()


def question(lung: World, **changes: object) -> Signed:
    spec = lung.spec("Alpha", ("Beta", "Gamma"), **{"expires_at": timestamp(NOW), **changes})
    return sign_check(spec, lung["Alpha"].organization_key.task_signing)


def chain(*specs: Signed) -> TaskChain:
    return TaskChain(specs=specs)


def test_question_is_proven(lung):
    asked = chain(question(lung))
    task = verify_check(asked, lung.state, now=NOW + SECOND)
    assert task.initiators == (lung["Alpha"].address,)


def test_question_is_never_a_task(lung):
    for now in (NOW, NOW - SECOND, None):
        with pytest.raises(TaskNotProven) as refused:
            verify_task(chain(question(lung)), lung.state, now=now)
        assert refused.value.metadata["rule"] == "TERM"


def test_task_is_no_question(lung):
    with pytest.raises(TaskNotProven, match="expires at the moment when it is made"):
        verify_check(chain(lung.task("Alpha")), lung.state, now=NOW)


def test_neither_can_be_signed_as_the_other(lung):
    key = lung["Alpha"].organization_key.task_signing
    with pytest.raises(Malformed):
        sign_task(lung.spec("Alpha", expires_at=timestamp(NOW)), key)
    with pytest.raises(Malformed):
        sign_check(lung.spec("Alpha"), key)


def test_old_question_is_not_answered(lung):
    asked = chain(question(lung))
    with pytest.raises(TaskExpired):
        verify_check(asked, lung.state, now=NOW + LATE)


def test_question_from_tomorrow_is_refused(lung):
    asked = chain(question(lung))
    with pytest.raises(TaskNotProven) as refused:
        verify_check(asked, lung.state, now=NOW - LATE)
    assert refused.value.metadata["rule"] == "TIME_AHEAD"


def test_question_in_another_ones_name_is_refused(lung):
    spec = lung.spec("Alpha", expires_at=timestamp(NOW))
    asked = chain(sign_check(spec, lung["Beta"].organization_key.task_signing))
    with pytest.raises(TaskNotProven) as refused:
        verify_check(asked, lung.state, now=NOW)
    assert refused.value.metadata["rule"] == "SIGNATURE"


def test_who_was_voted_out_asks_nothing_more(lung):
    shrunk = world()
    asked = chain(question(shrunk))
    shrunk.leave("Alpha")
    with pytest.raises(TaskNotProven):
        verify_check(asked, shrunk.state, now=NOW)


def test_node_asks_about_a_subtask_of_its_run(lung):
    above = lung.task("Alpha", ("Beta",), grant=Grant(subtask_depth=1, subtask_number=2))
    spec = lung.subspec(above, "Beta", ("Gamma",), expires_at=timestamp(NOW))
    asked = sign_check(spec, lung["Beta"].nodes["beta-1"])
    assert verify_check(chain(above, asked), lung.state, now=NOW).spec.parent.task_id
    with pytest.raises(TaskNotProven):  # Only the last one of a chain asks; what is above it must be a task.
        verify_check(chain(question(lung), asked), lung.state, now=NOW)
