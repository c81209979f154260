"""What a command's `--json` promises in its help, compared with what it printed."""

import json
import re
from collections.abc import Sequence

import click

from folkmoot.cli.app import folkmoot

SHAPE = re.compile(r"(an object|a list of objects) with ([a-z_]+(?:, [a-z_]+)*)")
LINE_BY_LINE = ("event", "watch")


def shapes(command: click.Command) -> dict[type, set[str]]:
    """The shapes that a command's `--json` names, by what is outermost; none for a command without that option."""
    told = [str(one.help) for one in command.params if isinstance(one, click.Option) and "--json" in one.opts]
    return {
        dict if kind == "an object" else list: set(names.split(", ")) for kind, names in SHAPE.findall("".join(told))
    }


def check_shape(arguments: Sequence[str], output: str) -> None:
    """Fail unless the output of a command that succeeded has the shape that its help promises."""
    command, path = found(arguments)
    promised = shapes(command)
    if "--json" not in arguments or not promised:
        return
    printed = [json.loads(line) for line in output.splitlines()] if path == LINE_BY_LINE else [json.loads(output)]
    for value in printed:
        names = promised[type(value)]
        for one in value if isinstance(value, list) else [value]:
            assert one.keys() == names, f"folkmoot {' '.join(path)}: {one.keys() ^ names}"


def found(arguments: Sequence[str]) -> tuple[click.Command, tuple[str, ...]]:
    """The command that arguments name."""
    command: click.Command = folkmoot
    path: tuple[str, ...] = ()
    rest = list(arguments)
    while isinstance(command, click.Group):
        path = (*path, rest.pop(0))
        there = command.get_command(click.Context(command), path[-1])
        assert there is not None, path
        command = there
    return command, path
