"""Queries that are meant to wear out the node: each ends in a refusal, in time, in memory, and in a process of its own.

None of these may be executed in a test's own process: some of them end the process that reads them.
"""

import asyncio

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from folkmoot.node.data.confinement import QUERY_BYTES
from folkmoot.node.data.sources import Source
from folkmoot.trust.errors import FolkmootError
from tests.integration.node.data.reading import query
from tests.polling import until

READER = "folkmoot.node.data.reader"
DEEP = 20_000
BOMBS = {
    "nested parentheses": f"SELECT {'(' * DEEP}1{')' * DEEP}",
    "nested lists": f"SELECT {'[' * DEEP}1{']' * DEEP}",
    "nested queries": f"SELECT {'(SELECT ' * 5000}1{')' * 5000}",
    "a path that the parser does not finish": f"SELECT a{'.a' * 40_000}",
    "one function that can not be interrupted": "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
    "one value larger than what is counted": "SELECT length(printf('%2000000000d', 1))",
    "rows without end": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t",
    "every row with every other": "SELECT a.x FROM bombed a, bombed b, bombed c, bombed d",
    "a value that grows": "WITH RECURSIVE t(s) AS (SELECT 'x' UNION ALL SELECT s || s FROM t) SELECT max(length(s)) FROM t",
    "a row that fails behind many": "SELECT CASE WHEN x = 999999 THEN 'no number'::INT ELSE x END FROM bombed",
}


@pytest.fixture
def bombed(serve, tmp_path):
    pq.write_table(pa.table({"x": range(1_000_000)}), tmp_path / "x.parquet")
    return serve(bombed=Source("parquet", tmp_path / "x.parquet", queries=True, timeout_seconds=1))


async def test_every_bomb_is_a_refused_query_and_nothing_that_the_data_owner_is_told(bombed, capsys):
    ends = await asyncio.gather(*(query(bombed, "bombed", sql) for sql in BOMBS.values()), return_exceptions=True)
    assert {
        name: end.reason_name if isinstance(end, FolkmootError) else end for name, end in zip(BOMBS, ends, strict=True)
    } == dict.fromkeys(BOMBS, "QUERY_INVALID")
    assert "data.unreadable" not in capsys.readouterr().out
    answer = await query(bombed, "bombed", "SELECT count(*) AS n FROM bombed")
    assert answer.to_pylist() == [{"n": 1_000_000}]


async def test_what_the_engine_does_not_count_is_held_by_the_kernel(bombed):
    answer = asyncio.create_task(query(bombed, "bombed", BOMBS["one function that can not be interrupted"]))
    await until(lambda: any(holds_a_query(child) for child in psutil.Process().children()))
    with pytest.raises(FolkmootError):
        await answer


def holds_a_query(child: psutil.Process) -> bool:
    """Tell whether a child of the tests is one that reads, and is held."""
    try:
        return READER in child.cmdline() and child.rlimit(psutil.RLIMIT_DATA)[1] == QUERY_BYTES
    except psutil.NoSuchProcess:
        return False
