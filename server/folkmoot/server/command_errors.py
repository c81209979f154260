"""What goes wrong at the edge of a command (files, disks, the database) in words that say what to do, not as a fault of ours."""

from typing import Any

import click

from folkmoot.transport.storage import disk_full


class Commands(click.Group):
    """Commands that work on files and on a database."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; raise ClickException for what the system or the database refuses."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            raise disk_full(error) or click.ClickException(_of_system(error)) from error
        except Exception as error:
            if (told := _of_database(error)) is not None:
                raise told from error
            raise


def _of_system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}. As which user does this run, and is the path right?"


def _of_database(error: Exception) -> Exception | None:
    # By name: whoever has not used the database has not paid for importing its library.
    if not type(error).__module__.startswith("sqlalchemy"):
        return disk_full(error)
    first = (str(getattr(error, "orig", None) or error).strip().splitlines() or [""])[0]
    return disk_full(error) or click.ClickException(
        f"the database can't be used: {first}. `folkmoot server check` says more"
    )
