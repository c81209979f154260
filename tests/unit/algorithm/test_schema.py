"""What annotations allow, in the words of JSON Schema, and which values fit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from folkmoot.algorithm import Context, Table, central, partial
from folkmoot.algorithm.functions import DataNeeds, Parameter, functions_of
from folkmoot.algorithm.schema import Attached, misfit, schema_of, schema_of_text, schema_text
from folkmoot.algorithm.values import ARROW_TYPE, BYTES_TYPE

if TYPE_CHECKING:
    from decimal import Decimal

Column = NewType("Column", str)


class Frame:
    """A class that this release knows nothing of."""


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (Column, {"type": "string"}),
        (Annotated[int, "years"], {"type": "integer"}),
        (None, {"type": "null"}),
        (list, {"type": "array"}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (Sequence[float], {"type": "array", "items": {"type": "number"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array"}),
        (list[Any], {"type": "array"}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (Mapping[str, Any], {"type": "object"}),
        (Literal["mean", "sum"], {"enum": ["mean", "sum"]}),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (bytes, {"contentMediaType": BYTES_TYPE}),
        (Table, {"contentMediaType": ARROW_TYPE}),
        (Any, {}),
        (Frame, {}),
        (Frame | None, {}),
    ],
)
def test_schema_of_an_annotation(annotation, schema):
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("str", {"type": "string"}),
        ("list[str]", {"type": "array", "items": {"type": "string"}}),
        ("list[list[int]]", {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
        ("int | None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        ("Table", {"contentMediaType": ARROW_TYPE}),
        ("pd.DataFrame", {}),
        ("pd.DataFrame | None", {}),
        ("dict[str, int]", {}),
        ("__import__('os')", {}),
        ("", {}),
    ],
)
def test_schema_of_a_text(text, schema):
    assert schema_of_text(text) == schema


@pytest.mark.parametrize(
    ("value", "annotation", "says"),
    [
        (1, str, "x is 1, not string"),
        ("1", int, "x is '1', not integer"),
        (True, int, "x is True, not integer"),
        (1.0, int, "x is 1.0, not integer"),
        ("age", list[str], "x is 'age', not array (of each: string)"),
        (["a", 2], list[str], "x[1] is 2, not string"),
        ({"a": ["b"]}, dict[str, list[int]], "x[\"a\"][0] is 'b', not integer"),
        ("median", Literal["mean", "sum"], "x is 'median', not one of 'mean', 'sum'"),
        ({}, int | None, "x is an object, not integer or null"),
        ([1], bytes, "x is an array, not bytes"),
        (Attached(BYTES_TYPE), Table, "x is bytes, not a table"),
        (Attached(ARROW_TYPE), list[int], "x is a table, not array (of each: integer)"),
        ("y" * 100, int, f"x is '{'y' * 59}…, not integer"),
    ],
)
def test_what_does_not_fit_is_named_by_its_place(value, annotation, says):
    assert misfit(value, schema_of(annotation), "x") == says


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, float),
        (1, int),
        (None, int | None),
        ([], list[int]),
        ([1, 2.5], list[float]),
        ("sum", Literal["mean", "sum"]),
        (Attached(ARROW_TYPE), Table),
        (Attached(BYTES_TYPE), Frame),
        ({"anything": [1]}, Any),
    ],
)
def test_what_fits(value, annotation):
    assert not misfit(value, schema_of(annotation), "x")


anything = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keywords = some.dictionaries(
    some.sampled_from(["type", "enum", "anyOf", "items", "additionalProperties", "contentMediaType"]), anything
)


@given(schema=anything | keywords, value=anything)
@example(schema={"type": ""}, value=None)
@example(schema={"contentMediaType": ""}, value=None)
def test_whatever_a_label_says_is_no_fault_of_ours(schema, value):
    """A label is written by whoever made the image."""
    assert isinstance(misfit(value, schema, "x"), str)
    assert schema_text(schema)


def test_parameters_that_can_not_be_told_allow_everything():
    @partial
    def f(ctx: Context, plain, price: "Decimal", broken: "no such name", many: "list[int]" = ()) -> None:  # type: ignore[valid-type, assignment]  # noqa: F722
        """Do nothing."""

    parameters = {one.name: one for one in _only(f).parameters}
    assert [parameters[name].allowed for name in ("plain", "price", "broken")] == [{}, {}, {}]
    assert parameters["many"].allowed == {"type": "array", "items": {"type": "integer"}}
    assert parameters["many"].default == "[]"


def test_default_that_is_nothing_may_be_given():
    parameter = Parameter("weights", "str", required=False, default="null")
    assert not misfit(None, parameter.allowed, "weights")


def test_default_that_json_does_not_have_is_not_told():
    @partial
    def f(ctx: Context, frame: Frame = Frame(), data: bytes = b"x") -> None:  # noqa: B008
        """Do nothing."""

    assert [one.default for one in _only(f).parameters] == ["", ""]
    assert _only(f).signature.endswith("data: bytes = …)")


def test_needs_are_told_by_the_decorator():
    @partial(tables=1, columns=["$column", "sex"])
    def f(ctx: Context, column: str) -> None:
        """Do nothing."""

    @central
    def g(ctx: Context) -> None:
        """Do nothing."""

    assert _only(f).data == DataNeeds(1, ("$column", "sex"))
    assert (_only(g).data, _only(g).kind) == (DataNeeds(), "central")


def test_columns_of_a_parameter_that_is_not_there_are_refused_at_import():
    with pytest.raises(TypeError, match="has no such parameter"):

        @partial(columns=["$colum"])
        def f(ctx: Context, column: str) -> None:
            """Do nothing."""


def _only(function: Any) -> Any:
    module: Any = type("module", (), {"f": function})
    [one] = functions_of(module).values()
    return one
