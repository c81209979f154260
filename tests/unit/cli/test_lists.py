"""Lists of the command line: replaced, emptied, or changed by items."""

import pytest

from folkmoot.cli.lists import ListChange


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (ListChange((), False, (), ()), None),
        (ListChange(("c",), False, (), ()), ["c"]),
        (ListChange((), True, (), ()), []),
        (ListChange((), False, ("c", "a"), ()), ["a", "b", "c"]),
        (ListChange((), False, (), ("a",)), ["b"]),
        (ListChange((), False, ("c",), ("a", "x")), ["b", "c"]),
        (ListChange((), True, ("c",), ()), ["c"]),
    ],
)
def test_list_after_the_options(change: ListChange, after: list[str] | None):
    assert change.of(["a", "b"]) == after
