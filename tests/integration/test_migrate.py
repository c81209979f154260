"""`folkmoot server migrate` where things are not as they should be: wrong numbers, wrong ways, company, a kill, two at once."""

import asyncio
import lzma
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import event

from folkmoot.cli.exits import Exit
from folkmoot.server import settings as server_settings
from folkmoot.server.operation import migrating
from folkmoot.server.store import databases, migrate
from tests.integration.databases import scratch_database
from tests.integration.harness import server
from tests.integration.operating import command, in_thread

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs_postgres)]
STORED = Path(__file__).parents[1] / "fixtures" / "server-0005.db.xz"


@pytest.fixture
def old(tmp_path: Path, settings: Callable[..., Path]) -> Path:
    """The settings of a server of an earlier release, that has worked."""
    (tmp_path / "one").mkdir(mode=0o700)
    (tmp_path / "one" / "folkmoot.db").write_bytes(lzma.decompress(STORED.read_bytes()))
    return settings("one")


def at(path: Path) -> str:
    with sqlite3.connect(path) as connection:
        return str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])


@pytest.fixture(params=BOTH)
def file(request: pytest.FixtureRequest, settings: Callable[..., Path]) -> Path:
    """The settings of a server with tables at 0007, on either database."""
    url = "" if request.param == "sqlite" else request.getfixturevalue("database_url")
    made = settings("one", database=url)
    assert command("migrate", "--to", "0007", "--settings", made) == Exit.OK
    return made


def test_wrong_numbers_and_wrong_ways_are_refused_and_change_nothing(file, capsys):
    for arguments, expected in (
        (("--to", "4711"), "there is no migration 4711"),
        (("--to", "base"), "there is no migration base"),
        (("--down", "--yes", "--to", "4711"), "there is no migration 4711"),
        (("--to", "0005"), "migrate --down --to 0005"),
        (("--down", "--yes", "--to", "0009"), "no way back to 0009"),
    ):
        capsys.readouterr()
        assert command("migrate", "--settings", file, *arguments) == Exit.USAGE, arguments
        assert expected in capsys.readouterr().err
    for arguments in (("--to", "0007"), ("--down", "--yes", "--to", "0007")):
        assert command("migrate", "--settings", file, *arguments) == Exit.OK, arguments
        assert "from 0007 to 0007" in capsys.readouterr().out


def test_nothing_goes_back_from_an_empty_database(settings, capsys):
    assert command("migrate", "--settings", settings("one"), "--down", "--yes", "--to", "0005") == Exit.USAGE
    assert "no way back" in capsys.readouterr().err


@pytest.mark.parametrize("way", [(), ("--down", "--yes", "--to", "0005"), ("--to", "0005")], ids="".join)
def test_database_of_a_later_release_is_left_to_that(old, tmp_path, capsys, way):
    path = tmp_path / "one" / "folkmoot.db"
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert command("migrate", "--settings", old, *way) == Exit.USAGE
    said = capsys.readouterr().err
    assert "later release" in said
    assert "have it, not this one, go back" in said
    assert at(path) == "9999"


def test_way_back_says_what_is_lost(old, tmp_path, capsys):
    assert command("migrate", "--settings", old) == Exit.OK
    with sqlite3.connect(tmp_path / "one" / "folkmoot.db") as connection:
        connection.execute("UPDATE users SET email = user_id WHERE username = (SELECT max(username) FROM users)")
        connection.execute("INSERT INTO commits (name, at) VALUES ('x', 1)")
    capsys.readouterr()
    assert command("migrate", "--settings", old, "--down", "--to", "0005", "--dry-run") == Exit.OK
    said = capsys.readouterr().err
    assert "users.email: 1 values" in said
    assert "commits: 1 rows" in said
    assert "organizations" not in said
    assert at(tmp_path / "one" / "folkmoot.db") == migrate.newest()
    assert command("migrate", "--settings", old, "--down", "--to", "0013", "--yes") == Exit.OK
    assert "commits: 1 rows" in capsys.readouterr().err
    assert command("migrate", "--settings", old, "--down", "--to", "0012", "--yes") == Exit.OK
    assert "nothing" in capsys.readouterr().err


def test_migration_that_is_killed_anywhere_has_changed_nothing(old, tmp_path, monkeypatch):
    """What a kill leaves is what is on disk at that moment: the file, and the log beside it."""
    left: list[Path] = []

    def keep(*_: object) -> None:
        copy = tmp_path / "left" / str(len(left))
        shutil.copytree(tmp_path / "one", copy)
        left.append(copy / "folkmoot.db")

    connect = databases.connect

    def connected(url: str, path: Path) -> databases.Database:
        database = connect(url, path)
        event.listen(database.migrating, "after_cursor_execute", keep)
        event.listen(database.migrating, "commit", keep)
        return database

    monkeypatch.setattr(databases, "connect", connected)
    assert command("migrate", "--settings", old, "--to", "0008") == Exit.OK
    monkeypatch.undo()
    assert len(left) > 20
    assert {at(path) for path in left} == {"0005"}
    with sqlite3.connect(left[-1]) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'roles'").fetchall()
    (tmp_path / "again.toml").write_text(f'data = "{left[-1].parent}"\n')
    assert command("migrate", "--settings", tmp_path / "again.toml") == Exit.OK


@pytest.mark.needs_postgres
async def test_way_back_is_refused_while_servers_work_on_the_database(tmp_path, settings, database_url, capsys):
    file = settings("one", database=database_url)
    async with server(tmp_path / "one", database=database_url):
        assert await in_thread("migrate", "--down", "--yes", "--to", "0010", "--settings", file) == Exit.USAGE
        assert "1 of this release's servers" in capsys.readouterr().err
    assert await in_thread("migrate", "--down", "--yes", "--to", "0010", "--settings", file) == Exit.OK


@pytest.mark.needs_postgres
async def test_way_back_is_not_held_up_by_a_server_that_was_killed(settings, postgres_server, monkeypatch):
    monkeypatch.setattr(migrating, "SIGN_OF_LIFE_SECONDS", 0.01)
    with scratch_database(postgres_server) as url:
        file = settings("one", database=url)
        assert await in_thread("migrate", "--settings", file) == Exit.OK
        database = databases.postgresql(url)
        with database.writing.begin() as connection:
            connection.exec_driver_sql("INSERT INTO instances VALUES ('dead', '1', 0, 5)")
        database.writing.dispose()
        assert await in_thread("migrate", "--down", "--yes", "--to", "0010", "--settings", file) == Exit.OK


@pytest.mark.needs_postgres
async def test_many_that_migrate_an_empty_database_at_once_do_it_once(settings, database_url):
    config = server_settings.gather({}, {}, settings("one", database=database_url))

    def one() -> tuple[str | None, int]:
        before, _, statements = migrating.migrated(config, to="", down=False, dry_run=False)
        return before, len(statements)

    done = sorted(await asyncio.gather(*(asyncio.to_thread(one) for _ in range(4))), key=repr)
    assert [before for before, _ in done] == [migrate.newest()] * 3 + [None]
    assert [count for before, count in done if before] == [0] * 3


@pytest.mark.needs_postgres
async def test_instances_that_start_at_the_same_moment_on_an_empty_database_have_one_set_up(tmp_path, database_url):
    async def started() -> str | None:
        async with server(tmp_path / "one", database=database_url) as s:
            return s.running.setup_token

    tokens = set(await asyncio.gather(started(), started(), started()))
    assert len(tokens) == 1
    assert None not in tokens
