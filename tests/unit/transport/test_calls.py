"""Waiting between attempts: as long as the other side says, if that is seconds; never for what waiting does not help."""

import grpc
import pytest

from folkmoot.transport import timeouts
from folkmoot.transport.calls import pause_before
from folkmoot.transport.status import RemoteError
from folkmoot.v1 import errors_pb2


def refusal(reason: int, code: grpc.StatusCode, seconds: float | None) -> RemoteError:
    error = RemoteError(reason, "")
    error.code, error.retry_after_seconds = code, seconds
    return error


@pytest.mark.parametrize("seconds", [0.0, 0.2, timeouts.RECONNECT_SECONDS])
def test_busy_server_is_given_the_time_that_it_asks_for(seconds: float):
    busy = refusal(errors_pb2.ERROR_REASON_RATE_LIMITED, grpc.StatusCode.RESOURCE_EXHAUSTED, seconds)
    assert pause_before(1, busy) == seconds


@pytest.mark.parametrize("seconds", [None, timeouts.RECONNECT_SECONDS + 1, 80 * 86400.0])
def test_nobody_waits_unasked_for_what_takes_long(seconds: float | None):
    too_many = refusal(errors_pb2.ERROR_REASON_TOO_MANY, grpc.StatusCode.RESOURCE_EXHAUSTED, seconds)
    assert pause_before(1, too_many) is None


def test_wrong_password_is_not_tried_again():
    locked = refusal(errors_pb2.ERROR_REASON_LOCKED_OUT, grpc.StatusCode.RESOURCE_EXHAUSTED, 1.0)
    assert pause_before(1, locked) is None


def test_server_that_is_away_is_looked_for_again():
    away = refusal(errors_pb2.ERROR_REASON_SHUTTING_DOWN, grpc.StatusCode.UNAVAILABLE, None)
    assert 0 < (pause_before(1, away) or 0) <= timeouts.RECONNECT_SECONDS
