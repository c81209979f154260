"""The attack image tries everything that an algorithm must not be able to do; each attempt fails, and would not without the node.

One container makes all attempts and reports each; a second one, started without any protection, shows that they would succeed.
"""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from tests.attacks import stage
from tests.attacks.stage import ATTACK, Outcomes
from tests.integration.node.conftest import conformance_image, directory, make_place

__all__ = ["conformance_image", "directory"]

pytestmark = pytest.mark.needs_docker

MIB = 1 << 20


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ATTACK))
    try:
        spec = importlib.util.spec_from_file_location(f"attack_image_{name}", ATTACK / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ATTACK))


NAMES = list(load("attack").ATTEMPTS)

MAY_BE_MISSING = {
    "faults_by_user",
    "hardware",
    "kernel_log",
    "kernel_memory",
    "magic_keys",
    "metadata_address",
    "module_loader",
    "performance_counters",
    "programs_in_the_kernel",
    "release_agent",
    "rings",
}
"""What some kernels and machines do not offer even to root: there the control says so, and the attempt fails all the same."""


@pytest.fixture(scope="module")
def attack_image(conformance_image: str) -> str:
    return stage.build(conformance_image)


@pytest.fixture(scope="module")
def there() -> Iterator[stage.Target]:
    with stage.target() as there:
        yield there


@pytest.fixture(scope="module")
def outcomes(attack_image: str, there: stage.Target) -> Outcomes:
    found, _ = asyncio.run(stage.protected(attack_image, there, NAMES))
    return found


@pytest.fixture(scope="module")
def controls(attack_image: str, there: stage.Target) -> Outcomes:
    return stage.unprotected(attack_image, there, NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_attempt_fails(outcomes: Outcomes, name: str):
    succeeded, said = outcomes[name]
    assert not succeeded, said


@pytest.mark.parametrize("name", NAMES)
def test_attempt_would_succeed_unprotected(controls: Outcomes, name: str):
    succeeded, said = controls[name]
    if not succeeded and name in MAY_BE_MISSING:
        pytest.skip(f"this machine does not offer it to root either: {said}")
    assert succeeded, said


def test_what_was_attacked_is_as_it_was(outcomes: Outcomes, there: stage.Target):
    assert (there.folder / "state/node.pem").read_text() == "the node's key"
    assert [path.name for path in (there.folder / "data").iterdir()] == ["scan"]


async def test_garbage_and_half_calls_on_a_proxy_leave_the_others_alone(attack_image: str, directory: Path):
    """Slow connections, half messages and what is no HTTP/2: another run's proxy answers, and the node grows by no more than a little."""
    place = make_place("docker", directory, attack_image)
    node = psutil.Process()
    try:
        before = node.memory_info().rss
        attacker = await stage.start(place, "half", times=3, connections=100)
        assert (await attacker.progress.get())[1] == "held"
        honest = await stage.start(place, "honest")
        assert (await honest.result)[1] == b'"honest"'
        assert node.memory_info().rss - before < 128 * MIB
        assert node.num_fds() < 300
    finally:
        await place.clean()
