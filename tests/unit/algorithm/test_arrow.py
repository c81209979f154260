"""One conformance test for the libraries that read and write Arrow: the same stream, the same Python values."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal

import nanoarrow
import polars as pl
import pyarrow as pa
import pytest

from folkmoot.algorithm import ArrowLibraryMissing, DataUnreadable, Table, arrow
from folkmoot.algorithm.readable import open_pieces

COLUMNS = {
    "integer": pa.array([1, None, -(2**63)]),
    "unsigned": pa.array([2**64 - 1, None, 0], pa.uint64()),
    "number": pa.array([1.5, None, -0.0]),
    "truth": pa.array([True, None, False]),
    "text": pa.array(["x", None, "ü"]),
    "large_text": pa.array(["x", None, ""], pa.large_string()),
    "bytes": pa.array([b"\0", None, b""]),
    "day": pa.array([date(2026, 1, 2), None, date(1900, 1, 1)]),
    "moment": pa.array([datetime(2026, 1, 2, 3, 4, 5, 6), None, None], pa.timestamp("us")),  # noqa: DTZ001 - without a zone on purpose
    "moment_utc": pa.array([datetime(2026, 1, 2, tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
    "decimal": pa.array([Decimal("1.25"), None, Decimal("-3.00")]),
    "decimal_without_null": pa.array([Decimal("-1E-30"), Decimal("12345678.1"), Decimal(-1)], pa.decimal128(38, 30)),
    "list": pa.array([[1, None], None, []]),
    "category": pa.array(["p", None, "p"]).dictionary_encode(),
}
TABLE = pa.table(COLUMNS)


@pytest.fixture(params=arrow.LIBRARIES, ids=str)
def library(request) -> arrow.ArrowLibrary:
    return arrow.LIBRARIES[request.param]()


def stream(table: pa.Table) -> bytes:
    return arrow.PyArrow().write(table)


def values(library: arrow.ArrowLibrary, content: bytes) -> dict[str, list[object]]:
    names, batches = library.read(io.BytesIO(content))
    columns: dict[str, list[object]] = {name: [] for name in names}
    for batch in batches:
        for index, name in enumerate(names):
            columns[name] += batch(index)
    return columns


@pytest.mark.parametrize("column", COLUMNS)
def test_every_library_reads_the_same_values(library, column):
    assert values(library, stream(TABLE.select([column]))) == {column: TABLE.column(column).to_pylist()}


def test_batches_are_joined(library):
    batch = pa.record_batch({"a": [1, None]})
    assert values(library, stream(pa.Table.from_batches([batch, batch, batch]))) == {"a": [1, None] * 3}


def test_table_without_rows_has_its_columns(library):
    empty = stream(TABLE.slice(0, 0))
    assert values(library, empty) == {name: [] for name in COLUMNS}


def test_stream_that_arrives_in_crumbs(library):
    content = stream(TABLE.select(["text"]))
    crumbs = (content[start : start + 7] for start in range(0, len(content), 7))
    names, batches = library.read(open_pieces(crumbs))
    assert (names, [value for batch in batches for value in batch(0)]) == (("text",), ["x", None, "ü"])


@pytest.mark.parametrize("reader", arrow.LIBRARIES)
def test_what_one_library_writes_the_others_read(library, reader):
    written = library.write(TABLE.select(["integer", "number", "text"]))
    assert values(arrow.LIBRARIES[reader](), written) == TABLE.select(["integer", "number", "text"]).to_pydict()


def test_without_any_library_the_answer_says_which_to_install(monkeypatch):
    monkeypatch.setattr(arrow, "LIBRARIES", {})
    with pytest.raises(ArrowLibraryMissing, match=r"add nanoarrow .* requirements.txt"):
        Table.from_ipc(stream(TABLE)).column("text")


@pytest.mark.parametrize("name", arrow.LIBRARIES)
def test_table_works_with_each_library_alone(monkeypatch, name):
    monkeypatch.setattr(arrow, "LIBRARIES", {name: arrow.LIBRARIES[name]})
    table = Table.from_ipc(stream(TABLE))
    assert table.columns == tuple(COLUMNS)
    assert len(table) == 3
    assert table.column("text") == ["x", None, "ü"]
    assert sum(len(batch["integer"]) for batch in table.batches()) == 3
    assert pa.table(table).column("integer").to_pylist() == [1, None, -(2**63)]


def test_nested_decimals_are_refused_rather_than_misread():
    content = stream(pa.table({"a": [[Decimal("-1.5")]]}))
    with pytest.raises(ArrowLibraryMissing, match="misreads decimals"):
        values(arrow.NanoArrow(), content)
    assert values(arrow.PyArrow(), content) == {"a": [[Decimal("-1.5")]]}


def test_wide_decimals_keep_every_digit():
    wide = pa.table({"a": pa.array([None, Decimal(-(10**60)), Decimal(1)], pa.decimal256(70, 2))})
    assert values(arrow.NanoArrow(), stream(wide)) == wide.to_pydict()


def test_pyarrow_takes_a_table_as_it_comes_and_once():
    content, fetched = stream(TABLE), []

    def fetch():
        fetched.append(1)
        return iter([content[:1000], content[1000:]])

    table = Table(fetch)
    assert table.arrow().equals(TABLE)
    assert table.arrow() is table.arrow()
    assert fetched == [1]
    assert "ipc" not in vars(table)  # the whole was not held twice


def test_what_ends_a_read_reaches_who_asked_for_arrow():
    def fetch():
        yield stream(TABLE)[:1000]
        raise DataUnreadable("the table changed while it was being read")

    with pytest.raises(DataUnreadable):
        Table(fetch).arrow()


def test_a_large_table_is_written_some_rows_at_a_time_and_anew_when_that_is_wanted():
    table = pa.table({"age": range(2_000_000), "sex": ["f", "m"] * 1_000_000})
    content = arrow.content(table)
    pieces = list(content())
    assert max(map(len, pieces)) <= 1.1 * arrow.PIECE_BYTES
    assert pa.ipc.open_stream(b"".join(pieces)).read_all().equals(table)
    assert list(content()) == pieces


def test_a_stream_that_can_be_read_once_is_written_as_often_as_the_node_asks():
    table = pa.table({"age": [1, 2]})
    content = arrow.content(table.to_reader())
    for _ in range(2):
        assert pa.ipc.open_stream(b"".join(content())).read_all().equals(table)


@pytest.mark.parametrize("rows", [0, 3])
def test_every_librarys_table_is_written(rows):
    columns = {"age": [1, 2, 3][:rows]}
    table = pa.table(columns, schema=pa.schema({"age": pa.int64()}))
    frames = (table, table.to_pandas(), pl.from_arrow(table), nanoarrow.ArrayStream(table))
    for frame in frames:
        assert pa.ipc.open_stream(b"".join(arrow.content(frame)())).read_all().to_pydict() == columns
