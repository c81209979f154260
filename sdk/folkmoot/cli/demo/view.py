"""How the demo speaks: numbered phases with their time, answers beside the truth, what the server saw."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from folkmoot.cli.demo.analyses import Answer


@dataclass
class View:
    """Prints as things happen, and remembers how long each phase took."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """A numbered phase: its title, what is said in it, its time."""
        click.secho(f"\n{len(self.seconds) + 1}. {title}", bold=True)
        self.seconds[title] = 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[title] = time.perf_counter() - begin

    def say(self, *lines: str) -> None:
        """Lines of a phase."""
        for line in lines:
            click.echo(f"   {line}")

    def answer(self, answer: Answer) -> None:
        """An answer beside the pooled truth."""
        verdict = click.style("equal to pooled", fg="green") if answer.equal else click.style("DIFFERENT", fg="red")
        self.say(
            f"federated  {answer.ours}",
            f"pooled     {answer.pooled}   {verdict}",
            f"proof      {'receipts signed by every node' if answer.proven else 'MISSING: only the server says so'}",
        )

    def timing(self) -> None:
        """Seconds by phase."""
        width = max(map(len, self.seconds))
        click.secho("\nTime", bold=True)
        for title, seconds in self.seconds.items():
            self.say(f"{title:<{width}}  {seconds:6.2f} s")
        self.say(f"{'together':<{width}}  {sum(self.seconds.values()):6.2f} s")


def summary(answers: Sequence[Answer]) -> None:
    """The last lines: every answer in one."""
    click.secho("\nResults", bold=True)
    width = max(len(answer.title) for answer in answers)
    for answer in answers:
        verdict = "equal to pooled" if answer.equal else "DIFFERENT FROM POOLED"
        click.echo(f"   {answer.title:<{width}}  {answer.ours}   {verdict}")
