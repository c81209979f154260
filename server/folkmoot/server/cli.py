"""`folkmoot server`: start a server, show its settings. Options and their help derive from the settings table."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from folkmoot.server import settings as where
from folkmoot.server.config import SETTINGS, Config, Setting

if TYPE_CHECKING:
    from sqlalchemy import Connection

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
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


@server.command()
@settings_options
def start(file: Path | None, **flags: Any) -> None:
    """Start a server and run it until SIGTERM or Ctrl-C. The first start prints a token that makes the first user."""
    asyncio.run(_run(gather(file, flags)))


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
    help="What an earlier verification printed; may be given several times.",
)
def verify_events(file: Path | None, expected: tuple[str, ...], **flags: Any) -> None:
    """Recompute the chain of hashes; name the first event that was altered, removed or inserted.

    Write down what it prints at the end, somewhere else: given as --expect, it shows that nothing up to there has
    changed since, not even by somebody who made the whole chain anew.
    """
    from folkmoot.server import event_chain

    with _reading(gather(file, flags)) as connection:
        verdict = event_chain.verify(connection, [event_chain.Head.parse(text) for text in expected])
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

    from folkmoot.server import event_chain

    with _reading(gather(file, flags)) as connection:
        for row in event_chain.chained(connection, after=after):
            click.echo(json.dumps(event_chain.record(row, row.position) | {"hash": row.hash.hex()}))


@contextmanager
def _reading(config: Config) -> "Iterator[Connection]":
    """Open the server's database, to read."""
    from folkmoot.server.store import databases

    path = config.data / "folkmoot.db"
    if not (config.database or path.exists()):
        raise click.ClickException(f"There is no database in {config.data}: name the server's folder with --data")
    with databases.connect(config.database, path).reading.connect() as connection:
        yield connection


async def _run(config: Config) -> None:
    from folkmoot.server.app import serve

    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    running = await serve(config)
    if running.setup_token:
        click.echo(f"Set-up token: {running.setup_token}")
        click.echo("It makes the first user, once. The next start prints another one if it is not used until then.")
    click.echo(f"Serving on {running.address}")
    await stopped.wait()
    await running.stop()
