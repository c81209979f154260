"""What one caller may do: buckets of tokens, and streams that are open at once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.server import limits
from folkmoot.server.context import ANYONE, Caller
from folkmoot.server.limits import Rates, Streams
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import options_pb2 as options


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def refused(rates: Rates, whose: str) -> str | None:
    """Return how long the caller is to wait, None if he is served."""
    try:
        rates.take(whose)
    except FolkmootError as error:
        return error.metadata["retry_after_seconds"]
    return None


def test_burst_is_served_and_then_the_rate():
    time = Time()
    rates = Rates(10, 20, time)
    assert [refused(rates, "ada") for _ in range(20)] == [None] * 20
    assert refused(rates, "ada") == "1"
    time.now += 0.5
    assert [refused(rates, "ada") for _ in range(6)] == [None] * 5 + ["1"]


def test_wait_is_as_long_as_it_takes_for_the_next_call():
    time = Time()
    rates = Rates(0.25, 1, time)
    assert [refused(rates, "ada"), refused(rates, "ada")] == [None, "4"]
    time.now += 4
    assert refused(rates, "ada") is None


def test_one_caller_takes_nothing_from_another():
    rates = Rates(1, 3, Time())
    while refused(rates, "flood") is None:
        pass
    assert [refused(rates, "ada") for _ in range(3)] == [None] * 3


def test_without_a_rate_nothing_is_refused():
    rates = Rates(0, 1, Time())
    assert {refused(rates, "ada") for _ in range(100)} == {None}


def test_buckets_are_forgotten_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(limits, "BUCKETS_REMEMBERED", 3)
    rates = Rates(1, 1, Time())
    for number in range(10):
        rates.take(f"192.0.2.{number}")
    assert len(rates._buckets) == 3


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=60))
def test_never_more_than_burst_and_rate_allow(pauses):
    time = Time()
    rates, began, served = Rates(5, 7, time), time.now, 0
    for pause in pauses:
        time.now += pause
        served += refused(rates, "ada") is None
        assert served <= 7 + 5 * (time.now - began) + 1e-6


def test_streams_are_bounded_by_caller_and_given_back():
    streams = Streams(2)
    ends = [streams.begin("ada"), streams.begin("ada")]
    with pytest.raises(FolkmootError, match="2 streams"):
        streams.begin("ada")
    streams.begin("grace")
    ends.pop()()
    ends.append(streams.begin("ada"))
    for end in ends:
        end()
    assert dict(streams._open) == {"grace": 1}


def test_callers_are_counted_by_who_they_are_and_strangers_by_where_they_are():
    ada = Caller(options.CALLER_USER, user_id="0190-ada")
    node = Caller(options.CALLER_NODE, node_id="node-1")
    origins = ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8:1:2::1", "2001:db8:1:2::2"]
    assert {limits.whose(ada, origin) for origin in origins} == {"0190-ada"}
    assert limits.whose(node, origins[0]) == "node-1"
    assert [limits.whose(ANYONE, origin) for origin in origins] == ["192.0.2.7"] * 2 + ["2001:db8:1:2::/64"] * 2
