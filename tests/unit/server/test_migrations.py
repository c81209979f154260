"""Migrations give the tables that the models declare; a current database does not even load the library."""

import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from folkmoot.server.store import migrate, models

START_TWICE = """
import sys
from sqlalchemy import create_engine
from folkmoot.server.store import migrate
with create_engine("sqlite:///" + sys.argv[1]).begin() as connection:
    migrate.upgrade(connection)
print(any(name.split(".")[0] == "alembic" for name in sys.modules))
"""


@pytest.fixture
def connection():
    with create_engine("sqlite://").connect() as opened:
        yield opened


def test_migrations_give_the_tables_of_the_models(connection):
    migrate.upgrade(connection)
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    assert compare_metadata(context, models.metadata) == []
    assert set(inspect(connection).get_table_names()) == {*models.metadata.tables, "alembic_version"}


def test_newest_number_is_the_librarys_head():
    config = Config()
    config.set_main_option("script_location", str(migrate.folder()))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.newest()]


def test_fresh_database_has_no_number(connection):
    assert migrate.present(connection) is None
    migrate.upgrade(connection)
    assert migrate.present(connection) == migrate.newest()


def test_current_database_starts_without_the_migration_library(tmp_path):
    command = [sys.executable, "-c", START_TWICE, str(tmp_path / "test.db")]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for _ in range(2)]
    assert outputs == ["True", "False"]
