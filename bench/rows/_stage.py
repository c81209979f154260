"""A collaboration of real processes to measure: a server, three organizations, a node beside each.

    async with stage(Station(runtime="process", image="process:bench.algorithms.least")) as playing:
        async with playing.client() as client:
            ...

Server and nodes are `folkmoot` commands of their own, over TLS, sealed, with their data on disk; everything is as it is
after an installation, but for a policy that allows the one image. The client is in the process that measures.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.limits.common import child_environment, scratch_folder
from folkmoot.cli.demo.cast import Cast, Hospital, assemble, create_accounts, hospital
from folkmoot.client import AsyncClient
from folkmoot.client.nodes import invite
from folkmoot.node.join import Ticket, join
from folkmoot.transport import ServerAddress

ORGANIZATIONS = ("Alpha", "Beta", "Gamma")
LEAST = "process:bench.algorithms.least"

FOLKMOOT = ("-c", "from folkmoot.cli.main import main; main()")
"""What makes an interpreter the `folkmoot` command."""

UNLIMITED = {"FOLKMOOT_SERVER_CALLS_PER_SECOND": "0"}
"""One caller may call as often as the server answers: that is what is measured."""

_START_SECONDS = 60.0
_CALM_SHARE = 0.9
_CALM_WITHIN_SECONDS = 2.0


@dataclass
class Process:
    """A `folkmoot` command that goes on running, and what it has said so far."""

    running: asyncio.subprocess.Process
    log: Path
    seconds_to_ready: float = 0.0

    @property
    def pid(self) -> int:
        return self.running.pid

    def said(self) -> str:
        return self.log.read_text()

    async def stop(self) -> None:
        """End it as an operator does."""
        if self.running.returncode is None:
            self.running.terminate()
        await self.running.wait()


async def start(folder: Path, name: str, *arguments: str, ready: str, command: Sequence[str] = FOLKMOOT) -> Process:
    """Start `folkmoot ARGUMENTS` and wait until its output contains `ready`; what it says goes to FOLDER/NAME.log."""
    log = folder / f"{name}.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        running = await asyncio.create_subprocess_exec(
            sys.executable,
            *command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=child_environment() | {"PYTHONUNBUFFERED": "1"} | UNLIMITED,
        )
    process = Process(running, log)
    while ready not in process.said():
        if running.returncode is not None or time.perf_counter() - began > _START_SECONDS:
            await process.stop()
            raise RuntimeError(f"{name} did not get ready:\n{process.said()[-2000:]}")
        await asyncio.sleep(0.005)
    process.seconds_to_ready = time.perf_counter() - began
    return process


@dataclass(frozen=True, kw_only=True)
class Station:
    """What every node of a stage is like."""

    image: str = LEAST
    runtime: str = "process"
    warm_workers: int = 0
    limits: str = ""
    """Lines of the policy's [limits]."""
    command: Sequence[str] = FOLKMOOT
    """What a node's process is."""
    slots: int = 1
    patients: str = ""
    """A Parquet file to offer in place of the small table."""
    database: str = ""
    """A PostgreSQL database for the server; without it, it has SQLite."""
    attached: bool = True
    """Whether the nodes run; if not, they are admitted and away."""


@dataclass
class Stage:
    """The processes, by name: "server" and the organizations in small letters."""

    cast: Cast
    folder: Path
    station: Station
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def names(self) -> Sequence[str]:
        """The organizations."""
        return [one.name for one in self.cast.hospitals]

    @property
    def initiator(self) -> Hospital:
        """The organization whose researcher asks."""
        return self.cast.hospitals[0]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AsyncClient]:
        """A client of the first organization's researcher, already logged in and with the ledger."""
        async with self.cast.client(self.initiator, self.initiator.researcher) as client:
            await client.connection.own()
            yield client


@asynccontextmanager
async def stage(station: Station, *, parent: Path | None = None) -> AsyncIterator[Stage]:
    """Set everything up below `parent` (default: the temporary folder), and remove it at the end."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder(parent))
        server = await start_server(folder, database=station.database)
        stack.push_async_callback(server.stop)
        authority = folder / "server" / "tls" / "ca.pem"
        address = ServerAddress(serves_at(server), authority.read_bytes())
        hospitals = [hospital(name, folder / name.lower()) for name in ORGANIZATIONS]
        await create_accounts(address, _value(server, "Set-up token: "), hospitals)
        cast = await assemble(address, authority, hospitals)
        playing = Stage(cast, folder, station, {"server": server})
        for one in hospitals:
            await _admit(playing, one)
        if station.attached:
            nodes = await asyncio.gather(*(_start_node(playing, one) for one in hospitals))
            for one, process in zip(hospitals, nodes, strict=True):
                playing.processes[one.name.lower()] = process
                stack.push_async_callback(process.stop)
        await calm()
        yield playing


async def start_server(folder: Path, *, database: str = "", name: str = "server") -> Process:
    """Start the server whose data is in FOLDER/server; again if it was there before, or another of its instances."""
    arguments = ["server", "start", "--data", str(folder / "server"), "--listen", "127.0.0.1:0"]
    arguments += ["--database", database] if database else []
    return await start(folder, name, *arguments, ready="Serving on ")


async def _start_node(playing: Stage, one: Hospital) -> Process:
    arguments = ("node", "start", str(one.folder / "node.toml"))
    command = playing.station.command
    return await start(playing.folder, one.name.lower(), *arguments, ready="node.attached", command=command)


def serves_at(server: Process) -> str:
    """Return the address that a server says it serves at."""
    return _value(server, "Serving on ")


def _value(process: Process, before: str) -> str:
    return next(line.removeprefix(before) for line in process.said().splitlines() if line.startswith(before))


async def _admit(playing: Stage, one: Hospital) -> None:
    """Let an organization invite its node, and the node redeem the invitation, as `folkmoot node join` does."""
    async with playing.cast.client(one, one.admin) as client:
        invitation = await invite(client.connection, node_name="station", governance_key=one.governance_key)
    path = one.folder / "invitation.pem"
    path.write_bytes(invitation)
    (one.folder / "policy.toml").write_text(_policy(playing.station))
    (one.folder / "patients.csv").write_text("age\n50\n")
    (one.folder / "node.toml").write_text(_node(playing, one))
    await join(Ticket.read(path), one.folder / "node.toml", tell=lambda _: None)


def _policy(station: Station) -> str:
    return f"""runtimes = ["container", "process"]
[[allow]]
images = ["{station.image}"]
initiators = ["*"]
labels = ["*"]
subtasks = true
messages = true
[limits]
{station.limits}
"""


def _node(playing: Stage, one: Hospital) -> str:
    station = playing.station
    return f"""state_directory = "state"
runtime_directory = "{playing.folder / "s" / one.name[0]}"
[[collaboration]]
collaboration = "{playing.cast.reference}"
server = "{playing.cast.address.target}"
certificate_authority = "{playing.cast.authority_file}"
node_key = "node.pem"
organization_key = "organization.pem"
encryption = "sealed"
policy = "policy.toml"
runtime = "{station.runtime}"
warm_workers = {station.warm_workers}
slots = {station.slots}
[collaboration.data.patients]
source = "{"parquet" if station.patients else "csv"}"
path = "{station.patients or "patients.csv"}"
"""


async def calm() -> None:
    """Wait until the machine is nearly idle, so that what one round leaves to be cleared away is not in the next one.

    On a machine that never is, give up after a moment: the report says that it was busy.
    """
    end = time.perf_counter() + _CALM_WITHIN_SECONDS
    while time.perf_counter() < end:
        before = psutil.cpu_times()
        await asyncio.sleep(0.1)
        after = psutil.cpu_times()
        passed = sum(after) - sum(before)
        if passed and (after.idle - before.idle + after.iowait - before.iowait) / passed >= _CALM_SHARE:
            return
