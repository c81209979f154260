"""How far a task is, on a terminal: a bar if `rich` is installed, a plain line otherwise, nothing where nobody looks."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

from folkmoot.client.names import printable


class Show(Protocol):
    """Shows how far something is."""

    def __call__(self, done: float, text: str) -> None:
        """Show that so much of the total is done, and what is to be said of it."""


def nothing(done: float, text: str) -> None:
    """Show nothing."""


@contextmanager
def shown(title: str, total: int, *, on: TextIO | None = None) -> Iterator[Show]:
    """Show progress on a terminal until the block ends."""
    stream, title = on or sys.stderr, printable(title)
    if not stream.isatty():
        yield nothing
        return
    try:
        import rich  # noqa: F401
    except ImportError:
        with _line(title, total, stream) as show:
            yield show
    else:
        with _bar(title, total, stream) as show:
            yield show


@contextmanager
def _bar(title: str, total: int, stream: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as progress:
        bar = progress.add_task(title, total=total, text="")

        def show(done: float, text: str) -> None:
            progress.update(bar, completed=done, text=printable(text))

        yield show


@contextmanager
def _line(title: str, total: int, stream: TextIO) -> Iterator[Show]:
    longest = 0

    def show(done: float, text: str) -> None:
        nonlocal longest
        line = f"{title}: {done:.1f} of {total} {printable(text)}"
        longest = max(longest, len(line))
        stream.write("\r" + line.ljust(longest))
        stream.flush()

    try:
        yield show
    finally:
        stream.write("\r" + " " * longest + "\r")
        stream.flush()
