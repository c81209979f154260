"""How long wrong passwords lock a name out."""

from datetime import UTC, datetime, timedelta

import pytest

from folkmoot.server.people.guesses import FAILURES_BEFORE_LOCK_OUT, LONGEST_LOCK_OUT, lock_out_end

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize("failures", range(FAILURES_BEFORE_LOCK_OUT))
def test_few_failures_lock_nobody_out(failures):
    assert lock_out_end(failures, NOW) is None


@pytest.mark.parametrize(("failures", "minutes"), [(5, 1), (6, 2), (7, 4), (8, 8), (9, 15), (10_000, 15)])
def test_each_further_failure_locks_out_longer_up_to_a_limit(failures, minutes):
    assert lock_out_end(failures, NOW) == NOW + timedelta(minutes=minutes)
    assert timedelta(minutes=minutes) <= LONGEST_LOCK_OUT
