"""`folkmoot algorithm build`: for authors. The one module here that needs click, which comes with folkmoot[cli]."""

from pathlib import Path

import click

from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, build


@click.group()
def algorithm() -> None:
    """Algorithms: build them, see what they say of themselves, vote on which are allowed."""


@algorithm.command(name="build")
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option("--tag", default="", help="A name for the engine, such as average:1.0.")
@click.option(
    "--push",
    default="",
    help="A name in a registry, such as registry.example.org/team/average:1.0: it is pushed there.",
)
@click.option("--base", default=DEFAULT_BASE, show_default=True, help="An image with python3.")
@click.option("--refresh", is_flag=True, help="Collect wheels anew instead of those of an earlier build.")
def build_(path: Path, tag: str, push: str, base: str, refresh: bool) -> None:  # noqa: FBT001 - click passes by name
    """Build the image of the Python package (folder) or module (.py file) at PATH and print how tasks name it.

    Its requirements are those of the requirements.txt beside the code.
    """
    try:
        click.echo(
            build(path, base=base, tag=tag, push=push, refresh=refresh, report=lambda line: click.echo(line, err=True))
        )
    except BuildFailed as error:
        raise click.ClickException(str(error)) from None
