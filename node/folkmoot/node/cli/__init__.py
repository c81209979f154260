"""`folkmoot node`: join a collaboration, with an invitation or by asking, start the station, see what it does; and the commands of people there."""

import asyncio
import signal
from pathlib import Path

import click

from folkmoot.node.cli.doctor import doctor
from folkmoot.node.cli.egress import egress
from folkmoot.node.cli.policy import policy
from folkmoot.node.cli.station import COMMANDS
from folkmoot.node.cli.status import status
from folkmoot.node.config import NodeConfig, load_config
from folkmoot.transport import ServerAddress
from folkmoot.trust import Reference, parse_fingerprint

CONFIG = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def node() -> None:
    """Run a data station: questions come in, only sealed results leave."""


node.add_command(policy)


@node.command()
@click.argument("config", type=CONFIG)
def start(config: Path) -> None:
    """Start the node that CONFIG (node.toml) describes, and run it until SIGTERM or Ctrl-C. SIGHUP reads the policy again.

    What is running when it stops goes on; the next start takes it over.
    """
    asyncio.run(_start(load_config(config)))


async def _start(config: NodeConfig) -> None:
    from folkmoot.node.app import serve
    from folkmoot.node.logs import log_to_standard_error

    log_to_standard_error()
    stopped, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)  # while the node starts, which it would end otherwise
    async with serve(config) as running:
        loop.add_signal_handler(signal.SIGHUP, running.reload_policies)
        if hung_up.is_set():
            running.reload_policies()
        stop = asyncio.create_task(stopped.wait())
        failure = asyncio.create_task(running.failed())
        await asyncio.wait({stop, failure}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if failure.done():
            failure.result()
        failure.cancel()


@node.command()
@click.argument("invitation_or_collaboration")
@click.option(
    "--config", type=click.Path(dir_okay=False, path_type=Path), help="node.toml, written if it is not there."
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="Folder of node.toml, where --config does not say.",
)
@click.option("--server", help="host:port; without an invitation.")
@click.option(
    "--certificate-authority",
    type=CONFIG,
    help="PEM file that vouches for the server; without an invitation. By default this machine's authorities.",
)
@click.option("--insecure", is_flag=True, help="No TLS; only for a server on this machine.")
@click.option("--organization", help="Your organization's address; without an invitation.")
@click.option("--name", help="The node's name; without an invitation.")
def join(
    invitation_or_collaboration: str,
    config: Path | None,
    directory: Path,
    *,
    server: str | None,
    certificate_authority: Path | None,
    insecure: bool,
    organization: str | None,
    name: str | None,
) -> None:
    """Make this machine a node. The key that it makes never leaves this machine.

    With an invitation, a file, it becomes the node that this is for. With name@fingerprint of a collaboration it asks an administrator of
    your organization (`folkmoot node approve`), and waits.
    """
    from folkmoot.node.join import Place, Ticket
    from folkmoot.node.join import ask as ask_to_join
    from folkmoot.node.join import join as redeem

    path = config or directory / "node.toml"
    if "@" not in invitation_or_collaboration or Path(invitation_or_collaboration).exists():
        ticket = Ticket.read(_invitation(invitation_or_collaboration))
        place, node_name = ticket.place, ticket.invitation.node_name
        joining = redeem(ticket, path, tell=_tell)
    else:
        node_name = _given(name, "--name")
        authority = certificate_authority.read_bytes() if certificate_authority else None
        place = Place(
            ServerAddress(_given(server, "--server"), authority, insecure=insecure),
            Reference.parse(invitation_or_collaboration),
            _given(organization, "--organization"),
        )
        parse_fingerprint(place.organization_id)
        joining = ask_to_join(place, node_name, path, tell=_tell)
    node_id = asyncio.run(joining)
    click.echo(f"This machine is node {node_name} of {place.reference}.")
    click.echo(f"Its id is {node_id}. Look through {path} and its policy, then run: folkmoot node start {path}")


def _tell(text: str) -> None:
    click.echo(text, err=True)


def _invitation(text: str) -> Path:
    if not Path(text).is_file():
        raise click.BadParameter(f"{text!r} is neither an invitation file nor name@fingerprint of a collaboration")
    return Path(text)


def _given(value: str | None, option: str) -> str:
    if not value:
        raise click.UsageError(f"{option} is needed to join without an invitation")
    return value


for command in (doctor, egress, status, *COMMANDS):
    node.add_command(command)
