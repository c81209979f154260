"""An algorithm that a test leads step by step, through files in its job's scratch: it says that it has begun, waits to be let go, ends."""

import time

from folkmoot.algorithm import Context, partial

BEGUN, GO = "begun", "go"


@partial
def step(ctx: Context, number: int) -> int:
    """Note this execution in `begun`, wait for the file `go`, return the number doubled."""
    with (ctx.scratch / BEGUN).open("a") as file:
        file.write(f"{ctx.run_id}\n")
    while not (ctx.scratch / GO).exists():
        time.sleep(0.01)
    return 2 * number
