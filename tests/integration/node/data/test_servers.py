"""Database servers that hang, change while they are read, or take too long; and what of a credential can be seen meanwhile."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pymysql
import pytest

from folkmoot.node.data.jobs import secrets_of
from folkmoot.node.data.mariadb import open_table as mariadb_table
from folkmoot.node.data.postgres import open_table as postgres_table
from folkmoot.node.data.sources import Source
from folkmoot.node.data.sql import back_quoted, double_quoted
from folkmoot.node.data.table_source import Condition, Settings
from folkmoot.trust.errors import FolkmootError
from tests.integration.node.data.reading import read
from tests.integration.node.data.servers import Server
from tests.polling import until

PASSWORD = "p@ss 'word' %20"
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%pg_sleep%'"


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def sleeping(kind: str, port: int, database: str, function: str, timeout_seconds: int) -> Source:
    scheme = {"postgres": "postgresql"}.get(kind, kind)
    url = f"{scheme}://sleeper@127.0.0.1:{port}/{database}"
    server = Source(kind, url=url, password_variable="SLEEPER_PASSWORD", timeout_seconds=timeout_seconds)
    return Source("view", of={"server": server}, sql=f"SELECT {function}(600) AS x", timeout_seconds=timeout_seconds)


@pytest.fixture
def sleeper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLEEPER_PASSWORD", PASSWORD)


@pytest.fixture
def on_postgres(postgres: Server, sleeper: None) -> Server:
    quoted = PASSWORD.replace("'", "''")
    postgres.execute(f"DROP ROLE IF EXISTS sleeper; CREATE ROLE sleeper LOGIN PASSWORD '{quoted}'")
    return postgres


@pytest.mark.needs_postgres
async def test_read_that_is_given_up_ends_in_the_process_and_on_the_server(serve, on_postgres):
    """The server is computing and would notice nothing; and while it does, the credential is in no place that others can see."""
    tables = serve(x=sleeping("postgres", on_postgres.port, "postgres", "pg_sleep", 600))
    reading = asyncio.create_task(read(tables, "x"))
    await until(lambda: on_postgres.execute(SLEEPING).strip() == "1")
    forms = list(secrets_of({"secret": PASSWORD, "url": "postgresql://sleeper@db", "of": []}))
    seen = [
        Path(f"/proc/{one.pid}/{name}").read_text()
        for one in psutil.Process().children()
        for name in ("cmdline", "environ")
    ]
    assert seen
    assert not [form for form in forms if any(form in text for text in seen)]
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await until(lambda: on_postgres.execute(SLEEPING).strip() == "0")


@pytest.mark.needs_postgres
def test_statement_that_takes_too_long_is_ended_by_postgresql(on_postgres):
    url = f"postgresql://sleeper@127.0.0.1:{on_postgres.port}/postgres"
    table = postgres_table(
        Settings("x", "postgres", url=url, secret=PASSWORD, sql="SELECT pg_sleep(600) AS x", timeout_seconds=1)
    )
    with pytest.raises(OSError, match="statement timeout"):
        table.read(["x"], ()).read_all()


@pytest.mark.needs_mariadb
def test_statement_that_takes_too_long_is_ended_by_mariadb(mariadb):
    mariadb.execute("CREATE OR REPLACE USER sleeper@'127.0.0.1'")
    url = f"mariadb://sleeper@127.0.0.1:{mariadb.port}/information_schema"
    settings = Settings("x", "mariadb", url=url, sql="SELECT SLEEP(600) AS x", timeout_seconds=1)
    with pytest.raises(pymysql.err.OperationalError, match="max_statement_time"):
        mariadb_table(settings).read(["x"], ()).read_all()


async def test_server_that_says_nothing_is_not_waited_for_longer_than_that(serve, silent, sleeper, capsys):
    tables = serve(x=sleeping("postgres", silent, "x", "pg_sleep", 1), y=sleeping("mariadb", silent, "x", "SLEEP", 1))
    ends = await asyncio.gather(read(tables, "x"), read(tables, "y"), return_exceptions=True)
    assert [str(end) for end in ends] == ["table 'x' can't be read", "table 'y' can't be read"]
    assert capsys.readouterr().out.count("longer than timeout_seconds") == 2


async def test_library_that_tells_the_whole_url_tells_no_credential(serve, sleeper, capsys):
    url = "postgresql://sleeper@[::1]x/records"
    with pytest.raises(FolkmootError):
        await read(serve(x=Source("postgres", table="x", url=url, password_variable="SLEEPER_PASSWORD")), "x")
    log = capsys.readouterr().out
    assert "sleeper:***@" in log
    assert "ss%20" not in log


@pytest.mark.needs_postgres
def test_all_reads_of_a_process_see_one_moment(postgres):
    """What is counted is what is given, and a table that is read twice is one table."""
    postgres.execute("CREATE TABLE growing AS SELECT 1 AS x")
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    table = postgres_table(Settings(label="growing", kind="postgres", table="growing", url=url, secret="owner"))
    postgres.execute("INSERT INTO growing VALUES (2)")
    assert [table.read(["x"], ()).read_all().num_rows for _ in range(2)] == [1, 1]


@pytest.mark.needs_postgres
def test_read_writes_nothing_whatever_its_role_may(postgres):
    postgres.execute("CREATE SEQUENCE written")
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    table = postgres_table(Settings("x", "postgres", url=url, secret="owner", sql="SELECT nextval('written') AS x"))
    with pytest.raises(pa.ArrowInvalid, match="read-only transaction"):
        table.read(["x"], ()).read_all()


@pytest.mark.needs_mariadb
@pytest.mark.parametrize("modes", ["", "ANSI_QUOTES", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT"])
def test_names_and_values_are_only_that_whatever_mariadb_is_set_to(mariadb, modes):
    hostile = [
        "\\",
        "'",
        "\\' OR 1=1 -- ",
        '"',
        '\\"',
        "`",
        "%s",
        "%%",
        "\u2028",
        "\U0001f600",
        "a\\\nb",
        "\x1a",
        ";--",
    ]
    mariadb.execute(
        f"SET GLOBAL sql_mode = '{modes}'; CREATE DATABASE IF NOT EXISTS hostile; DROP TABLE IF EXISTS hostile.t"
    )
    column = "a`b\"c'd%s\\e"
    name = back_quoted(column)
    mariadb.execute(f"CREATE TABLE hostile.t ({name} VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)")
    mariadb.execute("".join(f"INSERT INTO hostile.t VALUES (x'{one.encode().hex()}');" for one in hostile))
    mariadb.execute("CREATE OR REPLACE USER hostile@'127.0.0.1'; GRANT SELECT ON hostile.* TO hostile@'127.0.0.1'")
    table = mariadb_table(
        Settings("t", "mariadb", table="t", url=f"mariadb://hostile@127.0.0.1:{mariadb.port}/hostile")
    )
    found = [table.read([column], [Condition(column, "==", (one,))]).read_all()[column].to_pylist() for one in hostile]
    assert found == [[one] for one in hostile]
    every = table.read([column], [Condition(column, "in", tuple(hostile))]).read_all()
    assert every.num_rows == len(hostile)


@pytest.mark.needs_postgres
def test_names_and_values_are_only_that_in_postgresql(postgres):
    hostile = ["\\", "'", "\\' OR 1=1 -- ", '"', "$1", "{}", "\u2028", "\U0001f600", "a\\\nb", "\x1a", ";--", "[1]", ""]
    column = "a`b\"c'd%s\\e"
    postgres.execute(f"CREATE TABLE hostile ({double_quoted(column)} text)")
    inserts = "".join(
        f"INSERT INTO hostile VALUES (convert_from('\\x{one.encode().hex()}', 'UTF8'));" for one in hostile
    )
    postgres.execute(inserts)
    url = f"postgresql://owner@127.0.0.1:{postgres.port}/postgres"
    table = postgres_table(Settings("t", "postgres", table="hostile", url=url, secret="owner"))
    found = [table.read([column], [Condition(column, "==", (one,))]).read_all()[column].to_pylist() for one in hostile]
    assert found == [[one] for one in hostile]
    every = table.read([column], [Condition(column, "in", tuple(hostile))]).read_all()
    assert every.num_rows == len(hostile)
