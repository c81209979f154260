"""A node that says when it has opened an input and removed a container, and is `folkmoot` in everything else.

`python -m bench.rows._noting_node node start node.toml` prints two lines for each run, with the time in nanoseconds: OPENED and
the task, when the task was verified, allowed, journaled, and its input verified and decrypted; REMOVED, when the engine has
removed a container.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from folkmoot.cli.main import main
from folkmoot.node.execution import executor
from folkmoot.node.proxy.inputs import RunInput, open_input
from folkmoot.node.runtimes.docker import DockerRuntime
from folkmoot.node.station import Station
from folkmoot.trust import VerifiedTask

OPENED = "OPENED"
REMOVED = "REMOVED"

_remove = DockerRuntime.remove


async def _open_and_note(station: Station, task: VerifiedTask, closing: ExitStack) -> RunInput:
    opened = await open_input(station, task, closing)
    _note(OPENED, task.spec.task_id)
    return opened


async def _remove_and_note(runtime: DockerRuntime, run_name: str) -> None:
    await _remove(runtime, run_name)
    _note(REMOVED, run_name)


def _note(word: str, name: str) -> None:
    sys.stdout.write(f"{word} {name} {time.time_ns()}\n")  # at once, or a line would be read in pieces
    sys.stdout.flush()


if __name__ == "__main__":
    setattr(executor, "open_input", _open_and_note)  # noqa: B010 - it is not the node's to be replaced
    setattr(DockerRuntime, "remove", _remove_and_note)  # noqa: B010 - nor this
    main()
