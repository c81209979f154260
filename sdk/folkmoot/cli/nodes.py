"""`folkmoot node invite`: what an admin does for a new node. The node's own commands come with its extra, in the same group."""

import os
from datetime import timedelta
from pathlib import Path

import click

from folkmoot.cli.access import asynchronous, client, governance_key
from folkmoot.cli.node_key import create_private_key
from folkmoot.cli.profile import Profile
from folkmoot.client.nodes import INVITATION_LIFETIME
from folkmoot.client.nodes import invite as make_invitation


@click.group()
def node() -> None:
    """Data stations."""


node.add_command(create_private_key)

@node.command()
@click.argument("name")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write; by default NAME.invitation."
)
@click.option(
    "--days",
    type=click.IntRange(1, 90),
    default=INVITATION_LIFETIME.days,
    show_default=True,
    help="How long it is good.",
)
@asynchronous
async def invite(profile: Profile, name: str, output: Path | None, days: int) -> None:
    """Write an invitation for the node NAME. It is secret: whoever has it can become that node, once."""
    path = output or Path(f"{name}.invitation")
    async with client(profile) as opened:
        invitation = await make_invitation(
            opened.connection,
            node_name=name,
            governance_key=governance_key(profile),
            valid_for=timedelta(days=days),
        )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise click.ClickException(f"{path} exists already: choose another --output") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(invitation)
    click.echo(f"{path}: bring it to the node's machine safely, and run there: folkmoot node join {path}")
