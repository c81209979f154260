"""The `folkmoot` command group: built-in commands, those of the installed extras, and one way to report what went wrong."""

import os
import sys
from collections.abc import Sequence
from copy import copy
from importlib.metadata import EntryPoint, entry_points, version

import click
from click.shell_completion import get_completion_class

from folkmoot.cli.built_in import BUILT_IN
from folkmoot.cli.completing import profiles
from folkmoot.cli.exits import Exit, exit_code
from folkmoot.cli.profile import Profile, default_path
from folkmoot.client import CertificateNotTrusted, Unreachable
from folkmoot.client.names import printable
from folkmoot.transport import RemoteError
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2

PLUGINS = "folkmoot.commands"
"""Entry points of this name are commands of the installed extras."""

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"{code.value:>5}  {code.meaning}" for code in Exit)


class Commands(click.Group):
    """Built-in commands and those of the extras; groups of the same name become one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, sorted."""
        return sorted(
            {*super().list_commands(ctx), *BUILT_IN, *(plugin.name for plugin in entry_points(group=PLUGINS))}
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, merged from wherever it comes."""
        own = super().get_command(ctx, cmd_name)
        if own is None and cmd_name in BUILT_IN:
            own = BUILT_IN[cmd_name].load(cmd_name)
        for plugin in entry_points(group=PLUGINS, name=cmd_name):
            added = load(plugin)
            if not isinstance(own, click.Group):
                own = own or added
            elif isinstance(added, click.Group):
                merged = copy(added)
                merged.commands = {**own.commands, **added.commands}
                own = merged
        return own

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help: of a built-in command alone, its line is known without importing it."""
        plugins = {plugin.name for plugin in entry_points(group=PLUGINS)}
        lines = {
            name: click.Command(name, help=BUILT_IN[name].help)
            if name in BUILT_IN and name not in plugins
            else self.get_command(ctx, name)
            for name in self.list_commands(ctx)
        }
        shown = click.Group(commands={name: command for name, command in lines.items() if command is not None})
        shown.format_commands(ctx, formatter)


def load(plugin: EntryPoint) -> click.Command:
    """A command of an extra; in its place one that says what to install, if the extra is not installed."""
    try:
        loaded = plugin.load()
    except ImportError as error:
        return not_installed(plugin.name, error)
    if not isinstance(loaded, click.Command):
        raise TypeError(f"the entry point {plugin.name} is no command")
    return loaded


def not_installed(name: str, error: ImportError) -> click.Command:
    """A command that says how to get the real one."""
    hint = f"needs {error.name}: pip install 'folkmoot[{name}]'"

    @click.command(name, help=f"(not installed: pip install 'folkmoot[{name}]')", add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def missing(arguments: Sequence[str]) -> None:  # noqa: ARG001
        raise click.ClickException(f"folkmoot {name} {hint}")

    missing.context_settings["ignore_unknown_options"] = True
    return missing


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("folkmoot"), prog_name="folkmoot")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    envvar="FOLKMOOT_CONFIG",
    help="File with server, user and keys, as `folkmoot login` writes it.",
)
@click.option(
    "--profile",
    envvar="FOLKMOOT_PROFILE",
    shell_complete=profiles,
    help="One of several servers or users, by a name of your own: NAME.toml in the folder of the usual file.",
)
@click.pass_context
def folkmoot(ctx: click.Context, config: str | None, profile: str | None) -> None:
    """Analyses across organizations that may not pool their data."""
    if config and profile:
        raise click.UsageError("--config names the file, --profile a file in the usual folder: give one of them")
    ctx.obj = Profile.load(config or default_path(profile or "config"))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "fish", "zsh"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete folkmoot's commands: put it into its start file."""
    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(folkmoot, {}, "folkmoot", "_FOLKMOOT_COMPLETE").source())


folkmoot.add_command(completion)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what goes wrong is one clear line on standard error, and an exit code."""
    try:
        return folkmoot.main(arguments, standalone_mode=False) or Exit.OK
    except click.ClickException as error:
        error.show()
        return Exit.USAGE if isinstance(error, click.UsageError) else Exit.STATE
    except (click.Abort, KeyboardInterrupt):
        print("folkmoot: interrupted", file=sys.stderr)
        return Exit.INTERRUPTED
    except FolkmootError as error:
        print(f"folkmoot: {described(error)}", file=sys.stderr)
        return exit_code(error)
    except Exception as error:
        if os.environ.get("FOLKMOOT_DEBUG"):
            raise
        print(
            f"folkmoot: {type(error).__name__}: {error}. FOLKMOOT_DEBUG=1 shows where; please report it.",
            file=sys.stderr,
        )
        return Exit.FAULT


def described(error: FolkmootError) -> str:
    """An error as a line: reason, what happened, what to do."""
    text = printable(error.message.rstrip())
    text += "" if text.endswith((".", "!", "?")) else "."
    if isinstance(error, CertificateNotTrusted):
        return text
    if isinstance(error, Unreachable):
        return f"{text} Check the address, and that the server runs."
    # What is found wrong here is named in words already; of what a server names, the catalogue says what to do with it.
    is_told = error.reason == errors_pb2.ERROR_REASON_INVALID_FIELD and not isinstance(error, RemoteError)
    advice = f" {error.help}" if error.help and error.help not in text and not is_told else ""
    reason = f"{error.reason_name}: " if error.reason else ""
    return f"{reason}{text}{advice}"
