"""Lists on the command line: replaced as a whole, or some of their items added and taken away, without undoing what others do meanwhile."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class ListChange:
    """What the options say of a list."""

    replaced: Sequence[str]
    emptied: bool
    added: Sequence[str]
    removed: Sequence[str]

    @property
    def needs_present(self) -> bool:
        """Whether it begins with what is there now."""
        return bool(self.added or self.removed)

    def of(self, present: Iterable[str]) -> list[str] | None:
        """The new list; None if it stays as it is."""
        if not (self.replaced or self.emptied or self.needs_present):
            return None
        begun = list(self.replaced) if self.replaced or self.emptied else list(present)
        return [one for one in dict.fromkeys([*begun, *self.added]) if one not in self.removed]


def list_options(name: str, what: str) -> Callable[[Command], Command]:
    """The options of a list: `--role`, `--no-roles`, `--add-role`, `--remove-role`; `list_change` reads them."""
    plural = name.replace("-", "_") + "s"

    def decorate(command: Command) -> Command:
        for option in reversed(
            (
                click.option(
                    f"--{name}", plural, multiple=True, help=f"{what}; these take the place of all; may be repeated."
                ),
                click.option(f"--no-{name}s", f"no_{plural}", is_flag=True, help="None of them."),
                click.option(f"--add-{name}", f"add_{plural}", multiple=True, help="One more; may be repeated."),
                click.option(f"--remove-{name}", f"remove_{plural}", multiple=True, help="One less; may be repeated."),
            )
        ):
            command = option(command)
        return command

    return decorate


def list_change(options: dict[str, Any], plural: str) -> ListChange:
    """Take a list's options out of a command's."""
    return ListChange(
        options.pop(plural), options.pop(f"no_{plural}"), options.pop(f"add_{plural}"), options.pop(f"remove_{plural}")
    )
