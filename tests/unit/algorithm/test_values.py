"""Values come back as they went, or are refused at the place where they can't."""

import io
import json
import math
from datetime import UTC, date, datetime, time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.algorithm import ContentInvalid, NotSerializable, Table
from folkmoot.algorithm.values import (
    ARROW_TYPE,
    BYTES_TYPE,
    HEAD_LIMIT_BYTES,
    JSON_TYPE,
    decode,
    decode_arguments,
    decode_input,
    encode,
    encode_input,
    split_input,
)
from folkmoot.v1.task_pb2 import Attachment, TaskInput

texts = st.text(st.characters(codec="utf-8"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)
TABLE = pa.table({"age": [61, None, 48], "name": ["a", None, "ü"]})


@given(json_values)
def test_json_comes_back_as_it_went(value):
    content_type, content = encode(value)
    assert content_type == JSON_TYPE
    assert json.loads(content) == decode(content_type, content) == value


@given(st.binary())
def test_bytes_come_back_as_they_went(value):
    assert decode(*encode(value)) == decode(*encode(bytearray(value))) == decode(*encode(memoryview(value))) == value


@given(texts, st.dictionaries(texts.filter(bool), json_values | st.binary()))
def test_input_comes_back_as_it_went(function, arguments):
    encoded = encode_input(function, arguments)
    content = b"".join(encoded.content())
    assert len(content) == encoded.size_bytes
    assert decode_input(content) == (function, arguments)
    assert split_input(encoded.head)[1] == len(encoded.head)


@given(st.data())
def test_input_cut_anywhere_is_refused(data):
    content = b"".join(encode_input("f", {"a": 1, "b": b"12345"}).content())
    with pytest.raises(ContentInvalid):
        decode_input(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize(
    "frame", [TABLE, TABLE.to_pandas(), pl.DataFrame(TABLE.to_pydict()), Table.from_ipc(encode(TABLE).content)]
)
def test_every_kind_of_table_arrives_as_the_same_rows(frame):
    content_type, content = encode(frame)
    assert content_type == ARROW_TYPE
    table = decode(content_type, content)
    rows = [[None if value != value else value for value in row.values()] for row in table.rows()]
    assert rows == [[61, "a"], [None, None], [48, "ü"]]


def test_tables_and_bytes_are_arguments_of_their_own():
    encoded = encode_input("f", {"table": TABLE, "raw": b"\0", "column": "age"})
    head, _ = split_input(encoded.head)
    assert [(one.name, one.content_type) for one in head.attachments] == [("table", ARROW_TYPE), ("raw", BYTES_TYPE)]
    _, arguments = decode_input(b"".join(encoded.content()))
    assert arguments.pop("table").arrow() == TABLE
    assert arguments == {"raw": b"\0", "column": "age"}


def test_numbers_of_numpy_and_moments_become_plain():
    value = {
        "scalars": [np.float64(1.5), np.float32(0.5), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True), np.str_("x")],
        "array": np.arange(6).reshape(2, 3),
        "tuple": (1, (2.0,)),
        "times": [date(2026, 1, 2), datetime(2026, 1, 2, 3, tzinfo=UTC), time(3, 4), pd.Timestamp("2026-01-02")],
    }
    assert decode(*encode(value)) == {
        "scalars": [1.5, 0.5, -1, 2**64 - 1, True, "x"],
        "array": [[0, 1, 2], [3, 4, 5]],
        "tuple": [1, [2.0]],
        "times": ["2026-01-02", "2026-01-02T03:00:00+00:00", "03:04:00", "2026-01-02T00:00:00"],
    }


def nested() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (math.nan, "result is nan"),
        ({"a": [1.0, -math.inf]}, r'result\["a"\]\[1\] is -inf'),
        ([np.array([1.0, np.nan])], r"result\[0\]\[1\] is nan"),
        ({"a": object()}, r'result\["a"\] is of type object'),
        ({1: 2}, "result has the key 1 of type int"),
        ({"a": {2: 3}}, r'result\["a"\] has the key 2'),
        ({1, 2}, "result is of type set"),
        (1j, "result is of type complex"),
        (np.complex64(1), "result is of type numpy.complex64"),
        (np.longdouble(1), "result is of type numpy.longdouble"),
        (np.datetime64("2026-01-02"), "result is of type numpy.datetime64"),
        (pd.NaT, "NaT"),
        (pd.NA, "result is of type pandas"),
        ({"a": b"bytes"}, r'result\["a"\] is of type bytes: bytes and tables travel alone'),
        ([TABLE], r"result\[0\] is of type pyarrow.lib.Table: bytes and tables travel alone"),
        (pa.chunked_array([[1, 2]]), "result cannot be written as a table"),
        ("\ud800", "result is not valid Unicode"),
        ({"\ud800": 1}, "a key of result is not valid Unicode"),
        ([10**5000], "result cannot be written as JSON"),
        (nested(), "result is nested too deeply, or contains itself"),
    ],
)
def test_value_that_cannot_travel_is_named_by_its_place(value, says):
    with pytest.raises(NotSerializable, match=says):
        encode(value)


def test_argument_that_cannot_travel_is_named():
    with pytest.raises(NotSerializable, match=r'matrix\["a"\] is of type bytes'):
        encode_input("f", {"matrix": {"a": b""}})


def test_arguments_too_large_for_a_context_say_what_to_do():
    with pytest.raises(NotSerializable, match="pass what is large as bytes or as a table"):
        encode_input("f", {"text": "x" * HEAD_LIMIT_BYTES})


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        (JSON_TYPE, b"NaN"),
        (JSON_TYPE, b"[1, Infinity]"),
        (JSON_TYPE, b"{"),
        (JSON_TYPE, b"\xff"),
        (JSON_TYPE, b"[" * 100_000),
        ("application/x-pickle", b""),
    ],
)
def test_content_that_is_not_what_it_says_is_refused(content_type, content):
    with pytest.raises(ContentInvalid):
        decode(content_type, content)


@pytest.mark.parametrize(
    ("head", "attachments"),
    [
        (TaskInput(arguments_json="[]"), b""),
        (TaskInput(arguments_json="{}"), b"more"),
        (TaskInput(arguments_json='{"a":1}', attachments=[Attachment(name="a", content_type=BYTES_TYPE)]), b""),
        (TaskInput(arguments_json="{}", attachments=[Attachment(name="a", size_bytes=5)]), b"1234"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(head, attachments):
    with pytest.raises(ContentInvalid):
        decode_arguments(head, attachments)


def test_nothing_is_ever_unpickled():
    import pickle

    with pytest.raises(ContentInvalid):
        decode(JSON_TYPE, pickle.dumps({"a": 1}))
    with pytest.raises(ContentInvalid):
        decode(ARROW_TYPE, pickle.dumps({"a": 1})).column("a")


def test_table_is_taken_by_other_libraries_as_it_is():
    table = decode(*encode(TABLE))
    assert pa.table(table) == TABLE
    assert pl.DataFrame(table).rows() == [(61, "a"), (None, None), (48, "ü")]
    assert decode(*encode(table)).arrow() == TABLE
    assert io.BytesIO(table.ipc).getvalue() == encode(table).content
