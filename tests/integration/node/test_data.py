"""Tables as runs get them: whole, typed, filtered at the source, from a child that has nothing to give away."""

import asyncio
import datetime as dt
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from decimal import Decimal
from pathlib import Path

import grpc.aio
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from folkmoot.node.data import readers as readers_module
from folkmoot.node.data.engine import open_engine, shut_in
from folkmoot.node.data.opening import open_table
from folkmoot.node.data.readers import Child, Readers
from folkmoot.node.data.sources import Source, SourceKind
from folkmoot.node.data.table_source import Settings
from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.service import Proxy
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub
from tests.integration.node.fakes import FakeRun
from tests.polling import until

PEOPLE = "name,age,born,height,alive,seen\nAda,36,1815-12-10,1.65,false,1843-09-01 10:00:00\nGrace,,1906-12-09,,true,\n"


@pytest.fixture
async def serve() -> AsyncIterator:
    """Serve files as tables, each by its name without suffix."""
    opened: list[SourceTables] = []

    def serve(*paths: Path, **types: str) -> SourceTables:
        kinds = {path: SourceKind(path.suffix[1:]) for path in paths}
        opened.append(SourceTables({path.stem: Source(kinds[path], path, types) for path in paths}))
        return opened[-1]

    yield serve
    for tables in opened:
        await tables.close()


async def read(tables: SourceTables, label: str, *columns: str, where: list[pb.Condition] | None = None) -> pa.Table:
    request = pb.ReadTableRequest(label=label, columns=columns, where=where or [])
    content = b"".join([frame async for frame in tables.read(request)])
    return pa.ipc.open_stream(content).read_all()


async def refusal(
    tables: SourceTables, label: str, *columns: str, where: list[pb.Condition] | None = None
) -> FolkmootError:
    with pytest.raises(FolkmootError) as refused:
        await read(tables, label, *columns, where=where)
    return refused.value


@pytest.fixture
def people(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(PEOPLE)
    return path


class TestTypes:
    async def test_csv_is_typed_and_what_is_missing_stays_missing(self, serve, people):
        assert (await read(serve(people), "people")).to_pylist() == [
            {
                "name": "Ada",
                "age": 36,
                "born": dt.date(1815, 12, 10),
                "height": 1.65,
                "alive": False,
                "seen": dt.datetime.fromisoformat("1843-09-01T10:00:00"),
            },
            {
                "name": "Grace",
                "age": None,
                "born": dt.date(1906, 12, 9),
                "height": None,
                "alive": True,
                "seen": None,
            },
        ]

    async def test_types_that_the_data_owner_gives_are_not_guessed(self, serve, tmp_path):
        path = tmp_path / "codes.csv"
        path.write_text("postcode,price\n0123,1.10\n")
        table = await read(serve(path, postcode="VARCHAR", price="DECIMAL(10, 2)"), "codes")
        assert table.to_pylist() == [{"postcode": "0123", "price": Decimal("1.10")}]

    async def test_parquet_types_survive(self, serve, tmp_path):
        table = pa.table(
            {
                "price": pa.array([Decimal("1.10"), None], pa.decimal128(12, 2)),
                "day": pa.array([dt.date(2020, 2, 29), None]),
                "moment": pa.array([dt.datetime(2020, 2, 29, 1, tzinfo=dt.UTC), None], pa.timestamp("us", "UTC")),
                "nanos": pa.array([1, None], pa.timestamp("ns")),
                "clock": pa.array([dt.time(1, 2, 3), None], pa.time64("us")),
                "truth": [True, None],
                "large": pa.array([2**64 - 1, None], pa.uint64()),
                "small": pa.array([-1, None], pa.int8()),
                "number": [1.5, None],
                "text": ["é", None],
                "bytes": [b"\x00", None],
                "list": [[1, 2], None],
            }
        )
        pq.write_table(table, tmp_path / "all.parquet")
        received = await read(serve(tmp_path / "all.parquet"), "all")
        assert received.to_pylist() == table.to_pylist()
        assert received.drop_columns("list").schema == table.drop_columns("list").schema

    async def test_tables_are_described_in_the_labels_order(self, serve, people, tmp_path):
        pq.write_table(pa.table({"x": pa.array([1], pa.int32())}), tmp_path / "numbers.parquet")
        numbers, described = await serve(people, tmp_path / "numbers.parquet").list_tables(["numbers", "people"])
        assert [(column.name, column.type) for column in numbers.columns] == [("x", "int32")]
        assert {column.name: column.type for column in described.columns} == {
            "name": "string",
            "age": "int64",
            "born": "date32[day]",
            "height": "double",
            "alive": "bool",
            "seen": "timestamp[us]",
        }

    async def test_empty_table_has_columns(self, serve, tmp_path):
        pq.write_table(pa.table({"x": pa.array([], pa.int32())}), tmp_path / "empty.parquet")
        assert (await read(serve(tmp_path / "empty.parquet"), "empty")).column_names == ["x"]


class TestSelection:
    async def test_columns_and_conditions_reach_the_source(self, serve, people):
        where = [pb.Condition(column="age", comparison=pb.COMPARISON_EQUAL, values=[pb.Value(integer=36)])]
        table = await read(serve(people), "people", "height", "name", where=where)
        assert table.to_pydict() == {"height": [1.65], "name": ["Ada"]}


class TestRefusals:
    async def test_unknown_column_names_those_that_are_there(self, serve, people):
        refused = await refusal(serve(people), "people", "nmae")
        assert refused.reason_name == "COLUMN_NOT_FOUND"
        assert "nmae" in str(refused)
        assert "name, age, born" in str(refused)

    async def test_columns_are_case_sensitive(self, serve, people):
        assert (await refusal(serve(people), "people", "Name")).reason_name == "COLUMN_NOT_FOUND"

    async def test_unknown_label_names_those_that_are_there(self, serve, people):
        refused = await refusal(serve(people), "salaries")
        assert refused.reason_name == "TABLE_NOT_FOUND"
        assert "people" in str(refused)

    @pytest.mark.parametrize("value", [pb.Value(integer=1815), pb.Value(text="yesterday")], ids=["kind", "text"])
    async def test_value_that_does_not_fit_names_its_condition(self, serve, people, value):
        where = [pb.Condition(column="born", comparison=pb.COMPARISON_EQUAL, values=[value])]
        refused = await refusal(serve(people), "people", where=where)
        assert refused.reason_name == "INVALID_FIELD"
        assert [field for field, _ in refused.violations] == ["where[0]"]

    async def test_more_values_than_a_read_can_bear_are_refused_before_it_begins(self, serve, people):
        """A million values in a hundred conditions would keep a child busy for longer than a run lasts."""
        values = [pb.Value(integer=number) for number in range(10_000)]
        most = [pb.Condition(column="age", comparison=pb.COMPARISON_IN, values=values) for _ in range(2)]
        table = await read(serve(people), "people", "name", where=most)
        assert table.num_rows > 0
        refused = await refusal(serve(people), "people", where=[*most, most[0]])
        assert refused.reason_name == "TOO_LARGE"
        assert "at most 20,000" in str(refused)

    @pytest.mark.parametrize("content", [b"", b"PAR1 is not all it takes"])
    async def test_cause_stands_in_the_log_only(self, serve, tmp_path, content, capsys):
        (tmp_path / "secret.parquet").write_bytes(content)
        refused = await refusal(serve(tmp_path / "secret.parquet"), "secret")
        assert refused.reason_name == "DATA_UNREADABLE"
        assert str(tmp_path) not in str(refused)
        assert str(tmp_path) in capsys.readouterr().out

    async def test_file_that_is_gone(self, serve, tmp_path):
        tables = serve(tmp_path / "gone.csv")
        assert (await refusal(tables, "gone")).reason_name == "DATA_UNREADABLE"
        with pytest.raises(FolkmootError, match="can't be read"):
            await tables.list_tables(["gone"])

    async def test_late_value_of_another_type_is_an_error_and_never_a_short_table(self, serve, tmp_path):
        path = tmp_path / "late.csv"
        path.write_text("x\n" + "1\n" * 400_000 + "surprise\n")
        assert (await refusal(serve(path), "late")).reason_name == "DATA_UNREADABLE"

    async def test_child_that_is_killed_is_an_error_and_never_a_short_table(self, serve, tmp_path):
        pq.write_table(pa.table({"x": np.random.default_rng(1).random(2_000_000)}), tmp_path / "big.parquet")
        tables = serve(tmp_path / "big.parquet")
        async with aclosing(tables.read(pb.ReadTableRequest(label="big"))) as frames:
            await anext(frames)
            [reading] = children()
            reading.kill()
            with pytest.raises(FolkmootError, match="can't be read"):
                async for _ in frames:
                    pass


class TestChild:
    async def test_it_has_nothing_of_our_environment_no_descriptors_and_a_session_of_its_own(self, monkeypatch):
        monkeypatch.setenv("FOLKMOOT_PASSWORD", "secret")
        inherited = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(inherited, True)
        child = await Child.start()
        try:
            process = psutil.Process(child.pid)
            await until(lambda: process.num_threads() > 0 and "duckdb" in maps(child.pid))
            assert Path(f"/proc/{child.pid}/environ").read_bytes() == b"ARROW_DEFAULT_MEMORY_POOL=system\0"
            assert process.cwd() == "/"
            assert os.getsid(child.pid) == child.pid
            assert not (Path(f"/proc/{child.pid}/fd") / str(inherited)).exists()
        finally:
            os.close(inherited)
            child.kill()
            await child.end()

    async def test_its_engine_opens_one_file_and_can_not_be_told_otherwise(self, people, tmp_path):
        (tmp_path / "other.csv").write_text("x\n1\n")
        engine = open_engine()
        opened = open_table(engine, Settings(label="people", kind="csv", path=str(people)))
        shut_in(engine, opened.paths)
        assert opened.relation(None, ()).columns[0] == "name"
        for statement in (
            f"SELECT * FROM read_csv('{tmp_path / 'other.csv'}')",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM glob('/etc/*')",
            f"COPY (SELECT 1) TO '{tmp_path / 'out.csv'}'",
            f"ATTACH '{tmp_path / 'new.db'}'",
            "SET allowed_paths = ['/etc/passwd']",
            "SET enable_external_access = true",
            "SET memory_limit = '64GB'",
            "INSTALL httpfs",
            "LOAD httpfs",
        ):
            with pytest.raises(Exception, match=r"(?i)disabled|cannot|locked"):
                engine.sql(statement).fetchall()
        assert not (tmp_path / "out.csv").exists()

    async def test_it_ends_with_the_read(self, serve, tmp_path):
        pq.write_table(pa.table({"x": np.random.default_rng(1).random(2_000_000)}), tmp_path / "big.parquet")
        tables = serve(tmp_path / "big.parquet")
        async with aclosing(tables.read(pb.ReadTableRequest(label="big"))) as frames:
            await anext(frames)
            [reading] = children()
        await until(lambda: reading not in children())

    async def test_it_ends_with_the_run(self, serve, tmp_path, directory):
        """The algorithm was killed, or stopped reading: nothing goes on behind it."""
        pq.write_table(pa.table({"x": np.random.default_rng(1).random(2_000_000)}), tmp_path / "big.parquet")
        proxy, run = Proxy(), FakeRun("0" * 12, labels=("big",))
        await proxy.open(run, serve(tmp_path / "big.parquet"), directory / run.run_name)
        async with grpc.aio.insecure_channel(f"unix:{directory / run.run_name}/proxy.sock") as channel:
            reading = ProxyServiceStub(channel).ReadTable(pb.ReadTableRequest(label="big"))
            await anext(aiter(reading))
            [child] = children()  # the next one is started behind the read
            await proxy.close(run.run_name)
        assert child not in children()

    async def test_it_ends_with_its_parent(self, tmp_path):
        """SIGKILL leaves the parent no time to end anything."""
        script = (
            "import asyncio\n"
            "from folkmoot.node.data.readers import Child\n"
            "async def main():\n"
            "    child = await Child.start()\n"
            "    print(child.pid, flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
        )
        assert parent.stdout is not None
        child = psutil.Process(int(await parent.stdout.readline()))
        parent.kill()
        await parent.wait()
        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

    async def test_one_waits_in_advance_and_is_given_up_when_closed(self):
        readers = Readers()
        readers.expect()
        readers.expect()
        async with readers.child() as first:
            assert first.alive
        await readers.close()
        assert children() == []

    async def test_one_that_waits_for_nothing_is_given_up(self, monkeypatch):
        monkeypatch.setattr(readers_module, "SPARE_SECONDS", 0.01)
        readers = Readers()
        readers.expect()
        await until(lambda: readers._giving_up is not None and readers._giving_up.done())
        assert children() == []

    async def test_it_can_write_no_file(self, tmp_path):
        """What is written to disk would outlive the run."""
        script = (
            "import os\n"
            "from folkmoot.node.data.confinement import confine\n"
            "confine(parent=os.getppid())\n"
            f"os.write(os.open({str(tmp_path / 'out')!r}, os.O_CREAT | os.O_WRONLY), b'x')\n"
        )
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stderr=asyncio.subprocess.PIPE)
        _, complaint = await child.communicate()
        assert b"File too large" in complaint

    async def test_it_ends_with_its_parent_even_when_it_neither_reads_nor_writes(self):
        confined = (
            "import os, signal; from folkmoot.node.data.confinement import confine; confine(parent=os.getppid()); "
        )
        waiting = confined + "print(os.getpid(), flush=True); signal.pause()"
        script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waiting!r}])"
        parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert parent.stdout is not None
        child = psutil.Process(int(await parent.stdout.readline()))
        parent.kill()
        await parent.wait()
        await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

    async def test_dead_one_is_replaced(self, serve, people):
        tables = serve(people)
        tables.expect_reads()
        await until(children)
        for child in children():
            child.kill()
        await until(lambda: not children())
        assert (await read(tables, "people")).num_rows == 2


class TestMemory:
    async def test_large_table_passes_through_in_bounded_memory(self, serve, tmp_path):
        rows = 2_500_000
        generator = np.random.default_rng(1)
        table = pa.table({f"x{index}": generator.random(rows) for index in range(10)})
        pq.write_table(table, tmp_path / "large.parquet", compression="none", use_dictionary=False)
        assert (tmp_path / "large.parquet").stat().st_size > 190_000_000
        del table
        node, size_bytes, most_bytes, most_of_child = psutil.Process(), 0, 0, 0
        before_bytes = node.memory_info().rss
        async with aclosing(serve(tmp_path / "large.parquet").read(pb.ReadTableRequest(label="large"))) as frames:
            async for frame in frames:
                assert len(frame) <= FRAME_BYTES
                size_bytes += len(frame)
                most_bytes = max(most_bytes, node.memory_info().rss)
                most_of_child = max([most_of_child, *(child.memory_info().rss for child in children())])
        assert size_bytes > 190_000_000
        assert most_bytes - before_bytes < 32 << 20
        assert most_of_child < 256 << 20

    async def test_slow_reader_slows_the_child_down(self, serve, tmp_path):
        pq.write_table(pa.table({"x": np.random.default_rng(1).random(4_000_000)}), tmp_path / "large.parquet")
        async with aclosing(serve(tmp_path / "large.parquet").read(pb.ReadTableRequest(label="large"))) as frames:
            await anext(frames)
            [child] = children()
            await until(lambda: waits_for_its_reader(child))
            assert "Seccomp:\t2" in Path(f"/proc/{child.pid}/status").read_text()  # a file needs no socket


def children() -> list[psutil.Process]:
    """The readers of this process; other tests' databases may be its children too."""
    return [child for child in psutil.Process().children() if "folkmoot.node.data.reader" in command_line(child)]


def command_line(process: psutil.Process) -> list[str]:
    """Nothing once it has ended, which it may at any moment."""
    try:
        return process.cmdline()
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return []


def maps(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


def waits_for_its_reader(child: psutil.Process) -> bool:
    """Whether it sleeps in write(1, ...) while the pipe is full."""
    return Path(f"/proc/{child.pid}/syscall").read_text().startswith("1 0x1 ")
