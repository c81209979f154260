"""`folkmoot server`: start a server, show its settings. Options and their help derive from the settings table."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.server import settings as where
from folkmoot.server.config import SETTINGS, Config, Setting

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
