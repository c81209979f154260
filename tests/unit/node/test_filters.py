"""Columns and conditions of the contract against DuckDB, in this process: right rows, and never SQL from an algorithm."""

import datetime as dt
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from folkmoot.node.data.engine import open_engine, shut_in
from folkmoot.node.data.filters import Refused, select
from folkmoot.node.data.opening import open_table
from folkmoot.node.data.table_source import Settings
from folkmoot.v1 import proxy_service_pb2 as pb


def condition(column: str, comparison: str, *values: Any) -> pb.Condition:
    name = {bool: "truth", int: "integer", float: "number", str: "text"}
    return pb.Condition(
        column=column,
        comparison=pb.Comparison.Value(f"COMPARISON_{comparison}"),
        values=[pb.Value(**{name[type(value)]: value}) for value in values],
    )


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.parquet"
    table = {
        "name": ["Ada", "Grace"],
        "age": [36, None],
        "born": [dt.date(1815, 12, 10), dt.date(1906, 12, 9)],
        "height": [1.65, None],
        "alive": [False, True],
        "seen": [dt.datetime.fromisoformat("1843-09-01T10:00:00"), None],
        "list": [[1], [2]],
    }
    pq.write_table(pa.table(table), path)
    return path


def read(path: Path, *columns: str, where: list[pb.Condition] | None = None) -> list[tuple]:
    engine = open_engine()
    opened = open_table(engine, Settings(label="people", kind="parquet", path=str(path)))
    shut_in(engine, opened.paths)
    relation = opened.relation(None, ())
    return select(engine, relation, pb.ReadTableRequest(columns=columns, where=where or [])).fetchall()


class TestSelection:
    def test_columns_come_in_the_wanted_order(self, people):
        assert read(people, "height", "name") == [(1.65, "Ada"), (None, "Grace")]

    @pytest.mark.parametrize(
        ("where", "names"),
        [
            ([condition("age", "EQUAL", 36)], ["Ada"]),
            ([condition("age", "IS_NULL")], ["Grace"]),
            ([condition("age", "IS_NOT_NULL")], ["Ada"]),
            ([condition("born", "GREATER", "1900-01-01")], ["Grace"]),
            ([condition("seen", "LESS", "1843-09-01T10:00:01")], ["Ada"]),
            ([condition("alive", "EQUAL", True)], ["Grace"]),
            ([condition("name", "IN", "Ada", "Bob")], ["Ada"]),
            ([condition("name", "GREATER_OR_EQUAL", "B")], ["Grace"]),
            ([condition("height", "LESS_OR_EQUAL", 1.65), condition("name", "NOT_EQUAL", "Ada")], []),
        ],
    )
    def test_conditions_hold_for_every_row(self, people, where, names):
        assert [name for (name,) in read(people, "name", where=where)] == names

    @pytest.mark.parametrize("others", [[2.0], [2.0, 0.5]], ids=["by the file's statistics", "by the values"])
    @pytest.mark.parametrize("comparison", ["EQUAL", "LESS", "LESS_OR_EQUAL", "GREATER", "GREATER_OR_EQUAL", "IN"])
    def test_nan_is_not_equal_less_or_greater(self, tmp_path, others, comparison):
        """A file's smallest and largest value leave NaN out, so that DuckDB alone answers one way or the other."""
        pq.write_table(pa.table({"x": [*others, math.nan]}), tmp_path / "nan.parquet")
        for limit in (-1.0, 1.0, 5.0):
            found = read(tmp_path / "nan.parquet", where=[condition("x", comparison, limit)])
            assert not [x for (x,) in found if math.isnan(x)]

    @pytest.mark.parametrize("others", [[2.0], [2.0, 0.5]], ids=["by the file's statistics", "by the values"])
    def test_nan_differs_from_every_number(self, tmp_path, others):
        pq.write_table(pa.table({"x": [*others, math.nan]}), tmp_path / "nan.parquet")
        [*_, (last,)] = read(tmp_path / "nan.parquet", where=[condition("x", "NOT_EQUAL", 2.0)])
        assert math.isnan(last)

    @pytest.mark.parametrize("name", ['"', "a.b", "*", "select", "a b", "'; DROP TABLE x; --", "größe", "$1", "?"])
    def test_column_names_are_only_names(self, tmp_path, name):
        pq.write_table(pa.table({name: [1, 2], "other": [3, 4]}), tmp_path / "odd.parquet")
        assert read(tmp_path / "odd.parquet", name, where=[condition(name, "GREATER", 1)]) == [(2,)]

    def test_text_of_a_value_is_only_text(self, people):
        assert read(people, where=[condition("name", "EQUAL", "x' OR '1'='1")]) == []


class TestRefusals:
    @pytest.mark.parametrize(
        "where",
        [
            condition("age", "EQUAL", "old"),
            condition("age", "EQUAL", math.nan),
            condition("age", "EQUAL"),
            condition("age", "EQUAL", 1, 2),
            condition("age", "IN"),
            condition("age", "IS_NULL", 1),
            condition("alive", "EQUAL", 1),
            condition("born", "EQUAL", "yesterday"),
            condition("born", "EQUAL", 1815),
            condition("name", "EQUAL", 1),
            condition("list", "EQUAL", 1),
            pb.Condition(column="age", comparison=pb.COMPARISON_EQUAL, values=[pb.Value()]),
            pb.Condition(column="age", values=[pb.Value(integer=1)]),
        ],
        ids=str,
    )
    def test_value_that_does_not_fit_names_its_condition(self, people, where):
        with pytest.raises(Refused) as refused:
            read(people, where=[where])
        assert (refused.value.reason, refused.value.field) == ("INVALID_FIELD", "where[0]")

    def test_column_that_is_not_there_names_those_that_are(self, people):
        with pytest.raises(Refused, match=r"no column Age; .* name, age, born") as refused:
            read(people, "Age")
        assert refused.value.reason == "COLUMN_NOT_FOUND"


VALUES = {
    "whole": st.integers(-5, 5),
    "number": st.sampled_from([-1.5, 0.0, 0.5, 2.0, math.nan]),
    "text": st.sampled_from(["", "a", "A", "b", "é", "'", '"']),
    "truth": st.booleans(),
    "day": st.dates(dt.date(2019, 12, 30), dt.date(2020, 1, 3)),
}
OPERATORS = {
    "EQUAL": lambda column, value: column == value,
    "NOT_EQUAL": lambda column, value: column != value,
    "LESS": lambda column, value: column < value,
    "LESS_OR_EQUAL": lambda column, value: column <= value,
    "GREATER": lambda column, value: column > value,
    "GREATER_OR_EQUAL": lambda column, value: column >= value,
}


def rows() -> st.SearchStrategy[list[dict]]:
    return st.lists(st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}), max_size=20)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[str, str, list]:
    column = draw(st.sampled_from(sorted(VALUES)))
    values = VALUES[column].filter(lambda value: value == value)
    comparison = draw(st.sampled_from([*OPERATORS, "IN", "IS_NULL", "IS_NOT_NULL"]))
    if comparison == "IN":
        return column, comparison, draw(st.lists(values, min_size=1, max_size=3))
    return column, comparison, [draw(values)] if comparison in OPERATORS else []


def expected(frame: pd.DataFrame, column: str, comparison: str, values: list) -> pd.Series:
    missing = frame[column].map(lambda value: value is None)
    if comparison == "IS_NULL":
        return missing
    if comparison == "IS_NOT_NULL":
        return ~missing
    if comparison == "IN":
        return frame[column].map(lambda value: value is not None and value in values)
    holds = OPERATORS[comparison]
    return frame[column].map(lambda value: value is not None and bool(holds(value, values[0])))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows(), wanted=st.lists(conditions(), max_size=3))
def test_filters_agree_with_pandas(tmp_path, rows, wanted):
    schema = pa.schema(
        {
            "row": pa.int64(),
            "whole": pa.int32(),
            "number": pa.float64(),
            "text": pa.string(),
            "truth": pa.bool_(),
            "day": pa.date32(),
        }
    )
    rows = [{"row": index, **row} for index, row in enumerate(rows)]
    path = tmp_path / "random.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema), path)
    where = [condition(c, op, *(str(v) if isinstance(v, dt.date) else v for v in vs)) for c, op, vs in wanted]
    found = read(path, "row", where=where)
    frame = pd.DataFrame(rows, columns=schema.names, dtype=object)
    kept = pd.Series(True, index=frame.index)
    for one in wanted:
        kept &= expected(frame, *one).astype(bool)
    assert [row for (row,) in found] == frame[kept]["row"].tolist()
