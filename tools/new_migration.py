"""Write a migration from what the migrations give to what the models declare.

    python tools/new_migration.py "what and why"

makes the next numbered file in alembic/versions/; read it before you commit it. Before the first release there is only
one migration: `--initial` writes it anew.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from folkmoot.server.store import migrate


def main() -> None:
    """Migrate a database in memory, compare it with the models, write the difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("message", nargs="?", default="initial")
    parser.add_argument("--initial", action="store_true", help="write the first migration anew")
    arguments = parser.parse_args()

    versions = migrate.folder() / "versions"
    existing = sorted(versions.glob("[0-9]*_*.py"))
    if arguments.initial and len(existing) > 1:
        sys.exit("new_migration: there are later migrations; write the next one instead")
    if arguments.initial:
        for path in existing:
            path.unlink()
        existing = []

    config = Config()
    config.set_main_option("script_location", str(migrate.folder()))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    with create_engine("sqlite://").connect() as connection:
        config.attributes["connection"] = connection
        if existing:
            command.upgrade(config, "head")
        command.revision(config, arguments.message, autogenerate=True, rev_id=f"{len(existing) + 1:04}")
    [path] = {*versions.glob("[0-9]*_*.py")} - {*existing}
    ruff = Path(sys.executable).with_name("ruff")
    subprocess.run([ruff, "check", "--quiet", "--fix", path], check=True)
    subprocess.run([ruff, "format", "--quiet", path], check=True)


if __name__ == "__main__":
    main()
