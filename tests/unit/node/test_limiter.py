"""How calls of an algorithm are slowed down and counted."""

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.node.proxy.limiter import CALL_LIMITS, CallLimit, Limiter
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import proxy_service_pb2
from folkmoot.v1.errors_pb2 import ErrorReason

LIMITS = {"Call": CallLimit(per_second=10, burst=3, at_once=2)}


class Clock:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def wait_of(limiter: Limiter) -> float:
    with limiter.call("Call") as seconds:
        return seconds


def test_every_call_of_the_contract_has_its_limit():
    service = proxy_service_pb2.DESCRIPTOR.services_by_name["ProxyService"]
    assert CALL_LIMITS.keys() == {method.name for method in service.methods}


def test_burst_goes_through_and_then_each_call_waits_its_turn():
    limiter = Limiter(Clock(), LIMITS)
    assert [wait_of(limiter) for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])


def test_pause_gives_the_burst_back_and_no_more():
    clock = Clock()
    limiter = Limiter(clock, LIMITS)
    for _ in range(3):
        wait_of(limiter)
    clock.seconds += 1000
    assert [wait_of(limiter) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_one_open_call_too_many_is_refused_and_costs_no_turn():
    limiter = Limiter(Clock(), LIMITS)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(limiter.call("Call"))
        with pytest.raises(FolkmootError) as refused:
            wait_of(limiter)
        assert refused.value.reason == ErrorReason.ERROR_REASON_TOO_MANY
    assert wait_of(limiter) == 0


def test_call_that_raises_is_closed():
    limiter = Limiter(Clock(), LIMITS)
    for _ in range(5):
        with pytest.raises(KeyError), limiter.call("Call"):
            raise KeyError
    assert limiter._open == {"Call": 0}


@given(pauses=st.lists(st.floats(0, 1), max_size=50))
def test_no_more_calls_begin_than_rate_and_burst_allow(pauses):
    clock = Clock()
    limiter = Limiter(clock, LIMITS)
    begun = []
    for pause in pauses:
        clock.seconds += pause
        begun.append(clock.seconds - 100 + wait_of(limiter))
    for number, seconds in enumerate(begun):
        assert number + 1 <= 3 + 10 * seconds + 1e-6
