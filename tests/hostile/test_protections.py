"""The protections stand in the code as the attacks name them: or a control would show nothing, and nobody would notice."""

import re
from pathlib import Path

import pytest

from tests.hostile import protections, unprotected
from tests.hostile.unprotected import Edit, Protection, protection, without

PROTECTIONS = {name: each for name, each in vars(protections).items() if isinstance(each, Protection)}


@pytest.mark.parametrize("name", PROTECTIONS)
def test_each_is_found_taken_out_and_put_back(name: str):
    functions = [unprotected._plain(edit.function) for edit in PROTECTIONS[name].edits]
    before = [function.__code__ for function in functions]
    with without(PROTECTIONS[name]):
        assert all(function.__code__.co_code for function in functions)
        assert all(function.__code__ is not code for function, code in zip(functions, before, strict=True))
    assert [function.__code__ for function in functions] == before


def test_each_stops_an_attack():
    """What no test does without protects, as far as is known here, from nothing."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in PROTECTIONS if len(re.findall(rf"\b{name}\b", tests)) < 2]


def guarded(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return number


NEGATIVE = protection("no number is negative", Edit(guarded, "if number < 0:", "if False:"))


@pytest.mark.parametrize("present", ["if number > 0:", "number"], ids=["nowhere", "more than once"])
def test_one_that_does_not_stand_there_once_fails_the_test(present: str):
    with pytest.raises(AssertionError, match="as written here"), without(protection("gone", Edit(guarded, present))):
        raise RuntimeError("this block does not run")
    with pytest.raises(ValueError, match="-1"):
        guarded(-1)


def test_two_blocks_do_not_undo_each_other():
    with without(NEGATIVE):
        assert guarded(-1) == -1
        with pytest.raises(AssertionError, match="one block at a time"), without(NEGATIVE):
            raise RuntimeError("this block does not run")
        assert guarded(-1) == -1
    with pytest.raises(ValueError, match="-1"):
        guarded(-1)
