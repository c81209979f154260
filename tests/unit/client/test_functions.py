"""Calls are held against an image's label before anything is sent."""

import json

import pytest

from folkmoot.algorithm.describe import read_functions
from folkmoot.algorithm.values import ARROW_TYPE
from folkmoot.client import FolkmootError
from folkmoot.client.functions import check_call
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


NEW_LABEL = json.dumps(
    [
        {
            "name": "partial_average",
            "kind": "partial",
            "parameters": [
                {"name": "column", "type": "str", "required": True, "schema": {"type": "string"}},
                {"name": "cut", "type": "float", "required": False, "schema": {"type": "number"}, "default": 0.5},
                {"name": "rows", "type": "Table", "required": False, "schema": {"contentMediaType": ARROW_TYPE}},
            ],
            "description": "The sum.",
            "data": {"tables": 1, "columns": ["$column"]},
        }
    ]
)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"column": 3}, "column is 3, not string"),
        ({"column": "age", "cut": "half"}, "cut is 'half', not number"),
        ({"column": "age", "rows": b"no table"}, "rows is bytes, not a table"),
    ],
)
def test_wrong_types_are_answered_with_the_signature(arguments: dict[str, object], says: str):
    functions = read_functions(NEW_LABEL) or {}
    with pytest.raises(FolkmootError, match=says) as refused:
        check_call(functions, "partial_average", arguments, labels=["patients"])
    assert refused.value.reason == reasons.ERROR_REASON_ARGUMENTS_INVALID
    assert "partial_average(column: str, cut: float = 0.5, rows: Table = …)" in refused.value.message


def test_types_of_an_old_label_are_read_from_their_text():
    assert "column is 3, not string" in refusal("average", {"column": 3}).message


def test_task_that_names_too_few_labels_is_refused():
    functions = read_functions(NEW_LABEL) or {}
    with pytest.raises(FolkmootError, match="needs the data of 1 label") as refused:
        check_call(functions, "partial_average", {"column": "age"})
    assert refused.value.reason == reasons.ERROR_REASON_ARGUMENTS_INVALID
    check_call(functions, "partial_average", {"column": "age"}, labels=["patients"])


def test_numpy_numbers_and_tuples_are_what_they_become():
    numpy = pytest.importorskip("numpy")
    functions = read_functions(NEW_LABEL) or {}
    check_call(functions, "partial_average", {"column": "age", "cut": numpy.float32(0.5)}, labels=["patients"])
