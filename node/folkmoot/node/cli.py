"""`folkmoot node`: join a collaboration with an invitation, start the station, see what it does."""

import asyncio
import signal
import sqlite3
from pathlib import Path

import click

from folkmoot.node.config import NodeConfig, load_config

CONFIG = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def node() -> None:
    """Run a data station: questions come in, only sealed results leave."""


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
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with serve(config) as running:
        loop.add_signal_handler(signal.SIGHUP, running.reload_policies)
        stop = asyncio.create_task(stopped.wait())
        failure = asyncio.create_task(running.failed())
        await asyncio.wait({stop, failure}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if failure.done():
            failure.result()
        failure.cancel()


@node.command()
@click.argument("invitation", type=CONFIG)
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
def join(invitation: Path, config: Path | None, directory: Path) -> None:
    """Make this machine the node that INVITATION is for. The key that it makes never leaves this machine."""
    from folkmoot.node.join import Ticket
    from folkmoot.node.join import join as redeem

    path = config or directory / "node.toml"
    ticket = Ticket.read(invitation)
    node_id = asyncio.run(redeem(ticket, path, tell=lambda text: click.echo(text, err=True)))
    click.echo(f"This machine is node {ticket.invitation.node_name} of {ticket.reference}.")
    click.echo(f"Its id is {node_id}. Look through {path} and its policy, then run: folkmoot node start {path}")


@node.command()
@click.argument("config", type=CONFIG)
@click.option("--number", type=click.IntRange(1), default=20, show_default=True, help="The newest runs, so many.")
def status(config: Path, number: int) -> None:
    """Show what the node of CONFIG has done, from its journal. Works beside a running node, and without one."""
    from folkmoot.node.app import station_directory

    settings = load_config(config)
    for block in settings.collaboration:
        click.echo(str(block.collaboration))
        journal = station_directory(settings, block.collaboration) / "journal.db"
        if not journal.exists():
            click.echo("  never started")
            continue
        _show(journal, number)


def _show(journal: Path, number: int) -> None:
    from folkmoot.node import records
    from folkmoot.node.outcomes import state_name

    connection = sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        click.echo(f"  deliveries acknowledged: {records.acknowledged(connection)}")
        for record in records.recent_runs(connection, number):
            accepted = records.moment(record.accepted_at_us).isoformat(timespec="seconds")
            where = "delivered" if record.committed_at_us else "to deliver" if record.ended else "under way"
            click.echo(f"  {accepted}  run {record.run_id}  {state_name(record.state):<10}  {where}")
    finally:
        connection.close()
