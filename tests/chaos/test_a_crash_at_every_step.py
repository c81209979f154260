"""A process dies at each failpoint once, while the work goes on that comes past it: everything is true afterwards.

The kills of each test follow one another in one collaboration: whoever was started again after one is started for the next.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from folkmoot.algorithm.build import build
from folkmoot.transport.failpoints import FAILPOINTS
from tests.chaos.stage import REPOSITORY
from tests.chaos.storm import BEFORE_A_PROCESS, BESIDE_A_START, ELSEWHERE, REACHED_BY, WORK, Storm, weather

AT_ONCE = 8
"""Kills that follow one another in one collaboration."""

ALWAYS = ("plain-0", "sessions-0")
"""What every test run plays; the nightly ones play all. Kills while people decide and while results arrive have short forms elsewhere."""

MOST_TRIES = 4
pytestmark = pytest.mark.timeout(240)


def test_every_failpoint_is_come_past():
    assert sorted([*ELSEWHERE, *(name for names in REACHED_BY.values() for name in names)]) == sorted(FAILPOINTS)


@pytest.fixture(scope="session")
def container_image() -> str:
    return build(REPOSITORY / "tests" / "algorithms" / "stormy.py", base="folkmoot-base:debian12", tag="stormy")


def died_at(storm: Storm, name: str) -> bool:
    return any(f"failpoint {name}: kill" in storm.playing.said(process) for process in ("server", "Beta"))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        pytest.param(
            kind,
            names[at : at + AT_ONCE],
            id=f"{kind}-{at}",
            marks=() if f"{kind}-{at}" in ALWAYS else pytest.mark.nightly,
        )
        for kind, names in REACHED_BY.items()
        for at in range(0, len(names), AT_ONCE)
    ],
)
async def test_a_crash_at_every_step_of(kind: str, names: tuple[str, ...], tmp_path: Path):
    def coming(prefixes: tuple[str, ...]) -> Iterator[str]:
        return iter([f"{name}=kill" for name in names if name.startswith(prefixes)])

    plans = {"server": coming(("server.",)), "Beta": coming(("node.", "upload."))}
    async with weather(tmp_path, kind, organizations=("Alpha", "Beta"), coming=plans) as storm:
        for _ in range(MOST_TRIES * len(names)):
            await WORK[kind](storm)
            if all(died_at(storm, name) for name in names):
                break
        assert [name for name in names if not died_at(storm, name)] == []
        lost = [result for _, results in storm.results for result in results if result.exit_class == "LOST"]
        assert len(lost) <= len((BEFORE_A_PROCESS | BESIDE_A_START) & {*names})


@pytest.mark.nightly
@pytest.mark.needs_docker
async def test_a_crash_at_every_step_of_a_container(container_image: str, tmp_path: Path):
    names = ("node.run.container_created", "node.run.started", "node.result.journaled", "node.run.process_removed")
    plans = {"Beta": iter([f"{name}=kill" for name in names])}
    async with weather(
        tmp_path, "container", organizations=("Alpha", "Beta"), coming=plans, image=container_image
    ) as storm:
        for _ in range(MOST_TRIES * len(names)):
            await WORK["plain"](storm)
            if all(died_at(storm, name) for name in names):
                break
        assert [name for name in names if not died_at(storm, name)] == []
