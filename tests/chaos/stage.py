"""A collaboration of real processes that a test kills, and a network that it cuts.

The server and each node are `folkmoot` commands of their own; between them and everybody else stands a wire that can be cut, so that
connections break and new ones are not accepted until it is mended.
"""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from tests.algorithms.stepwise import BEGUN, GO
from tests.integration.network import Network, network
from tests.polling import until

REPOSITORY = Path(__file__).parents[2]
COMMAND = (sys.executable, "-c", "from folkmoot.cli.main import main; main()")


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
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    async def start(self, name: str) -> None:
        """Start the server or an organization's node, also again after it was killed, and wait until it serves or is attached."""
        said = self.folder / f"{name}.log"
        before = said.read_text() if said.exists() else ""
        if name == "server":
            arguments = ["server", "start", "--data", str(self.folder / "server"), "--listen"]
            arguments.append(f"127.0.0.1:{self.server_port}")
        else:
            arguments = ["node", "start", str(self.net.node_folder(name) / "node.toml")]
        with said.open("ab") as log:
            self.processes[name] = process = await asyncio.create_subprocess_exec(
                *COMMAND,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            )
        ready = "server.started" if name == "server" else "node.attached"
        await until(
            lambda: ready in said.read_text()[len(before) :] or process.returncode is not None, f"{name} is ready"
        )
        assert process.returncode is None, said.read_text()[-2000:]

    async def kill(self, name: str) -> None:
        """SIGKILL: no last words."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def close(self) -> None:
        for process in self.processes.values():
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
    folder: Path, *organizations: str, runtime: str = "process", settings: str = ""
) -> AsyncIterator[Stage]:
    """Found a collaboration and start its processes behind a wire."""
    data = {name: pd.DataFrame({"age": [50]}) for name in organizations}
    async with network(folder, data=data, runtime=runtime, settings=settings, start=False) as net:
        port = int(net.target.rpartition(":")[2])
        await net.server.channel.close()
        await net.server.running.stop()
        wire = Wire(port)
        relay = await asyncio.start_server(wire.connected, "127.0.0.1", 0)
        wire.port = relay.sockets[0].getsockname()[1]
        for name in organizations:
            path = net.node_folder(name) / "node.toml"
            path.write_text(path.read_text().replace(net.target, f"127.0.0.1:{wire.port}"))
        net.target = f"127.0.0.1:{wire.port}"
        playing = Stage(net, folder, port, wire)
        try:
            await playing.start("server")
            for name in organizations:
                await playing.start(name)
            yield playing
        finally:
            wire.cut()
            await playing.close()
            relay.close()
            shutil.rmtree(net.folder, ignore_errors=True)
