"""`folkmoot about`: what a server says of itself, to anybody."""

import click

from folkmoot.cli.access import anonymous_client, asynchronous
from folkmoot.cli.output import json_of, show_thing
from folkmoot.cli.profile import Profile
from folkmoot.client import ServerInfo


@click.command()
@json_of(ServerInfo)
@asynchronous
async def about(profile: Profile, *, as_json: bool) -> None:
    """Show the server's release, its clock, how people log in, and whether organizations may register themselves. Needs no login."""
    async with anonymous_client(profile) as opened:
        show_thing(await opened.server_info(), as_json=as_json)
