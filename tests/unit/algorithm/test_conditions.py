"""Conditions on rows: what is written is what the contract carries, and what makes no sense is refused."""

from datetime import date

import numpy as np
import pytest

from folkmoot.algorithm.conditions import COMPARISONS, condition
from folkmoot.v1 import proxy_service_pb2 as pb


@pytest.mark.parametrize(
    ("where", "comparison", "values"),
    [
        (("age", ">=", 50), pb.COMPARISON_GREATER_OR_EQUAL, [pb.Value(integer=50)]),
        (("age", "<", np.float64(1.5)), pb.COMPARISON_LESS, [pb.Value(number=1.5)]),
        (("alive", "==", True), pb.COMPARISON_EQUAL, [pb.Value(truth=True)]),
        (("day", "!=", date(2026, 1, 2)), pb.COMPARISON_NOT_EQUAL, [pb.Value(text="2026-01-02")]),
        (("sex", "in", ["f", "m"]), pb.COMPARISON_IN, [pb.Value(text="f"), pb.Value(text="m")]),
        (("age", "is null"), pb.COMPARISON_IS_NULL, []),
        (("age", "is not null"), pb.COMPARISON_IS_NOT_NULL, []),
    ],
)
def test_condition_is_carried_as_written(where, comparison, values):
    assert condition(where) == pb.Condition(column=where[0], comparison=comparison, values=values)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        (("age", "=>", 5), "the comparison is one of ==, !=,"),
        (("age",), "the comparison is one of"),
        (("age", ">"), "takes one value"),
        (("age", "is null", 5), "takes no value"),
        (("age", "==", None), r'write \("age", "is null"\)'),
        (("age", "==", [1]), "not list"),
    ],
)
def test_condition_without_sense_says_what_is_wrong(where, says):
    with pytest.raises(ValueError, match=says):
        condition(where)


def test_every_comparison_of_the_contract_can_be_written():
    assert set(COMPARISONS.values()) == set(pb.Comparison.values()) - {pb.COMPARISON_UNSPECIFIED}
