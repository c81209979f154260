"""Options that take the place of a profile's values: all of them at `login`, and where the server is at what needs no login."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from folkmoot.cli.profile import Profile

Command = TypeVar("Command", bound=Callable[..., Any])

_PATHS = ("certificate_authority", "organization_key", "governance_key", "state_directory")
_SERVER = ("server", "certificate_authority", "insecure")


def profile_options(command: Command) -> Command:
    """An option for every value of the profile."""
    return _options(command, [one.name for one in fields(Profile) if one.name != "path"])


def server_options(command: Command) -> Command:
    """Options that say where the server is, for those who have not logged in there yet."""
    return _options(command, _SERVER)


def _options(command: Command, names: Collection[str]) -> Command:
    for one in reversed(fields(Profile)):
        if one.name in names:
            name = f"--{one.name.replace('_', '-')}"
            kind = {"is_flag": True, "default": None} if one.default is False else {"default": None}
            command = click.option(name, one.name, help=one.metadata["help"], **kind)(command)
    return command


def at(profile: Profile, given: Mapping[str, Any]) -> Profile:
    """The profile with what was given on the command line; paths are made absolute. Raises for what no command could use."""
    values = {name: value for name, value in given.items() if value is not None}
    changed = profile.changed(
        **{name: os.fspath(Path(value).absolute()) if name in _PATHS else value for name, value in values.items()}
    )
    changed.check()
    return changed
