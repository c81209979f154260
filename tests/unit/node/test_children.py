"""Children of the node that are not wanted any more before they are there."""

import asyncio
from asyncio.subprocess import PIPE

import psutil
import pytest

from folkmoot.node import children

COMMAND = ("/bin/sleep", "60")
STEPS = range(8)
"""After how many turns of the loop it is cancelled: before the fork, while pipes are connected, when it is there."""


@pytest.mark.parametrize("steps", STEPS)
async def test_child_that_is_given_up_while_it_starts_is_gone(steps):
    starting = asyncio.create_task(children.start(*COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE))
    for _ in range(steps):
        await asyncio.sleep(0)
    if starting.done():
        child = starting.result()
        child.kill()
        await child.wait()
        return
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert "sleep" not in [child.name() for child in psutil.Process().children()]


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_loop_that_ends_while_a_child_starts_ends(steps, monkeypatch):
    monkeypatch.setattr(children, "_STARTED_BY_THEN_SECONDS", 0.05)

    async def leave() -> None:
        asyncio.ensure_future(children.start(*COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE)).add_done_callback(_kill)
        for _ in range(steps):
            await asyncio.sleep(0)

    asyncio.run(leave())
    assert "sleep" not in [child.name() for child in psutil.Process().children()]


def _kill(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    if not starting.cancelled():
        starting.result().kill()
