"""An algorithm that may write queries of its own tries to get at more than its table; each attempt would succeed with a plain engine."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import grpc.aio
import pytest
import structlog

from folkmoot.node.data.sources import Source
from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.service import Proxy
from folkmoot.transport.status import error_from_rpc
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub
from tests.integration.node.conftest import directory
from tests.integration.node.fakes import FakeRun

__all__ = ["directory"]

SECRET = "the node's key"
ENDLESS = "WITH RECURSIVE t(n) AS (SELECT 1::BIGINT UNION ALL SELECT n + 1 FROM t) SELECT max(n) FROM t"
ATTEMPTS = {
    "read a file": "SELECT content FROM read_text('{folder}/node.pem')",
    "read a file by its name": "SELECT * FROM '{folder}/other.csv'",
    "read a table of another's": "SELECT * FROM read_csv('{folder}/other.csv')",
    "list files": "SELECT * FROM glob('{folder}/*')",
    "read a file within an expression": "SELECT (SELECT content FROM read_text('{folder}/node.pem')) FROM patients",
    "read a file in a CTE": "WITH x AS (SELECT content FROM read_text('{folder}/node.pem')) SELECT * FROM x",
    "attach a database": "ATTACH '{folder}/new.db' AS other",
    "write a file": "COPY (SELECT 1) TO '{folder}/out.csv'",
    "write all": "EXPORT DATABASE '{folder}/export'",
    "change a setting": "SET threads = 1",
    "see the settings": "SELECT name, value FROM duckdb_settings()",
    "see the environment": "SELECT getenv('HOME')",
    "write to the table": "DELETE FROM patients",
    "two statements": "SELECT 1; SELECT content FROM read_text('{folder}/node.pem')",
    "a query in a query's text": "SELECT * FROM query('SELECT content FROM read_text(''{folder}/node.pem'')')",
    "a statement in a comment's clothes": "SELECT * FROM patients--\n; ATTACH '{folder}/new.db'",
}
ELSEWHERE = {
    "a server's files": "SELECT pg_read_file('/etc/passwd')",
    "an extension": "INSTALL httpfs",
    "another machine": "SELECT * FROM read_csv('https://192.0.2.1/x.csv')",
}
"""What has no control here: they need another database, or a network."""


@dataclass
class Attack:
    """An algorithm's side of a run that may query one label."""

    stub: Any
    folder: Path

    async def query(self, sql: str) -> bytes:
        request = pb.QueryRequest(label="patients", sql=sql.replace("{folder}", str(self.folder)))
        return b"".join([frame.data async for frame in self.stub.Query(request)])

    async def read(self, label: str, *columns: str) -> bytes:
        request = pb.ReadTableRequest(label=label, columns=columns)
        return b"".join([frame.data async for frame in self.stub.ReadTable(request)])

    async def refused(self, sql: str) -> str:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await self.query(sql)
        assert SECRET not in str(refusal.value)
        return error_from_rpc(refusal.value).reason_name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "node.pem").write_text(SECRET)
    (tmp_path / "other.csv").write_text("x\n1\n")
    (tmp_path / "patients.csv").write_text("age\n40\n50\n")
    return tmp_path


@pytest.fixture
async def attack(directory: Path, folder: Path) -> AsyncIterator[Attack]:
    tables = SourceTables({"patients": Source("csv", folder / "patients.csv", queries=True, timeout_seconds=1)})
    proxy, run = Proxy(), FakeRun("0123456789ab", labels=("patients",))
    await proxy.open(run, tables, directory / run.run_name)
    async with grpc.aio.insecure_channel(f"unix:{directory / run.run_name / 'proxy.sock'}") as channel:
        yield Attack(ProxyServiceStub(channel), folder)
    await proxy.close(run.run_name)
    await tables.close()


@pytest.mark.parametrize("sql", [*ATTEMPTS.values(), *ELSEWHERE.values()], ids=[*ATTEMPTS, *ELSEWHERE])
async def test_query_that_wants_more_than_its_table_is_refused(attack: Attack, sql: str):
    before = sorted(attack.folder.iterdir())
    with structlog.testing.capture_logs() as logs:
        reason = await attack.refused(sql)
    assert reason in ("QUERY_INVALID", "QUERY_NOT_ALLOWED")
    assert [each["reason"] for each in logs if each["event"] == "proxy.refused"] == [f"ERROR_REASON_{reason}"]
    assert sorted(attack.folder.iterdir()) == before


@pytest.mark.parametrize("name", ATTEMPTS)
def test_query_would_succeed_with_a_plain_engine(folder: Path, name: str):
    with duckdb.connect() as plain:
        plain.execute(f"CREATE TABLE patients AS SELECT * FROM read_csv('{folder}/patients.csv')")
        if name == "see the environment":
            pytest.skip("only the engine's command line knows getenv")
        plain.execute(ATTEMPTS[name].replace("{folder}", str(folder)))


async def test_query_without_end_is_ended_and_others_are_answered(attack: Attack):
    endless = asyncio.create_task(attack.refused(ENDLESS))
    assert await attack.query("SELECT avg(age) FROM patients")
    assert await endless == "QUERY_INVALID"


def test_query_without_end_has_none_with_a_plain_engine():
    with duckdb.connect() as plain:
        ending = threading.Timer(1.5, plain.interrupt)
        ending.start()
        with pytest.raises(duckdb.InterruptException):
            plain.execute(ENDLESS)
        ending.join()


@pytest.mark.parametrize("label", ["../node.pem", "secret", "patients'; ATTACH 'x"])
async def test_label_that_is_not_the_tasks_is_not_found(attack: Attack, label: str):
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await attack.read(label)
    assert error_from_rpc(refusal.value).reason_name in ("TABLE_NOT_FOUND", "INVALID_FIELD")


@pytest.mark.parametrize("column", ["age\" FROM read_text('/etc/passwd') --", "*", "age, (SELECT 1)"])
async def test_column_that_is_a_piece_of_a_query_is_not_found(attack: Attack, column: str):
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await attack.read("patients", column)
    assert error_from_rpc(refusal.value).reason_name in ("COLUMN_NOT_FOUND", "INVALID_FIELD")
