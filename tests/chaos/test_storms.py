"""Storms of faults, seeded: whatever the moment, every run ends once, and no result is lost, doubled or changed.

A few seeds run with every `make test`, many more at night: FOLKMOOT_SEEDS says how many, FOLKMOOT_FIRST_SEED from which on.
"""

import os
from pathlib import Path

import pytest

from tests.chaos.storm import rage

SAMPLE = range(2)
FIRST = int(os.environ.get("FOLKMOOT_FIRST_SEED", str(SAMPLE.stop)))
MORE = range(FIRST, FIRST + int(os.environ.get("FOLKMOOT_SEEDS", "300")))
pytestmark = pytest.mark.timeout(120)


async def storm(folder: Path, seed: int) -> None:
    try:
        await rage(folder, seed)
    except BaseException:
        print(f"repeat with: FOLKMOOT_FIRST_SEED={seed} FOLKMOOT_SEEDS=1 pytest -m nightly tests/chaos/test_storms.py")  # noqa: T201
        raise


@pytest.mark.parametrize("seed", SAMPLE, ids=lambda seed: f"seed-{seed}")
async def test_every_run_ends_once_and_no_result_is_lost(seed: int, tmp_path: Path):
    await storm(tmp_path, seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", MORE, ids=lambda seed: f"seed-{seed}")
async def test_so_it_is_with_many_more_seeds(seed: int, tmp_path: Path):
    await storm(tmp_path, seed)
