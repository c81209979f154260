"""Why a run is not completed, in words."""

from datetime import timedelta
from typing import Any

import pytest

from folkmoot.client.results import Proof, RunState
from folkmoot.client.waiting import why
from folkmoot.trust import timestamp
from folkmoot.v1 import errors_pb2 as reasons
from folkmoot.v1.task_pb2 import ExitClass, Run, Waiting, WaitReason
from folkmoot.v1.task_pb2 import RunState as Told
from tests.builders import NOW

YESTERDAY = NOW - timedelta(days=1)
SAID = Proof.SERVER_SAYS


def run(state: Told.ValueType, **fields: Any) -> Run:
    return Run(state=state, created_at=timestamp(YESTERDAY), **fields)


def test_completed_run_needs_no_reason():
    assert why("Beta", run(Told.RUN_STATE_COMPLETED), now=NOW, proven=Proof.PROVEN) is None


def test_run_that_only_the_server_calls_completed_is_not():
    told = why("Beta", run(Told.RUN_STATE_COMPLETED), now=NOW, proven=SAID)
    assert told is not None
    assert (told.state, told.proven, "says the server" in told.text) == (RunState.COMPLETED, SAID, True)


@pytest.mark.parametrize("reason", [value for value in WaitReason.values() if value])
def test_every_wait_says_for_what_and_since_when(reason: WaitReason.ValueType):
    waiting = Waiting(reason=reason, since=timestamp(YESTERDAY), detail="beta-1")
    told = why("Beta", run(Told.RUN_STATE_PENDING, waiting=waiting), now=NOW, proven=SAID)
    assert told is not None
    assert (told.organization, told.state, told.since) == ("Beta", RunState.PENDING, YESTERDAY)
    assert told.reason == WaitReason.Name(reason).removeprefix("WAIT_REASON_")
    assert "beta-1" in told.text
    assert f"since {YESTERDAY.astimezone():%Y-%m-%d}" in str(told)


def test_node_offline_says_so():
    waiting = Waiting(reason=WaitReason.WAIT_REASON_NODE_OFFLINE, since=timestamp(NOW))
    told = why("Beta", run(Told.RUN_STATE_PENDING, waiting=waiting), now=NOW, proven=SAID)
    assert str(told) == f"Beta: no node of it is connected, since {NOW.astimezone():%H:%M:%S}"


def test_run_under_way_says_how_far():
    told = why("Beta", run(Told.RUN_STATE_RUNNING, fraction=0.25, started_at=timestamp(NOW)), now=NOW, proven=SAID)
    assert told is not None
    assert (told.reason, told.since) == ("", NOW)
    assert "25%" in told.text


def test_ended_run_says_how():
    refused = run(Told.RUN_STATE_REFUSED, reason=reasons.ERROR_REASON_IMAGE_NOT_ALLOWED, rule="images")
    crashed = run(Told.RUN_STATE_CRASHED, exit_class=ExitClass.EXIT_CLASS_OUT_OF_MEMORY, ended_at=timestamp(NOW))
    assert str(why("Beta", refused, now=NOW, proven=SAID)) == "Beta: refused (IMAGE_NOT_ALLOWED, rule: images)"
    assert str(why("Beta", crashed, now=NOW, proven=SAID)) == "Beta: crashed (OUT_OF_MEMORY)"
