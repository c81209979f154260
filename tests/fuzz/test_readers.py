"""Whatever bytes come from outside are taken, or refused in the product's own words; two readers agree which.

Here some altered inputs for every target, always the same ones. `make nightly` has thousands, others each time, and lets atheris
look for more where it reaches new code, for FOLKMOOT_FUZZ_SECONDS (120).
"""

import os
import subprocess
import sys
from random import Random
from secrets import randbelow

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import join, mutate, split
from tests.fuzz.targets import TARGETS, Target

every_target = pytest.mark.parametrize("each", TARGETS.values(), ids=TARGETS)


@every_target
def test_what_is_altered_below_is_right_before(each: Target):
    assert each.seeds
    assert all(map(each.takes, each.seeds))
    assert each.second is None or all(map(each.second_takes, each.seeds))


@every_target
@given(number=st.integers(0, 2**64 - 1))
@settings(max_examples=60, derandomize=True, database=None, deadline=None)
def test_altered_bytes_are_read_or_clearly_refused_and_both_readers_agree(each: Target, number: int):
    check(each, number)


@pytest.mark.nightly
@pytest.mark.timeout(600)
@every_target
@given(number=st.integers(0, 2**64 - 1))
@settings(max_examples=3000, database=None, deadline=None)
def test_many_altered_bytes_are_read_or_clearly_refused_and_both_readers_agree(each: Target, number: int):
    check(each, number)


def check(each: Target, number: int) -> None:
    """Alter a seed and have it read."""
    random = Random(number)
    data = mutate(random.choice(each.seeds), random)
    taken = each.takes(data)
    if each.second:
        assert each.second_takes(data) == taken, f"the readers disagree on {data.hex()}"


@every_target
def test_a_message_taken_apart_and_put_together_is_the_same(each: Target):
    for seed in each.seeds:
        fields = split(seed)
        assert not fields or join(fields) == seed


@pytest.mark.nightly
@pytest.mark.timeout(100_000)
def test_nothing_is_found_by_following_coverage(tmp_path):
    pytest.importorskip("atheris")
    duration_seconds, seed = os.environ.get("FOLKMOOT_FUZZ_SECONDS", "120"), str(randbelow(2**31))
    command = [sys.executable, "-m", "tests.fuzz.coverage_guided", tmp_path, duration_seconds, seed]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    faults = {path.name: path.read_bytes().hex() for path in tmp_path.glob("*-*")}
    assert (ended.returncode, faults) == (0, {}), ended.stderr[-5000:]
