"""A node that says when it has opened an input, and is `folkmoot` in everything else.

`python -m bench.rows._noting_node node start node.toml` prints a line for each run: OPENED, the task, and the time in
nanoseconds when the task was verified, allowed, journaled, and its input verified and decrypted.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from folkmoot.cli.main import main
from folkmoot.node import executor
from folkmoot.node.inputs import RunInput, open_input
from folkmoot.node.station import Station
from folkmoot.trust import VerifiedTask

OPENED = "OPENED"


async def _open_and_note(station: Station, task: VerifiedTask, closing: ExitStack) -> RunInput:
    opened = await open_input(station, task, closing)
    print(OPENED, task.spec.task_id, time.time_ns(), flush=True)
    return opened


if __name__ == "__main__":
    setattr(executor, "open_input", _open_and_note)  # noqa: B010 - it is not the node's to be replaced
    main()
