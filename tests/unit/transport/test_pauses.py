"""How long to wait before a call is made again: as long as the other side says, longer and longer while it says nothing."""

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from folkmoot.transport import timeouts
from folkmoot.transport.calls import pause_after, pause_seconds, retrying
from folkmoot.transport.status import RemoteError, rich_status
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import errors_pb2


def refusal(reason: str, retry_after_seconds: float | None = None) -> AioRpcError:
    """Return a refusal as it comes over the wire."""
    error = FolkmootError(errors_pb2.ErrorReason.Value(f"ERROR_REASON_{reason}"), "no")
    status = rich_status(error, retry_after_seconds=retry_after_seconds)
    code = next(each for each in grpc.StatusCode if each.value[0] == status.code)
    details = Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return AioRpcError(code, Metadata(), details, status.message)


def test_busy_server_says_how_long():
    assert pause_after(7, refusal("RATE_LIMITED", 3)) == 3


def test_server_that_says_nothing_is_asked_less_and_less():
    away = AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "gone")
    assert pause_after(1, away) < pause_after(20, away) <= timeouts.RECONNECT_SECONDS
    assert 0 < pause_after(1, TimeoutError()) < 1


@pytest.mark.parametrize("attempt", [1, 3, 20])
def test_a_thousand_that_lost_the_server_in_one_instant_do_not_come_back_in_one(attempt):
    pauses = sorted(pause_seconds(attempt) for _ in range(1000))
    longest = pauses[-1]
    crowded = max(sum(begin <= pause < begin + longest / 10 for pause in pauses) for begin in pauses)
    assert crowded < 300  # of any tenth of the time, where an even spread over half of it is 200
    assert pauses[0] > longest / 3  # and nobody hammers


@pytest.mark.parametrize("error", [refusal("TOO_MANY"), refusal("NOT_ALLOWED"), refusal("LOCKED_OUT", 3)])
def test_what_does_not_pass_by_itself_is_raised(error):
    with pytest.raises(RemoteError):
        pause_after(1, error)


async def test_call_is_made_again_when_the_time_has_come(monkeypatch):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)

    monkeypatch.setattr("folkmoot.transport.calls.asyncio.sleep", sleep)
    answers = [refusal("RATE_LIMITED", 2), refusal("RATE_LIMITED", 1), "done"]

    async def call():
        answer = answers.pop(0)
        if isinstance(answer, AioRpcError):
            raise answer
        return answer

    assert await retrying(call) == "done"
    assert waited == [2, 1]
