"""Calls are held against an image's label before anything is sent."""

import json

import pytest

from folkmoot.client import FolkmootError
from folkmoot.client.functions import check_call, read_functions
from folkmoot.v1 import errors_pb2 as reasons

LABEL = json.dumps(
    [
        {
            "name": "average",
            "kind": "central",
            "parameters": [
                {"name": "column", "type": "str", "required": True},
                {"name": "weights", "type": "", "required": False},
            ],
            "description": "The mean.",
        },
        {"name": "noop", "kind": "partial", "parameters": []},
    ]
)


def refusal(function: str, arguments: dict[str, object]) -> FolkmootError:
    with pytest.raises(FolkmootError) as refused:
        check_call(read_functions(LABEL) or {}, function, arguments)
    return refused.value


def test_fitting_calls_pass():
    functions = read_functions(LABEL)
    assert functions is not None
    check_call(functions, "average", {"column": "age"})
    check_call(functions, "average", {"column": "age", "weights": None})
    check_call(functions, "noop", {})


def test_function_that_does_not_exist_is_answered_with_those_that_do():
    error = refusal("averag", {})
    assert error.reason == reasons.ERROR_REASON_FUNCTION_NOT_FOUND
    assert "average, noop" in error.message


@pytest.mark.parametrize("arguments", [{}, {"column": "age", "colour": "red"}, {"weights": "w"}])
def test_arguments_that_do_not_fit_are_answered_with_the_signature(arguments: dict[str, object]):
    error = refusal("average", arguments)
    assert error.reason == reasons.ERROR_REASON_ARGUMENTS_INVALID
    assert "average(column: str, weights = …)" in error.message


@pytest.mark.parametrize("label", ["", "no json", "{}", "[1]", '[{"name": "x"}]', "null"])
def test_label_that_cannot_be_read_proves_nothing(label: str):
    assert read_functions(label) in (None, {})
