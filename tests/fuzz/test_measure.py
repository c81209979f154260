"""Inputs without measure cost no more than their length: time grows with it, and memory stays within bounds.

Times are compared with each other, never with a clock on the wall: four times the input may take eight times as long, where
something quadratic takes sixteen.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fuzz.absurd import absurd
from tests.fuzz.targets import TARGETS, Target

GROWTH, MOST = 4, 8
SHORTEST_SECONDS = 0.003
"""Below this, a measurement tells of the clock and the caches alone."""


def seconds(take: Callable[[Any], object], data: object) -> float:
    """Return what it costs, without the collector's rounds: those go over everything that earlier tests have left."""
    gc.disable()
    try:
        began = time.thread_time()
        take(data)
        return time.thread_time() - began
    finally:
        gc.enable()


def grows_too_fast(each: Target, small: bytes, large: bytes) -> bool:
    """Tell whether the larger input takes too long, beyond doubt: in three measurements of three."""
    for _ in range(3):
        taken = seconds(each.takes, large)
        if taken < SHORTEST_SECONDS or taken < MOST * seconds(each.takes, small):
            return False
    return True


def measure(each: Target, size_bytes: int) -> None:
    for seed in each.seeds[:1]:
        pairs = zip(absurd(seed, size_bytes), absurd(seed, GROWTH * size_bytes), strict=True)
        slow = [name for (name, small), (_, large) in pairs if grows_too_fast(each, small, large)]
        assert not slow


every_target = pytest.mark.parametrize("each", TARGETS.values(), ids=TARGETS)


@every_target
def test_time_grows_no_faster_than_the_input(each):
    measure(each, 5 * 1024)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
@every_target
def test_time_grows_no_faster_than_a_large_input(each):
    measure(each, 64 * 1024)


@pytest.mark.parametrize("size_bytes", [10 * 1024, pytest.param(128 * 1024, marks=pytest.mark.nightly)])
@pytest.mark.timeout(1200)
def test_memory_stays_within_bounds(size_bytes):
    """In a process of its own, which the system refuses more memory than it may need."""
    command = [sys.executable, "-m", "tests.fuzz.within_memory", str(size_bytes)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
