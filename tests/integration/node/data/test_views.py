"""What data owners put between their data and algorithms: OMOP views, views that join, sources of packages; and what a database is told."""

import asyncio
import os
import sqlite3
import sys
import venv
from pathlib import Path

import docker
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from folkmoot.node.config import DataBlock
from folkmoot.node.data import readers as readers_module
from folkmoot.node.data.sources import Source, sources_of
from folkmoot.trust.errors import FolkmootError
from tests.integration.node.data.reading import condition, open_here, query, read
from tests.integration.node.data.servers import Server

CDM = """
CREATE TABLE concept (concept_id INTEGER, concept_name VARCHAR(255));
INSERT INTO concept VALUES (8507, 'MALE'), (8532, 'FEMALE'), (201826, 'Type 2 diabetes mellitus');
CREATE TABLE person (person_id INTEGER, gender_concept_id INTEGER, year_of_birth INTEGER, month_of_birth INTEGER,
  race_concept_id INTEGER, ethnicity_concept_id INTEGER, person_source_value VARCHAR(50));
INSERT INTO person VALUES (1, 8507, 1950, 1, 0, 0, 'MRN-4711'), (2, 8532, 1980, NULL, 0, 0, 'MRN-4712');
CREATE TABLE condition_occurrence (condition_occurrence_id INTEGER, person_id INTEGER, condition_concept_id INTEGER,
  condition_start_date DATE, condition_end_date DATE, condition_type_concept_id INTEGER, visit_occurrence_id INTEGER,
  condition_source_value VARCHAR(50));
INSERT INTO condition_occurrence VALUES (10, 1, 201826, '2020-01-02', NULL, 0, NULL, 'E11.9');
"""


def labels(database: DataBlock) -> dict[str, Source]:
    return sources_of(
        {
            "records": database,
            "cdm": DataBlock(source="omop", of=("records",), tables=("person", "condition_occurrence")),
        }
    )


def in_postgresql(folder: Path, request: pytest.FixtureRequest) -> dict[str, Source]:
    server: Server = request.getfixturevalue("postgres")
    server.execute(f"CREATE DATABASE omop;\n\\c omop\n{CDM}")
    (folder / "password").write_text("owner")
    url = f"postgresql://owner@127.0.0.1:{server.port}/omop"
    return labels(DataBlock(source="postgres", url=url, password_file=folder / "password"))


def in_sqlite(folder: Path, request: pytest.FixtureRequest) -> dict[str, Source]:
    connection = sqlite3.connect(folder / "cdm.sqlite")
    connection.executescript(CDM)
    connection.close()
    return labels(DataBlock(source="sqlite", path=str(folder / "cdm.sqlite")))


def in_duckdb(folder: Path, request: pytest.FixtureRequest) -> dict[str, Source]:
    with duckdb.connect(str(folder / "cdm.duckdb")) as connection:
        connection.execute(CDM)
    return labels(DataBlock(source="duckdb", path=str(folder / "cdm.duckdb")))


def in_parquet(folder: Path, request: pytest.FixtureRequest) -> dict[str, Source]:
    with duckdb.connect() as connection:
        connection.execute(CDM)
        for name in ("person", "concept", "condition_occurrence"):
            connection.table(name).to_parquet(str(folder / f"{name}.parquet"))
    return labels(DataBlock(source="parquet", path=str(folder)))


@pytest.mark.parametrize(
    "make",
    [pytest.param(in_postgresql, marks=pytest.mark.needs_postgres), in_sqlite, in_duckdb, in_parquet],
    ids=lambda make: make.__name__,
)
async def test_omop_tables_have_names_beside_their_numbers_and_no_codes_of_the_hospital(serve, tmp_path, make, request):
    tables = serve(**make(tmp_path, request))
    people = await read(tables, "cdm.person", where=[condition("year_of_birth", "LESS", 1960)])
    assert people.select(["person_id", "gender_concept_name", "year_of_birth"]).to_pylist() == [
        {"person_id": 1, "gender_concept_name": "MALE", "year_of_birth": 1950}
    ]
    assert "MRN-4711" not in str(people.to_pylist())
    [found] = (await read(tables, "cdm.condition_occurrence")).to_pylist()
    assert found["condition_concept_name"] == "Type 2 diabetes mellitus"
    assert str(found["condition_start_date"]) == "2020-01-02"


@pytest.mark.needs_postgres
async def test_role_that_can_write_is_warned_of(serve, postgres, tmp_path, monkeypatch):
    monkeypatch.setenv("RECORDS_PASSWORD", "owner")
    postgres.execute("CREATE TABLE writable AS SELECT 1 AS x")
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    tables = serve(writable=Source("postgres", table="writable", url=url, password_variable="RECORDS_PASSWORD"))
    _, [warning] = await tables.inspect("writable")
    assert "owner can write" in warning


@pytest.mark.needs_postgres
async def test_view_can_not_write_whatever_its_role_may(serve, postgres, monkeypatch):
    monkeypatch.setenv("RECORDS_PASSWORD", "owner")
    postgres.execute("CREATE SEQUENCE counter")
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    database = Source("postgres", url=url, password_variable="RECORDS_PASSWORD")
    tables = serve(view=Source("view", of={"records": database}, sql="SELECT nextval('counter') AS x"))
    with pytest.raises(FolkmootError, match="can't be read"):
        await read(tables, "view")
    assert postgres.execute("SELECT is_called FROM counter").strip() == "f"


@pytest.mark.needs_postgres
async def test_postgresql_types_survive(serve, postgres, monkeypatch):
    monkeypatch.setenv("RECORDS_PASSWORD", "owner")
    postgres.execute(
        "CREATE TYPE stage AS ENUM ('I', 'II'); CREATE TABLE kinds AS SELECT 'II'::stage AS stage, 1.5::numeric AS free, "
        "'{1,2}'::int[] AS list, '\\x00'::bytea AS bytes, '2020-01-02 03:04:05+02'::timestamptz AS moment, "
        "'a56e875a-14f6-428e-9ce2-32b6a25dc35f'::uuid AS id, '{\"a\": 1}'::jsonb AS json, 2::smallint AS small, '01:02:03'::time AS clock"
    )
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    tables = serve(kinds=Source("postgres", table="kinds", url=url, password_variable="RECORDS_PASSWORD"))
    table = await read(tables, "kinds", where=[condition("stage", "EQUAL", "II")])
    assert {field.name: str(field.type) for field in table.schema} == {
        "stage": "dictionary<values=string, indices=int32, ordered=0>",
        "free": "double",
        "list": "list<l: int32>",
        "bytes": "binary",
        "moment": "timestamp[us, tz=UTC]",
        "id": "string",
        "json": "string",
        "small": "int16",
        "clock": "time64[us]",
    }
    assert table["stage"].to_pylist() == ["II"]


@pytest.mark.needs_mariadb
async def test_mariadb_types_survive(serve, mariadb, monkeypatch):
    mariadb.execute(
        "CREATE DATABASE kinds; USE kinds; CREATE TABLE kinds (tiny TINYINT, yes TINYINT(1), large BIGINT UNSIGNED, stage ENUM('I', 'II'), "
        "bytes BLOB, moment TIMESTAMP NULL, clock TIME, price DECIMAL(38, 2), single FLOAT); SET time_zone = '+00:00';"
        "INSERT INTO kinds VALUES (-1, 1, 18446744073709551615, 'II', x'00', '2020-01-02 03:04:05', '01:02:03', 1.5, 1.5);"
        "CREATE USER kinds@'127.0.0.1'; GRANT SELECT, INSERT ON kinds.* TO kinds@'127.0.0.1';"
    )
    tables = serve(kinds=Source("mariadb", table="kinds", url=f"mariadb://kinds@127.0.0.1:{mariadb.port}/kinds"))
    table = await read(tables, "kinds")
    assert [str(field.type) for field in table.schema] == [
        *(
            "int8",
            "bool",
            "uint64",
            "string",
            "binary",
            "timestamp[us, tz=UTC]",
            "time64[us]",
            "decimal128(38, 2)",
            "float",
        )
    ]
    assert table["large"].to_pylist() == [2**64 - 1]
    _, [warning] = await tables.inspect("kinds")
    assert "kinds can write" in warning


async def test_categories_and_nested_types_of_parquet_survive(serve, tmp_path):
    table = pa.table(
        {
            "stage": pa.array(["I", "II", None]).dictionary_encode(),
            "nested": pa.array([{"a": [1, None], "b": "x"}, None, {"a": [], "b": None}]),
        }
    )
    pq.write_table(table, tmp_path / "kinds.parquet")
    tables = serve(kinds=Source("parquet", tmp_path / "kinds.parquet"))
    received = await read(tables, "kinds", where=[condition("stage", "NOT_EQUAL", "III")])
    assert received.to_pylist() == table.slice(0, 2).to_pylist()
    assert received.schema.field("stage").type == table.schema.field("stage").type
    assert received.to_pandas()["stage"].dtype == "category"


async def test_query_of_a_view_can_not_reach_behind_it(serve, tmp_path):
    """A name that the query defines in one place must not mean the owner's table in another."""
    (tmp_path / "patients.csv").write_text("id,age\n1,20\n2,70\n")
    patients = Source("csv", tmp_path / "patients.csv")
    tables = serve(
        adults=Source("view", of={"patients": patients}, sql="SELECT * FROM patients WHERE age > 60", queries=True)
    )
    assert (await query(tables, "adults", "SELECT * FROM adults")).to_pylist() == [{"id": 2, "age": 70}]
    for sql in (
        "SELECT * FROM patients",
        "SELECT * FROM patients, (WITH patients AS (SELECT 1 AS one) SELECT * FROM patients) AS shadow",
        f"SELECT * FROM '{tmp_path}/patients.csv'",
        f"SELECT * FROM read_csv('{tmp_path}/patients.csv')",
    ):
        with pytest.raises(FolkmootError) as refused:
            await query(tables, "adults", sql)
        assert refused.value.reason_name == "QUERY_INVALID"


async def test_view_is_one_select(tmp_path):
    (tmp_path / "x.csv").write_text("x\n1\n")
    for sql in ("SELECT 1; SELECT 2", "CREATE TABLE y AS SELECT 1", f"COPY x TO '{tmp_path}/out'", ""):
        with pytest.raises(ValueError, match="one SELECT"):
            await open_here(Source("view", of={"x": Source("csv", tmp_path / "x.csv")}, sql=sql or "--"), "v")


async def test_query_that_never_ends_is_ended(serve, tmp_path):
    (tmp_path / "x.csv").write_text("x\n1\n")
    tables = serve(x=Source("csv", tmp_path / "x.csv", queries=True, timeout_seconds=1))
    bomb = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t"
    with pytest.raises(FolkmootError) as refused:
        await query(tables, "x", bomb)
    assert refused.value.reason_name == "QUERY_INVALID"


async def test_reader_of_a_file_can_open_no_socket(tmp_path):
    """A library that reads files has no business in the network."""
    script = (
        "import socket\nfrom folkmoot.node.data.confinement import forbid_network\nassert forbid_network()\n"
        "for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):\n"
        "    try:\n        socket.socket(family)\n    except PermissionError:\n        continue\n    raise SystemExit(7)\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await child.wait() == 0


@pytest.mark.needs_docker
async def test_volume_is_read_where_the_engine_keeps_it(serve):
    engine = docker.APIClient()
    volume = engine.create_volume(labels={"folkmoot": "test"})
    try:
        if not os.access(volume["Mountpoint"], os.W_OK):
            pytest.skip("only who may read the engine's folders can offer its volumes")
        (Path(volume["Mountpoint"]) / "people.csv").write_text("id\n1\n")
        tables = serve(
            people=Source("csv", f"volume:{volume['Name']}/people.csv"),
            gone=Source("csv", "volume:folkmoot-no-such-volume/people.csv"),
        )
        assert (await read(tables, "people")).to_pydict() == {"id": [1]}
        with pytest.raises(FolkmootError, match="'gone' can't be read"):
            await read(tables, "gone")
    finally:
        engine.remove_volume(volume["Name"])
        engine.close()


async def test_source_of_a_package_is_read_like_any_other(serve, tmp_path, monkeypatch):
    python = environment_with_package(tmp_path)
    monkeypatch.setattr(readers_module, "_COMMAND", (str(python), *readers_module._COMMAND[1:]))
    monkeypatch.syspath_prepend(tmp_path / "package")
    tables = serve(visits=Source("counting", options={"rows": "5"}))
    table = await read(tables, "visits", "number", where=[condition("number", "GREATER", 2)])
    assert table.to_pydict() == {"number": [3, 4]}
    described, warnings = await tables.inspect("visits")
    assert [(column.name, column.type) for column in described.columns] == [("number", "int64")]
    assert warnings == ["only an example"]


def environment_with_package(folder: Path) -> Path:
    """An environment of its own, in which what is installed here is there too, and one package that adds a source."""
    package = folder / "package"
    (package / "counting-1.0.dist-info").mkdir(parents=True)
    (package / "counting-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: counting\nVersion: 1.0\n")
    (package / "counting-1.0.dist-info/entry_points.txt").write_text(
        "[folkmoot.sources]\ncounting = counting:open_table\n"
    )
    (package / "counting.py").write_text(COUNTING)
    venv.create(folder / "environment", with_pip=False, symlinks=True)
    [site] = (folder / "environment/lib").glob("python*/site-packages")
    (site / "here.pth").write_text(
        "\n".join(path for path in [str(package), *sys.path] if path and Path(path).is_dir())
    )
    return folder / "environment/bin/python"


COUNTING = """
import pyarrow as pa


class Counting:
    schema = pa.schema([("number", pa.int64())])

    def __init__(self, settings):
        self.rows = int(settings.options["rows"])

    def read(self, columns, conditions):
        batch = pa.record_batch([pa.array(range(self.rows))], schema=self.schema)
        return pa.RecordBatchReader.from_batches(self.schema, [batch]).cast(self.schema)

    def warnings(self):
        return ["only an example"]


def open_table(settings):
    return Counting(settings)
"""
