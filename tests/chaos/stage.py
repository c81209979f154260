"""A collaboration of real processes that a test kills, and a network that it cuts.

The server and each node are `folkmoot` commands of their own; between them and everybody else stands a wire that can be cut, so that
connections break and new ones are not accepted until it is mended. A node may live in a network namespace instead, whose cable is cut.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from folkmoot.transport.failpoints import VARIABLE
from folkmoot.trust import dump_signing_key
from tests.algorithms.stepwise import BEGUN, GO
from tests.chaos.namespaces import Namespace
from tests.integration.network import POLICY, Network, network
from tests.polling import until

REPOSITORY = Path(__file__).parents[2]
PATH_OF_MODULES = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
MAIN = "from folkmoot.cli.main import main; main()"
HURRIED = (
    "from folkmoot.transport import timeouts as t; "
    "t.HEARTBEAT_SECONDS, t.RECONNECT_SECONDS, t.CALL_SECONDS, t.IDLE_SECONDS = 0.5, 0.5, 3.0, 3.0; "
)
"""What has a process lose patience within seconds, so that a test need not wait for minutes until somebody notices a silent cut."""


@dataclass
class Wire:
    """A TCP connection to the server that can be cut and mended."""

    server_port: int
    port: int = 0
    _mended: bool = True
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._mended:
            writer.close()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except ConnectionError:  # The server is down.
            writer.close()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    def cut(self) -> None:
        """Break all connections, in the middle of whatever they carry, and accept no new ones."""
        self._mended = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def mend(self) -> None:
        """Accept connections again."""
        self._mended = True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, TimeoutError):
            pass
        finally:
            writer.close()


@dataclass
class Stage:
    """The processes, by name: "server" and the organizations."""

    net: Network
    folder: Path
    server_port: int
    wire: Wire
    hurried: bool = False
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str, *, failpoints: str = "") -> None:
        """Start the server or an organization's node, also again after it was killed, and wait until it serves or is attached."""
        before = len(self.said(name))
        process = await self.launch(name, failpoints=failpoints)
        ready = "server.started" if name == "server" else "node.attached"
        await until(lambda: ready in self.said(name)[before:] or process.returncode is not None, f"{name} is ready")
        assert process.returncode is None, self.said(name)[-2000:]

    async def launch(self, name: str, *, failpoints: str = "") -> asyncio.subprocess.Process:
        """Start a process, and leave it to itself."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = process = await asyncio.create_subprocess_exec(
                *(self.namespaces[name].command if name in self.namespaces else ()),
                *(sys.executable, "-c", HURRIED + MAIN if self.hurried else MAIN),
                *self._arguments(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": PATH_OF_MODULES, VARIABLE: failpoints},
            )
        return process

    def _arguments(self, name: str) -> list[str]:
        if name != "server":
            return ["node", "start", str(self.net.node_folder(name) / "node.toml")]
        address = "0.0.0.0" if self.namespaces else "127.0.0.1"
        names = ",".join(["127.0.0.1", *(each.host for each in self.namespaces.values())])
        listen = ["--listen", f"{address}:{self.server_port}", "--certificate-names", names]
        # What a task that allows another attempt waits for, until another node of its organization gets it.
        return ["server", "start", "--data", str(self.folder / "server"), *listen, "--reassign-after-minutes", "0"]

    def prepare_peer(self, organization: str) -> str:
        """Prepare a second node of an organization, which the ledger has yet to admit; return its name, and that of its process."""
        name = f"{organization}-2"
        folder, own = self.net.node_folder(name), self.net.node_folder(organization)
        folder.mkdir()
        for path in own.iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        key = self.net.world.add_node(organization, name.lower())
        (folder / "node.pem").write_bytes(dump_signing_key(key))
        return name

    def said(self, name: str) -> str:
        """What a process, and those before it, have said."""
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    async def kill(self, name: str) -> None:
        """SIGKILL: no last words."""
        process = self.processes.pop(name)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self, name: str) -> None:
        """SIGTERM, and whatever the process still wants to do."""
        process = self.processes.pop(name)
        if process.returncode is None:
            process.terminate()
        await process.wait()

    async def close(self) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
        for process in self.processes.values():
            await process.wait()

    # ---- what the algorithm does -----------------------------------------------------------------------------------

    def scratch(self, organization: str, job_id: str) -> Path:
        """The job's scratch at an organization, as its runs see it."""
        return self.net.state_directory(organization) / "scratch" / job_id / "files"

    async def begun(self, organization: str, job_id: str) -> None:
        """Wait until the job's run at an organization computes."""
        path = self.scratch(organization, job_id) / BEGUN
        await until(path.exists, f"{organization} computes")

    def let_go(self, organization: str, job_id: str) -> None:
        """Let the job's run at an organization end."""
        (self.scratch(organization, job_id) / GO).touch()

    def executions(self, organization: str, job_id: str) -> list[str]:
        """The runs that computed, once per execution."""
        return (self.scratch(organization, job_id) / BEGUN).read_text().split()

    async def journaled(self, organization: str, run_id: str, word: str) -> None:
        """Wait until a node's log tells something of a run."""
        said = self.folder / f"{organization}.log"
        await until(
            lambda: any(run_id in line and word in line for line in said.read_text().splitlines()), f"{run_id} {word}"
        )


@asynccontextmanager
async def stage(
    folder: Path,
    *organizations: str,
    runtime: str = "process",
    settings: str = "",
    policy: str = POLICY,
    hurried: bool = False,
    apart: Collection[str] = (),
    start: bool = True,
) -> AsyncIterator[Stage]:
    """Found a collaboration and start its processes behind a wire; the nodes of `apart` each in a network namespace."""
    data = {name: pd.DataFrame({"age": [50]}) for name in organizations}
    async with (
        AsyncExitStack() as stack,
        network(folder, data=data, runtime=runtime, settings=settings, policy=policy, start=False) as net,
    ):
        port = int(net.target.rpartition(":")[2])
        await net.server.channel.close()
        await net.server.running.stop()
        wire = Wire(port)
        relay = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
        wire.port = relay.sockets[0].getsockname()[1]
        namespaces = {name: Namespace.make() for name in apart}
        for namespace in namespaces.values():
            stack.callback(namespace.remove)
        for name in organizations:
            path = net.node_folder(name) / "node.toml"
            target = f"{namespaces[name].host}:{port}" if name in namespaces else f"127.0.0.1:{wire.port}"
            path.write_text(path.read_text().replace(net.target, target))
        net.target = f"127.0.0.1:{wire.port}"
        playing = Stage(net, folder, port, wire, hurried, namespaces)
        try:
            for name in ("server", *organizations) if start else ():
                await playing.start(name)
            yield playing
        finally:
            wire.cut()
            await playing.close()
            relay.close()
            shutil.rmtree(net.folder, ignore_errors=True)
