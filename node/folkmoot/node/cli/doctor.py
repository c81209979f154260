"""`folkmoot node doctor`: what is wrong with a node, and how to mend it."""

from dataclasses import asdict
from pathlib import Path

import click

from folkmoot.cli.exits import Exit
from folkmoot.cli.output import counted, json_option, show_json, text_of


@click.command()
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def doctor(config: Path, *, as_json: bool) -> None:
    """Check everything that the node of CONFIG needs, and say how to mend what is wrong. Works beside a running node, and without one."""
    from folkmoot.node.doctor import examine

    found = []
    for examined in examine(config):
        found.append(examined)
        if not as_json:
            finding = examined.finding
            click.echo(text_of(f"{'WRONG' if finding.is_wrong else 'OK':<6} {finding.check}: {finding.text}"))
            if finding.is_wrong and finding.mend:
                click.echo(text_of(f"       {finding.mend}"))
    if as_json:
        show_json([{"where": each.where, **asdict(each.finding)} for each in found])
    if bad := sum(each.finding.is_wrong for each in found):
        click.echo(f"{counted(bad, 'thing is', 'things are')} wrong", err=True)
        raise click.exceptions.Exit(Exit.STATE)
