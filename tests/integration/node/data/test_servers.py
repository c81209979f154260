"""Database servers that hang, change while they are read, or take too long; and what of a credential can be seen meanwhile."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pymysql
import pytest

from folkmoot.node.data.jobs import secrets_of
from folkmoot.node.data.mariadb import open_table as mariadb_table
from folkmoot.node.data.postgres import open_table as postgres_table
from folkmoot.node.data.sources import Source
from folkmoot.node.data.table_source import Settings
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
