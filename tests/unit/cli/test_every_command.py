"""What all commands have in common: help, JSON, a question before what can't be taken back, and no secret on the command line."""

from typing import Any

import click
import pytest

from folkmoot.cli.app import folkmoot
from tests.json_shapes import shapes

SECRETS = {"password", "secret", "token", "passphrase"}


def commands(group: click.Group, *path: str) -> dict[tuple[str, ...], click.Command]:
    here: dict[tuple[str, ...], click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        one = group.get_command(click.Context(group), name)
        assert one is not None
        here |= commands(one, *path, name) if isinstance(one, click.Group) else {(*path, name): one}
    return here


COMMANDS = commands(folkmoot)


@pytest.mark.parametrize("path", sorted(COMMANDS), ids="-".join)
def test_a_command_and_each_of_its_options_say_what_they_are_for(path: tuple[str, ...]):
    command = COMMANDS[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert parameter.help.rstrip().endswith((".", "]", "?")), parameter.help


NEED_NO_LOGIN = ("forgot-password", "reset-password", "register", "forgot", "reset")


def is_of_the_sdk(path: tuple[str, ...]) -> bool:
    callback: Any = COMMANDS[path].callback
    return str(callback.__module__).startswith("folkmoot.cli.")


def options(path: tuple[str, ...]) -> set[str]:
    return {name for parameter in COMMANDS[path].params for name in parameter.opts if name.startswith("-")}


@pytest.mark.parametrize(
    "path", [path for path in sorted(COMMANDS) if path[-1] in ("list", "show", "update")], ids="-".join
)
def test_what_is_shown_to_people_is_there_for_programs(path: tuple[str, ...]):
    assert "--json" in options(path)


@pytest.mark.parametrize(
    "path", [path for path in sorted(COMMANDS) if "--json" in options(path) and is_of_the_sdk(path)], ids="-".join
)
def test_json_says_its_shape(path: tuple[str, ...]):
    """Whoever runs a command in a test compares what it printed with this: tests/json_shapes.py."""
    assert shapes(COMMANDS[path])


@pytest.mark.parametrize(
    "path", [path for path in sorted(COMMANDS) if path[0] == "account" and path[-1] in NEED_NO_LOGIN], ids="-".join
)
def test_what_needs_no_login_is_told_where_the_server_is(path: tuple[str, ...]):
    assert {"--server", "--certificate-authority", "--insecure"} <= options(path)


@pytest.mark.parametrize("path", [path for path in sorted(COMMANDS) if path[-1] == "create"], ids="-".join)
def test_what_is_made_is_told_to_programs(path: tuple[str, ...]):
    assert "--json" in options(path)


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(COMMANDS) if path[-1].startswith(("delete", "revoke", "leave", "remove"))],
    ids="-".join,
)
def test_what_can_not_be_taken_back_is_asked_first(path: tuple[str, ...]):
    if path[:2] != ("key", "entry"):  # these write an entry, and do nothing with it
        assert "--yes" in options(path)


def test_no_secret_is_an_option():
    """Whoever looks at the list of processes, or at the shell's history, would read it."""
    for path, command in COMMANDS.items():
        for parameter in command.params:
            words = set(str(parameter.name).split("_"))
            text = not getattr(parameter, "is_flag", False) and isinstance(parameter.type, click.types.StringParamType)
            assert not (text and words & SECRETS) or "file" in words, (path, parameter.name)
