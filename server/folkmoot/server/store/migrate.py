"""Brings a database to the tables of this release.

Migrations are numbered files; a database knows its number. Where the two agree, nothing is done and the migration
library is not even imported: it costs more time and memory than the rest of the start.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

import folkmoot.server


def folder() -> Path:
    """Return where the migrations are: inside an installed package, or at the root of a checkout."""
    package = Path(folkmoot.server.__file__).parent
    shipped = package / "migrations"
    return shipped if shipped.is_dir() else package.parents[2] / "alembic"


def newest() -> str:
    """Return the number of the newest migration."""
    return max(path.name.split("_")[0] for path in (folder() / "versions").glob("[0-9]*_*.py"))


def present(connection: Connection) -> str | None:
    """Return the number of the last migration that was applied to the database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(connection: Connection) -> None:
    """Apply the migrations that the database lacks, in the connection's transaction."""
    if present(connection) == newest():
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
