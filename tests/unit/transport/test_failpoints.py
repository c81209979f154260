"""Failpoints: off unless a process was started with them, each in the source exactly once, each listed for people."""

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from folkmoot.transport import failpoints
from folkmoot.transport.failpoints import FAILPOINTS, VARIABLE, failpoint, read_plans
from folkmoot.trust import FolkmootError

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
from folkmoot.transport.failpoints import failpoint, obey_environment
obey_environment()
for number in range(5):
    print(number, flush=True)
    failpoint("node.run.started")
"""


def run(plan: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={VARIABLE: plan}, capture_output=True, text=True, check=False, timeout=30
    )


def test_each_listed_failpoint_stands_in_the_source_exactly_once():
    sources = [path for root in ("sdk", "node", "server") for path in (REPOSITORY / root).rglob("*.py")]
    placed = Counter(name for path in sources for name in re.findall(r'\bfailpoint\("([^"]+)"\)', path.read_text()))
    assert placed == Counter(FAILPOINTS.keys())


def test_people_find_each_of_them_in_the_documentation():
    text = (REPOSITORY / "docs" / "robustness.md").read_text()
    assert dict(re.findall(r"^\| `([a-z._]+)` \| (.*) \|$", text, re.MULTILINE)) == dict(FAILPOINTS)


def test_nothing_happens_where_nothing_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    failpoints.obey_environment()
    for name in FAILPOINTS:
        failpoint(name)


def test_a_kill_ends_the_process_the_time_that_was_asked_for_and_is_told():
    ended = run("node.run.started=kill@3")
    assert ended.returncode == -signal.SIGKILL
    assert ended.stdout.split() == ["0", "1", "2"]
    assert "this process was started to crash" in ended.stderr
    assert "failpoint node.run.started: kill" in ended.stderr


def test_an_error_is_that_of_a_disk_and_comes_once():
    ended = run("node.run.started=error")
    assert "OSError" in ended.stderr
    assert ended.stdout.split() == ["0"]


def test_another_failpoint_is_passed():
    assert run("node.run.judged=kill").stdout.split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "plan", ["nowhere=kill", "node.run.started", "node.run.started=explode", "node.run.started=kill@0", ","]
)
def test_what_it_can_not_mean_is_refused(plan: str):
    with pytest.raises(FolkmootError, match=VARIABLE):
        read_plans(plan)
    assert run(plan).returncode == 1
