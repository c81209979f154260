"""One table in every kind of source: the same values, the same answers to the same conditions, and the types that the documents promise."""

import asyncio
import csv
import datetime as dt
import http.server
import json
import re
import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import duckdb
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pyoxigraph
import pytest

from folkmoot.node.data.filters import Refused
from folkmoot.node.data.sources import Source
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.proxy_service_pb2 import Condition, ReadTableRequest, Table
from tests.integration.node.data.reading import condition, open_here, query, read
from tests.integration.node.data.servers import PASSWORD

COLUMNS = ("id", "na me", "born", "height", "alive", "seen", "price")
ROWS = [
    (1, "Ada", dt.date(1815, 12, 10), 1.65, False, dt.datetime.fromisoformat("1843-09-01T10:00"), Decimal("1.10")),
    (2, "grace", dt.date(1906, 12, 9), None, True, None, None),
    (3, None, None, 1.7, None, dt.datetime.fromisoformat("2020-02-29T23:59:59"), Decimal("-20.25")),
    (
        4,
        "Zoë %s '; DROP TABLE people; --\\",
        dt.date(2000, 1, 1),
        2.0,
        True,
        dt.datetime.fromisoformat("2000-01-01T00:00:01"),
        Decimal("0.00"),
    ),
]
TYPES = {
    "id": pa.int64(),
    "na me": pa.string(),
    "born": pa.date32(),
    "height": pa.float64(),
    "alive": pa.bool_(),
    "seen": pa.timestamp("us"),
    "price": pa.decimal128(10, 2),
}
CREATE = (
    'CREATE TABLE people (id BIGINT, "na me" VARCHAR(100), born DATE, height DOUBLE PRECISION, alive BOOLEAN, '
    "seen TIMESTAMP, price DECIMAL(10, 2))"
)

CONDITIONS = [
    ([condition("id", "EQUAL", 2)], [2]),
    ([condition("id", "IN", 1, 4, 2**40)], [1, 4]),
    ([condition("id", "GREATER", 1.5), condition("id", "LESS_OR_EQUAL", 3)], [2, 3]),
    ([condition("na me", "EQUAL", "Ada")], [1]),
    ([condition("na me", "EQUAL", "ada")], []),
    ([condition("na me", "NOT_EQUAL", "ADA")], [1, 2, 4]),
    ([condition("na me", "LESS", "a")], [1, 4]),
    ([condition("na me", "IN", "grace", ROWS[3][1], "' OR 1=1 --", "\0")], [2, 4]),
    ([condition("na me", "IS_NULL")], [3]),
    ([condition("born", "LESS", "1906-12-09")], [1]),
    ([condition("born", "IN", "1906-12-09", "2000-01-01")], [2, 4]),
    ([condition("seen", "GREATER_OR_EQUAL", "2000-01-01T00:00:01")], [3, 4]),
    ([condition("height", "GREATER", 1.65)], [3, 4]),
    ([condition("height", "NOT_EQUAL", 2)], [1, 3]),
    ([condition("alive", "EQUAL", True)], [2, 4]),
    ([condition("price", "EQUAL", 1.1)], [1]),
    ([condition("price", "LESS", 0)], [3]),
    ([condition("price", "IS_NOT_NULL"), condition("alive", "EQUAL", False)], [1]),
]
JOINED = "SELECT count(*) AS n, max(b.id) AS most FROM people a JOIN people b USING (id) WHERE a.alive"


@dataclass(frozen=True)
class Sample:
    """The table in one kind of source, and where its types are others than TYPES."""

    source: Source
    types: dict[str, pa.DataType]
    secrets: tuple[str, ...] = ()


def arrow_table() -> pa.Table:
    columns = [pa.array(column, kind) for column, kind in zip(zip(*ROWS, strict=True), TYPES.values(), strict=True)]
    return pa.table(columns, names=COLUMNS)


def text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def csv_file(folder: Path, request: pytest.FixtureRequest) -> Sample:
    with (folder / "people.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *([text(value) for value in row] for row in ROWS)])
    return Sample(Source("csv", folder / "people.csv", {"price": "DECIMAL(10, 2)"}), {})


def parquet_parts(folder: Path, request: pytest.FixtureRequest) -> Sample:
    (folder / "parts").mkdir()
    for index in (0, 2):
        pq.write_table(arrow_table().slice(index, 2), folder / f"parts/{index}.parquet")
    (folder / "parts/readme.txt").write_text("not a part")
    return Sample(Source("parquet", folder / "parts"), {})


def json_lines(folder: Path, request: pytest.FixtureRequest) -> Sample:
    lines = [json.dumps(dict(zip(COLUMNS, row, strict=True)), default=str) for row in ROWS]
    (folder / "people.ndjson").write_text("\n".join(lines))
    return Sample(Source("json", folder / "people.ndjson", {"price": "DECIMAL(10,2)"}), {})


def json_array(folder: Path, request: pytest.FixtureRequest) -> Sample:
    lines = Path(json_lines(folder, request).source.path).read_text().splitlines()
    (folder / "people.json").write_text(f"[{', '.join(lines)}]")
    return Sample(Source("json", folder / "people.json", {"price": "DECIMAL(10,2)"}), {})


def workbook(folder: Path, request: pytest.FixtureRequest) -> Sample:
    book = openpyxl.Workbook()
    book.create_sheet("people")
    for row in (COLUMNS, *ROWS):
        book["people"].append(
            [str(value) if isinstance(value, dt.date) and value.year < 1900 else value for value in row]
        )
    book.save(folder / "people.xlsx")
    types = {"price": "DECIMAL(10, 2)", "born": "DATE", "seen": "TIMESTAMP"}  # Excel's days begin in 1900
    return Sample(Source("excel", folder / "people.xlsx", types, table="people"), {})


def sqlite(folder: Path, request: pytest.FixtureRequest) -> Sample:
    with closing(sqlite3.connect(folder / "people.sqlite")) as connection:
        connection.execute(CREATE)
        rows = [tuple(value if isinstance(value, int | float | None) else str(value) for value in row) for row in ROWS]
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        connection.commit()
    return Sample(Source("sqlite", folder / "people.sqlite", table="people"), {})


def duckdb_file(folder: Path, request: pytest.FixtureRequest) -> Sample:
    with duckdb.connect(str(folder / "people.duckdb")) as connection:
        connection.execute(CREATE)
        connection.executemany("INSERT INTO people VALUES (?, ?, ?, ?, ?, ?, ?)", ROWS)
    return Sample(Source("duckdb", folder / "people.duckdb", table="people"), {})


def literal(value: object) -> str:
    if value is None or isinstance(value, bool | int | float | Decimal):
        return "NULL" if value is None else str(value).upper()
    return "'" + str(value).replace("'", "''") + "'"


def inserts() -> str:
    return "".join(f"INSERT INTO people VALUES ({', '.join(map(literal, row))});\n" for row in ROWS)


def postgresql(folder: Path, request: pytest.FixtureRequest) -> Sample:
    server = request.getfixturevalue("postgres")
    server.execute(
        f"CREATE DATABASE {folder.name};\n\\c {folder.name}\nCREATE SCHEMA clinic; SET search_path = clinic;\n{CREATE};\n{inserts()}"
        f"DROP ROLE IF EXISTS {folder.name}; CREATE ROLE {folder.name} LOGIN PASSWORD {literal(PASSWORD)};\n"
        f"GRANT USAGE ON SCHEMA clinic TO {folder.name}; GRANT SELECT ON people TO {folder.name};\n"
    )
    url = f"postgresql://{folder.name}@127.0.0.1:{server.port}/{folder.name}"
    return Sample(
        Source("postgres", table="people", schema="clinic", url=url, password_file=secret(folder)), {}, (PASSWORD,)
    )


def mariadb(folder: Path, request: pytest.FixtureRequest) -> Sample:
    server = request.getfixturevalue("mariadb")
    create = CREATE.replace('"', "`").replace("TIMESTAMP", "DATETIME")
    server.execute(
        f"CREATE DATABASE {folder.name}; USE {folder.name}; SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES');\n"
        f"{create};\n{inserts()}CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY {literal(PASSWORD)};\n"
        f"GRANT SELECT ON {folder.name}.* TO reader@'127.0.0.1';\n"
    )
    url = f"mariadb://reader@127.0.0.1:{server.port}/{folder.name}"
    return Sample(Source("mariadb", table="people", url=url, password_file=secret(folder)), {}, (PASSWORD,))


def secret(folder: Path) -> Path:
    (folder / "password").write_text(PASSWORD + "\n")
    return folder / "password"


def sparql(folder: Path, request: pytest.FixtureRequest) -> Sample:
    store = pyoxigraph.Store()
    for row in ROWS:
        subject = pyoxigraph.NamedNode(f"http://example.org/{row[0]}")
        for name, value in zip(COLUMNS, row, strict=True):
            if value is not None:
                stated = rdf(value)
                store.add(
                    pyoxigraph.Quad(
                        subject, pyoxigraph.NamedNode(f"http://example.org/{name.replace(' ', '_')}"), stated
                    )
                )
    optional = " ".join(
        f"OPTIONAL {{ ?s <http://example.org/{name.replace(' ', '_')}> ?{name.replace(' ', '_')} }}"
        for name in COLUMNS[1:]
    )
    names = " ".join(f"?{name.replace(' ', '_')}" for name in COLUMNS)
    sql = f"SELECT {names} WHERE {{ ?s <http://example.org/id> ?id {optional} }} ORDER BY ?id"
    port = serve_store(store, request)
    return Sample(Source("sparql", url=f"http://127.0.0.1:{port}/query", sql=sql), {"price": pa.decimal128(38, 10)})


def rdf(value: object) -> pyoxigraph.Literal:
    kind = {dt.date: "date", dt.datetime: "dateTime", Decimal: "decimal"}.get(type(value))
    if kind is None:
        return pyoxigraph.Literal(value)  # type: ignore[arg-type]
    written = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return pyoxigraph.Literal(written, datatype=pyoxigraph.NamedNode(f"http://www.w3.org/2001/XMLSchema#{kind}"))


def serve_store(store: pyoxigraph.Store, request: pytest.FixtureRequest) -> int:
    """Answer the SPARQL protocol's POST from a store, as Oxigraph does."""

    class Endpoint(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            [asked] = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["query"]
            solutions = store.query(asked)
            assert isinstance(solutions, pyoxigraph.QuerySolutions)
            body = solutions.serialize(format=pyoxigraph.QueryResultsFormat.JSON) or b""
            self.send_response(200)
            self.send_header("Content-Type", "application/sparql-results+json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    request.addfinalizer(stop)
    return server.server_port


def view(folder: Path, request: pytest.FixtureRequest) -> Sample:
    of = {"everybody": csv_file(folder, request).source}
    return Sample(Source("view", of=of, sql="SELECT * FROM everybody WHERE id < 100 ORDER BY id"), {})


def view_in_postgresql(folder: Path, request: pytest.FixtureRequest) -> Sample:
    sample = postgresql(folder, request)
    return Sample(
        Source("view", of={"everybody": sample.source}, sql="SELECT * FROM everybody WHERE id < 100;"),
        {},
        sample.secrets,
    )


def view_in_mariadb(folder: Path, request: pytest.FixtureRequest) -> Sample:
    sample = mariadb(folder, request)
    return Sample(
        Source(
            "view",
            of={"everybody": sample.source},
            sql="SELECT * FROM everybody WHERE `na me` IS NULL OR `na me` LIKE '%'",
        ),
        {},
        sample.secrets,
    )


def view_of_several(folder: Path, request: pytest.FixtureRequest) -> Sample:
    of = {"everybody": sqlite(folder, request).source, "wanted": csv_file(folder, request).source}
    return Sample(Source("view", of=of, sql="SELECT p.* FROM everybody p JOIN wanted w USING (id) ORDER BY id"), {})


SAMPLES = [
    csv_file,
    parquet_parts,
    json_lines,
    json_array,
    workbook,
    sqlite,
    duckdb_file,
    sparql,
    view,
    view_of_several,
    pytest.param(postgresql, marks=pytest.mark.needs_postgres),
    pytest.param(view_in_postgresql, marks=pytest.mark.needs_postgres),
    pytest.param(mariadb, marks=pytest.mark.needs_mariadb),
    pytest.param(view_in_mariadb, marks=pytest.mark.needs_mariadb),
]


@pytest.fixture(params=SAMPLES, ids=lambda make: make.__name__, scope="module")
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return request.param(tmp_path_factory.mktemp(request.param.__name__), request)


@pytest.fixture
def names(sample: Sample) -> dict[str, str]:
    """The columns as the source has them: variables of SPARQL have no spaces."""
    return {name: name.replace(" ", "_") if sample.source.kind == "sparql" else name for name in COLUMNS}


class TestEverySource:
    async def test_read_as_runs_read_it(self, serve, sample, names):
        """What needs the reading process, all at once: starting processes is what takes the time."""
        tables = serve(people=replace(sample.source, queries=True), closed=sample.source)
        answers: tuple[Any, ...] = await asyncio.gather(
            read(tables, "people", minimum_rows=4),
            tables.inspect("people"),
            read(tables, "people", where=[condition("id", "LESS", 4)], minimum_rows=4),
            query(tables, "people", JOINED),
            query(tables, "closed", "SELECT 1"),
            return_exceptions=True,
        )
        whole, described, too_few, answer, closed = answers
        self.check_values_and_types(whole.sort_by("id"), sample, names)
        self.check_description(described, whole)
        self.check_too_few_rows(too_few)
        assert answer.to_pylist() == [{"n": 2, "most": 4}]
        assert closed.reason_name == "QUERY_NOT_ALLOWED"

    @staticmethod
    def check_values_and_types(table: pa.Table, sample: Sample, names: dict[str, str]) -> None:
        assert table.column_names == list(names.values())
        assert [tuple(row.values()) for row in table.to_pylist()] == ROWS
        assert {name: table.schema.field(names[name]).type for name in COLUMNS} == TYPES | sample.types

    @staticmethod
    def check_description(described: tuple[Table, list[str]], table: pa.Table) -> None:
        description, warnings = described
        assert [(column.name, column.type) for column in description.columns] == [
            (field.name, str(field.type)) for field in table.schema
        ]
        assert warnings == []

    @staticmethod
    def check_too_few_rows(refused: FolkmootError) -> None:
        assert refused.reason_name == "TOO_FEW_ROWS"
        assert "4" in refused.message
        assert "3" not in refused.message

    async def test_conditions_and_columns_mean_the_same_everywhere(self, sample, names):
        read_here = await open_here(sample.source, "people")
        for where, ids in CONDITIONS:
            wanted = [
                Condition(column=names[one.column], comparison=one.comparison, values=one.values) for one in where
            ]
            table = read_here(ReadTableRequest(label="people", columns=["id"], where=wanted))
            assert sorted(table["id"].to_pylist()) == ids, where
        ada = [condition(names["na me"], "EQUAL", "Ada")]
        table = read_here(ReadTableRequest(label="people", columns=["alive", "id"], where=ada))
        assert table.to_pydict() == {"alive": [False], "id": [1]}
        with pytest.raises(Refused, match="no column nmae"):
            read_here(ReadTableRequest(label="people", columns=["nmae"]))
        with pytest.raises(Refused, match="born"):
            read_here(ReadTableRequest(label="people", where=[condition("born", "EQUAL", 1815)]))

    async def test_what_goes_wrong_tells_the_algorithm_nothing_and_the_log_no_secret(self, serve, sample, capsys):
        source = sample.source
        of = {name: replace(one, **broken(one)) for name, one in source.of.items()}
        source = replace(source, of=of) if of else replace(source, **broken(source))
        with pytest.raises(FolkmootError) as refused:
            await read(serve(people=source), "people")
        assert refused.value.reason_name == "DATA_UNREADABLE"
        assert refused.value.message == "table 'people' can't be read"
        log = capsys.readouterr().out
        assert "data.unreadable" in log
        assert not [one for one in sample.secrets if one in log]


def broken(source: Source) -> dict:
    """What makes a source unreadable."""
    if source.url:
        return {"url": re.sub(r":\d+/", ":1/", source.url), "table": source.table and "gone"}
    return {"path": Path(str(source.path) + "-gone")}
