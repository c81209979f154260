"""Progress is shown on a terminal, and nowhere else."""

import io
import sys

import pytest

from folkmoot.client.progress import shown


class Terminal(io.StringIO):
    """Somebody looks."""

    def isatty(self) -> bool:
        return True


def show_all(stream: io.StringIO) -> str:
    with shown("average", 3, on=stream) as show:
        show(1.0, "Beta: waits for a slot at its node")
        show(2.5, "")
    return stream.getvalue()


def test_nothing_where_nobody_looks():
    assert show_all(io.StringIO()) == ""


def test_bar_with_rich():
    written = show_all(Terminal())
    assert "average" in written


def test_plain_line_without_rich_is_wiped_at_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    written = show_all(Terminal())
    assert "average: 1.0 of 3 Beta: waits for a slot at its node" in written
    *_, last, end = written.split("\r")
    assert (last.strip(), end) == ("", "")
