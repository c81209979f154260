"""`folkmoot server`: make, start, check, migrate, back up and put back a server. Options and their help derive from the settings
table; each command takes those, and the settings file, as `start` does.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from folkmoot.cli.exits import Exit
from folkmoot.server import settings as where
from folkmoot.server.command_errors import Commands
from folkmoot.server.config import SETTINGS, Config, Setting
from folkmoot.transport.secret_files import write_secret

if TYPE_CHECKING:
    from sqlalchemy import Connection

F = TypeVar("F", bound=Callable[..., Any])


@click.group(cls=Commands)
def server() -> None:
    """Run the control plane: it stores and forwards what others sign and seal."""


def settings_options(command: F) -> F:
    """Give the command an option for the settings file and one for each setting."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return click.option(
        "--settings",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help=f"File with settings, TOML; else {where.FILE_VARIABLE} names it.",
    )(command)


def _option(setting: Setting) -> Callable[[F], F]:
    name = f"{setting.option}/--no-{setting.option[2:]}" if setting.type is bool else setting.option
    kind = click.Path(path_type=Path) if setting.type is Path else setting.type
    # No default and no variable here: what was not given must be told from what was.
    shown = str(setting.default).lower() if setting.type is bool else str(setting.default or "")
    return click.option(name, type=kind, default=None, help=setting.help, show_default=shown or False)


def gather(file: Path | None, flags: dict[str, Any]) -> Config:
    """Return the settings that hold for a command."""
    return where.gather(flags, os.environ, file)


ASKED = {
    "data": "Folder for keys, certificates and all that is stored",
    "listen": "Address to listen on",
    "certificate_names": "Names by which people and nodes reach it, with commas",
    "database": "PostgreSQL as postgresql://user@host/name (empty: SQLite in that folder)",
}
"""What `init` asks for if no option says it; everything else stands in the file with its default."""


@server.command()
@settings_options
@click.option("--yes", is_flag=True, help="Ask nothing: what no option says is left at its default.")
def init(file: Path | None, *, yes: bool, **flags: Any) -> None:
    """Write a settings file with every setting explained, and make the data folder.

    Asks for what differs from place to place. The file is for the server's user alone, since it may hold passwords.
    """
    from folkmoot.server.operation import data_folder

    path = file or Path("server.toml")
    if path.exists():
        raise click.ClickException(f"{path} is there already: change it, or name another file by --settings")
    if not yes:
        for name, question in ASKED.items():
            setting = next(one for one in SETTINGS if one.name == name)
            if flags[name] is None:
                answer = click.prompt(question, default=str(setting.default), show_default=bool(setting.default))
                flags[name] = answer if answer != str(setting.default) else None
    # A folder that is named by hand is meant from here; in the file it would be from there.
    flags["data"] = Path(flags["data"] or "folkmoot-server").absolute()
    config = where.gather(flags, {}, None)
    data_folder.refuse_unfinished(config.data)
    config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_secret(path, where.template(flags, name=path.name).encode())
    click.echo(f"{path} is written, and {config.data} made. Look through it, then:")
    click.echo(f"  folkmoot server check --settings {path}\n  folkmoot server start --settings {path}")


@server.command()
@settings_options
def start(file: Path | None, **flags: Any) -> None:
    """Start a server and run it until SIGTERM or Ctrl-C. The first start prints a token that makes the first user."""
    asyncio.run(_run(gather(file, flags)))


@server.command()
@settings_options
def check(file: Path | None, **flags: Any) -> None:
    """Say what is wrong with database, broker, payloads, mail, secrets, certificate, clock, disk and ports, and how to mend it.

    Ends with 0 if a server can run like this (there may be warnings), else with 5. A running server is no obstacle.
    """
    from folkmoot.server.operation.check import State
    from folkmoot.server.operation.check import check as findings

    config, worst = gather(file, flags), Exit.OK
    for finding in findings(config, now=datetime.now(UTC), environment=os.environ, file=file):
        click.echo(f"{finding.state:<8} {finding.what:<12} {finding.text}")
        if finding.mend and finding.state is not State.GOOD:
            click.echo(f"{'':21} -> {finding.mend}")
        if finding.state is State.WRONG:
            worst = Exit.STATE
    sys.exit(worst)


@server.command()
@settings_options
@click.option("--to", default="", metavar="NUMBER", help="The migration to end at; else the newest.")
@click.option("--down", is_flag=True, help="Go back to --to: what came with later migrations is lost.")
@click.option("--dry-run", is_flag=True, help="Print the SQL, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before going back.")
def migrate(file: Path | None, *, to: str, down: bool, dry_run: bool, yes: bool, **flags: Any) -> None:
    """Bring the database to the tables of this release, or back to those of an earlier one.

    `start` does the former by itself. For the latter, take a backup first and stop all servers.
    """
    from folkmoot.server.operation.migrating import losses, migrated

    config = gather(file, flags)
    if down and not to:
        raise click.UsageError("--down needs --to: the number of the migration that the earlier release knows")
    if down:
        click.echo(f"Tables and columns that came after {to} are dropped. What is in them now:", err=True)
        click.echo("\n".join(f"  {lost}" for lost in losses(config, to)) or "  nothing", err=True)
    if down and not (dry_run or yes):
        click.echo("It comes back from a backup only. Is there one?", err=True)
        click.confirm("Go back?", abort=True, err=True)
    before, after, statements = migrated(config, to=to, down=down, dry_run=dry_run)
    for statement in statements if dry_run else ():
        click.echo(statement)
    click.echo(f"-- from {before or 'nothing'} to {after}{', not done' if dry_run else ''}", err=dry_run)


@server.command()
@click.argument("target", type=click.Path(path_type=Path, file_okay=False))
@settings_options
@click.option("--portable", is_flag=True, help="The database as rows, which SQLite and PostgreSQL both take back.")
@click.option("--link", is_flag=True, help="Link payloads instead of copying them; on the same file system only.")
def backup(file: Path | None, target: Path, *, portable: bool, link: bool, **flags: Any) -> None:
    """Back up database, payloads and keys into the folder TARGET, of one moment, while the server works."""
    from folkmoot.server.operation.backup import back_up

    back_up(gather(file, flags), target, now=datetime.now(UTC), portable=portable, link=link, tell=click.echo)
    click.echo(
        f"{target} is a whole backup. It holds the server's keys: who has it can pose as this server and sees who"
    )
    click.echo("works with whom, though no payload. Encrypt it where it leaves this machine.")


@server.command()
@click.argument("source", type=click.Path(path_type=Path, file_okay=False, exists=True))
@settings_options
def restore(file: Path | None, source: Path, **flags: Any) -> None:
    """Put the backup in the folder SOURCE back, into an empty data folder and database.

    What has happened since comes back by itself: nodes and clients give ledger entries, tasks and results again.
    """
    from folkmoot.server.operation.restore import restore as put_back

    manifest = put_back(gather(file, flags), source, tell=click.echo)
    click.echo(f"This is the server of {manifest.taken_at} again: start it.")


@server.command("settings")
def show_settings() -> None:
    """List every setting: option, environment variable, default, what it does."""
    for setting in SETTINGS:
        click.echo(f"{setting.option}  {setting.variable}  [{setting.default}]\n    {setting.help}")


@server.group()
def events() -> None:
    """Read the audit trail where it is kept, whether the server runs or not."""


@events.command("verify")
@settings_options
@click.option(
    "--expect",
    "expected",
    multiple=True,
    metavar="SEQUENCE:HASH",
    help="What an earlier verification printed, the log or a backup's manifest has; may be given several times.",
)
@click.option(
    "--exported", type=click.File(errors="replace"), help="Verify what was exported, - to read it from a pipe."
)
def verify_events(file: Path | None, expected: tuple[str, ...], exported: TextIO | None, **flags: Any) -> None:
    """Recompute the chain of hashes; name the first event that was altered, removed or inserted.

    Write down what it prints at the end, somewhere else: given as --expect, it shows that nothing up to there has
    changed since, not even by somebody who made the whole chain anew.
    """
    from folkmoot.server.audit.chain import Head
    from folkmoot.server.audit.verifying import verify, verify_exported

    heads = [Head.parse(text) for text in expected]
    if exported is not None:
        verdict = verify_exported(exported, heads)
    else:
        with _reading(gather(file, flags)) as connection:
            verdict = verify(connection, heads)
    if verdict.problem:
        raise click.ClickException(f"{verdict.problem}. The chain holds up to {verdict.head}")
    waiting = f"; {verdict.unchained} more are not chained yet" if verdict.unchained else ""
    click.echo(f"{verdict.head.position} events are as they were chained{waiting}.\n{verdict.head}")


@events.command("export")
@settings_options
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only events behind this sequence.")
def export_events(file: Path | None, after: int, **flags: Any) -> None:
    """Print the events as JSON lines: all that is hashed, and the hash."""
    import json

    from folkmoot.server.audit.verifying import links

    with _reading(gather(file, flags)) as connection:
        for link in links(connection, after=after):
            if not isinstance(link.hash, bytes) or link.mistyped:
                raise click.ClickException(f"{link.where} was altered, and can't be told: see `events verify`")
            click.echo(json.dumps(dict(link.record) | {"hash": link.hash.hex()}))


@contextmanager
def _reading(config: Config) -> "Iterator[Connection]":
    """Open the server's database, to read."""
    from folkmoot.server.store import databases

    path = config.data / "folkmoot.db"
    if not (config.database or path.exists()):
        raise click.ClickException(f"There is no database in {config.data}: name the server's folder with --data")
    database = databases.connect(config.database, path)
    try:
        with database.reading.connect() as connection:
            yield connection
    finally:
        database.reading.dispose()


async def _run(config: Config) -> None:
    from folkmoot.server.app import serve

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    running = await serve(config)
    if running.setup_token:
        click.echo(f"Set-up token: {running.setup_token}")
        click.echo("It makes the first user, once: `folkmoot setup`. Each start prints it until then.")
    click.echo(f"Serving on {running.address}")
    await stopped.wait()
    await running.stop()
