"""An algorithm for every way to go wrong."""

import os
import signal
import threading
from typing import Any

from folkmoot.algorithm import Context, partial


@partial
def well(ctx: Context, number: int, word: str = "yes") -> str:
    """Nothing goes wrong."""
    return f"{word} {number}"


@partial
def raises(ctx: Context) -> None:
    """Raise an error of one's own."""
    raise ValueError("the ages are negative")


@partial
def exits(ctx: Context, code: int) -> None:
    """Leave the process without a word."""
    os._exit(code)


@partial
def dies(ctx: Context) -> None:
    """Be killed."""
    os.kill(os.getpid(), signal.SIGKILL)


@partial
def devours(ctx: Context) -> int:
    """Take memory until there is none."""
    taken = []
    while True:
        taken.append(bytearray(16 << 20))


@partial
def waits(ctx: Context) -> None:
    """Never come to an end."""
    threading.Event().wait()


@partial
def strange(ctx: Context) -> Any:
    """Return what can't be serialized."""
    return {"counts": [1, {2, 3}]}


@partial
def column(ctx: Context, name: str) -> list[Any]:
    """Read a column, which may be missing."""
    return ctx.table("patients", columns=[name]).column(name)
