"""`folkmoot node create-private-key`: the key of a machine that is to become a node."""

from pathlib import Path

import click

from folkmoot.cli.access import passphrase
from folkmoot.cli.key_show import KEY_FILE, show_files
from folkmoot.cli.output import json_list
from folkmoot.client.keyfiles import NODE_FILE, create_signing_key


@click.command("create-private-key")
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path), default=Path(NODE_FILE))
@json_list(*KEY_FILE)
def create_private_key(path: Path, *, as_json: bool) -> None:
    """Make the node's key in PATH (node.pem), or show the one that is there. It never leaves the machine.

    `folkmoot node join INVITATION` makes one by itself; by hand it is needed where a node is approved without an invitation.
    """
    show_files([create_signing_key(path, passphrase=passphrase(path))], as_json=as_json)
