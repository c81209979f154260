"""`folkmoot server backup`, `restore`, `migrate` as operators use them, on both databases."""

import io
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select

from folkmoot.cli.exits import Exit
from folkmoot.server.operation import backup as backups
from folkmoot.server.store import models
from folkmoot.v1 import admin_service_pb2 as admin
from tests.integration.databases import scratch_database
from tests.integration.harness import ROOT, Server, server
from tests.integration.node.data.servers import binary
from tests.integration.operating import command, in_thread

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)]


@pytest.fixture(params=BOTH)
def databases(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Two values of the setting `database`, for the server that is and the one that takes its place."""
    if request.param == "sqlite":
        yield "", ""
        return
    running = request.getfixturevalue("postgres_server")
    with scratch_database(running) as first, scratch_database(running) as second:
        yield first, second


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest) -> str:
    """The setting of that name."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("database_url"))


def store_payload(data: Path, content: bytes = b"sealed") -> Path:
    part = data / "payloads" / "ab" / ("ab" * 32) / "00000"
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    return part


async def names(s: Server) -> set[str]:
    s.users[ROOT] = await s.log_in(ROOT)
    answer = await s.admin.ListOrganizations(admin.ListOrganizationsRequest(), metadata=s.users[ROOT].metadata)
    return {one.name for one in answer.organizations}


# ---- backup and restore --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("--link",), ("--portable",)], ids="".join)
async def test_backup_of_a_working_server_comes_back(databases, how, tmp_path, settings):
    database, other = databases
    file = settings("one", database=database)
    async with server(tmp_path / "one", database=database) as s:
        await s.account("Alpha")
        part = store_payload(tmp_path / "one")
        newest = (await s.events())[-1]
        assert await in_thread("backup", tmp_path / "kept", "--settings", file, *how) == Exit.OK
        await s.account("Since")
    assert (part.stat().st_nlink == 2) == ("--link" in how)

    again = settings("two", database=other)
    assert await in_thread("restore", tmp_path / "kept", "--settings", again) == Exit.OK
    async with server(tmp_path / "two", database=other) as s:
        assert s.running.setup_token is None
        assert await names(s) == {"Hub", "Alpha"}
        await s.account("Later")
    head = backups.read_manifest(tmp_path / "kept").chain_head
    assert head == f"{newest.sequence}:{newest.hash.hex()}"
    assert await in_thread("events", "verify", "--expect", head, "--settings", again) == Exit.OK
    for kept in ("keys/token.pem", "tls/ca.pem", "tls/ca-key.pem", f"payloads/{part.relative_to(part.parents[2])}"):
        assert (tmp_path / "one" / kept).read_bytes() == (tmp_path / "two" / kept).read_bytes(), kept


@pytest.mark.needs_postgres
async def test_server_moves_from_sqlite_to_postgresql_and_back(tmp_path, settings, database_url):
    async with server(tmp_path / "one") as s:
        await s.account("Alpha")
    assert await in_thread("backup", tmp_path / "kept", "--portable", "--settings", settings("one")) == Exit.OK
    moved = settings("two", database=database_url)
    assert await in_thread("restore", tmp_path / "kept", "--settings", moved) == Exit.OK
    async with server(tmp_path / "two", database=database_url) as s:
        assert await names(s) == {"Hub", "Alpha"}
        await s.account("Beta")  # numbers go on behind those that are there
        assert await names(s) == {"Hub", "Alpha", "Beta"}
    assert await in_thread("backup", tmp_path / "again", "--portable", "--settings", moved) == Exit.OK
    assert await in_thread("restore", tmp_path / "again", "--settings", settings("three")) == Exit.OK
    async with server(tmp_path / "three") as s:
        assert await names(s) == {"Hub", "Alpha", "Beta"}


def rows(url: str) -> dict[str, list[tuple]]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        found = {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in models.metadata.sorted_tables
        }
    engine.dispose()
    return found


@pytest.mark.needs_postgres
async def test_rows_are_the_same_after_moving(tmp_path, settings, database_url):
    stored = Path(__file__).parents[1] / "fixtures" / "server-0005.db.xz"
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "folkmoot.db").write_bytes(lzma.decompress(stored.read_bytes()))
    assert await in_thread("migrate", "--settings", settings("one")) == Exit.OK
    assert await in_thread("backup", tmp_path / "kept", "--portable", "--settings", settings("one")) == Exit.OK
    moved = settings("two", database=database_url)
    assert await in_thread("restore", tmp_path / "kept", "--settings", moved) == Exit.OK
    assert rows(database_url) == rows(f"sqlite:///{tmp_path / 'one' / 'folkmoot.db'}")


async def test_backup_that_broke_off_is_none(tmp_path, settings, capsys):
    async with server(tmp_path / "one"):
        pass
    assert await in_thread("backup", tmp_path / "kept", "--settings", settings("one")) == Exit.OK
    (tmp_path / "kept" / backups.MANIFEST).unlink()
    assert await in_thread("restore", tmp_path / "kept", "--settings", settings("two")) == Exit.USAGE
    assert "no whole backup" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


async def test_restore_refuses_a_place_where_something_is(tmp_path, settings, capsys):
    async with server(tmp_path / "one"):
        pass
    kept = tmp_path / "kept"
    assert await in_thread("backup", kept, "--settings", settings("one")) == Exit.OK
    before = (tmp_path / "one" / "folkmoot.db").read_bytes()
    assert await in_thread("restore", kept, "--settings", settings("one")) == Exit.USAGE
    assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "one" / "folkmoot.db").read_bytes() == before
    other = settings("two", payloads=f"file://{tmp_path / 'payloads'}")
    store_payload(tmp_path)
    assert await in_thread("restore", kept, "--settings", other) == Exit.USAGE
    assert await in_thread("backup", kept, "--settings", settings("one")) == Exit.USAGE


@pytest.mark.needs_postgres
async def test_restore_refuses_a_database_with_tables(tmp_path, settings, database_url, capsys):
    async with server(tmp_path / "one", database=database_url):
        pass
    assert await in_thread("backup", tmp_path / "kept", "--settings", settings("one", database=database_url)) == Exit.OK
    assert (tmp_path / "kept" / "database.dump").exists() == bool(binary("pg_dump"))
    target = settings("two", database=database_url)
    assert await in_thread("restore", tmp_path / "kept", "--settings", target) == Exit.USAGE
    assert "has tables" in capsys.readouterr().err
    assert await in_thread("restore", tmp_path / "kept", "--settings", settings("three")) == Exit.USAGE
    assert "--portable" in capsys.readouterr().err


async def test_payloads_in_a_bucket_are_named_only(tmp_path, settings, capsys):
    async with server(tmp_path / "one"):
        pass
    bucket = settings("one", payloads="s3://bucket/prefix")
    assert await in_thread("backup", tmp_path / "kept", "--settings", bucket) == Exit.OK
    assert not (tmp_path / "kept" / "payloads").exists()
    assert backups.read_manifest(tmp_path / "kept").payloads == "s3://bucket/prefix"
    assert await in_thread("restore", tmp_path / "kept", "--settings", settings("two")) == Exit.USAGE
    assert "s3://bucket/prefix" in capsys.readouterr().err


async def test_backup_is_its_owners_alone(tmp_path, settings):
    async with server(tmp_path / "one"):
        assert await in_thread("backup", tmp_path / "kept", "--settings", settings("one")) == Exit.OK
    for path in [tmp_path / "kept", *(tmp_path / "kept").iterdir()]:
        assert path.stat().st_mode & 0o077 == 0, path


# ---- migrate -------------------------------------------------------------------------------------------------------


def test_dry_run_shows_the_sql_and_changes_nothing(database, settings, capsys):
    file = settings("one", database=database)
    assert command("migrate", "--settings", file, "--to", "0005") == Exit.OK
    capsys.readouterr()
    assert command("migrate", "--settings", file, "--dry-run") == Exit.OK
    shown = capsys.readouterr()
    assert "CREATE TABLE roles" in shown.out
    assert "SELECT" not in shown.out
    assert "not done" in shown.err
    assert command("migrate", "--settings", file) == Exit.OK
    assert "from 0005 to" in capsys.readouterr().out


def test_way_back_needs_a_number_and_a_yes(settings, capsys, monkeypatch):
    file = settings("one")
    assert command("migrate", "--settings", file) == Exit.OK
    assert command("migrate", "--settings", file, "--down") == Exit.USAGE
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody answers
    assert command("migrate", "--settings", file, "--down", "--to", "0005") == Exit.INTERRUPTED
    assert "dropped" in capsys.readouterr().err
    assert command("migrate", "--settings", file, "--down", "--to", "0005", "--yes") == Exit.OK
    assert "to 0005" in capsys.readouterr().out
    assert command("migrate", "--settings", file, "--to", "4711") == Exit.USAGE


async def test_migration_beside_a_running_server_is_refused(tmp_path, settings, capsys):
    async with server(tmp_path / "one"):
        assert await in_thread("migrate", "--settings", settings("one")) == Exit.USAGE
    assert "stop it first" in capsys.readouterr().err
