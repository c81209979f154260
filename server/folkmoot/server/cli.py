"""`folkmoot server`: start a server, show its settings. Options and their help derive from the settings table."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.server.config import SETTINGS, Config, Setting
from folkmoot.trust.errors import FolkmootError

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def server() -> None:
    """Run the control plane: it stores and forwards what others sign and seal."""


def _options(command: F) -> F:
    """Give the command an option for each setting."""
    for setting in reversed(SETTINGS):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[F], F]:
    name = f"{setting.option}/--no-{setting.option[2:]}" if setting.type is bool else setting.option
    kind = click.Path(path_type=Path, file_okay=False) if setting.type is Path else setting.type
    return click.option(
        name, type=kind, default=setting.default, help=setting.help, envvar=setting.variable, show_default=True
    )


@server.command()
@_options
def start(**settings: Any) -> None:
    """Start a server and run it until SIGTERM or Ctrl-C. The first start prints a token that makes the first user."""
    try:
        asyncio.run(_run(Config(**settings)))
    except FolkmootError as error:
        raise click.ClickException(f"{error.reason_name}: {error.message}") from error


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
