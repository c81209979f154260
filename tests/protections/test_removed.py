"""Each protection, removed: a named test must go red.

A protection without a test that fails when it is gone is a hope. Each case copies the source, takes one protection out of it, and
runs the one test that is there to notice. It fails when that test still passes, and when the protection does not stand in the
source as it is written here any more (then the case is to be brought up to date, not deleted).

This takes minutes, so it is one of the nightly tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.protections.protection import REPOSITORY, Protection
from tests.protections.protections import PROTECTIONS

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(300)]

ROOTS = ("generated", "sdk", "server", "node", "alembic", "tests", "examples", "proto")


@pytest.mark.parametrize("protection", PROTECTIONS, ids=str)
def test_a_named_test_notices(protection: Protection, tmp_path: Path):
    for root in ROOTS:
        shutil.copytree(REPOSITORY / root, tmp_path / root, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    assert run(protection.test, tmp_path).returncode == 0, "the test passes while the protection is there"
    path = tmp_path / protection.path
    source = path.read_text()
    assert source.count(protection.present) == 1, f"{protection.path} does not hold it as written here"
    path.write_text(source.replace(protection.present, protection.removed))
    done = run(protection.test, tmp_path)
    assert done.returncode == 1, f"nobody noticed:\n{done.stdout}"
    assert f"FAILED {protection.test}" in done.stdout


def run(test: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run one test on a copy of the source, which comes before the installed one."""
    roots = [str(folder), *(str(folder / root) for root in ("generated", "sdk", "server", "node"))]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rf", "--tb=line", test]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(roots)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
