"""Fail when the migrations, applied to an empty database, give other tables than the models declare."""

import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from folkmoot.server.store import migrate, models


def main() -> None:
    """Migrate a database in memory and compare: tables, columns, types, defaults, indexes, constraints."""
    options = {"compare_type": True, "compare_server_default": True}
    with create_engine("sqlite://").connect() as connection:
        migrate.upgrade(connection)
        context = MigrationContext.configure(connection, opts=options)
        if differences := compare_metadata(context, models.metadata):
            sys.exit("the models need a migration:\n  " + "\n  ".join(map(str, differences)))


if __name__ == "__main__":
    main()
