"""Where the attack image is let loose: beside an honest run, on a machine with something worth having; and the same image without a node.

`protected` is what the node's container runtime makes of it. `unprotected` is the control: the same attempts by the same image, started
plainly, as root, with the host's network and folders. An attempt that fails there proves nothing.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

from folkmoot.node.data.tables import SourceTables
from folkmoot.node.proxy.ports import Limits
from tests.integration.node.conftest import Place, make_place
from tests.integration.node.fakes import FakeRun

ATTACK = Path(__file__).parents[1] / "images/attack"
LIMITS = Limits(
    memory_bytes=128 << 20,
    cpu_millis=2000,
    run_time_seconds=60,
    pids=64,
    scratch_bytes=128 << 20,
    temporary_bytes=16 << 20,
)
TOO_MUCH = {"processes": 100, "memory_bytes": 256 << 20, "disk_bytes": 160 << 20}

CAPABLE = (
    "--cap-add=ALL",
    "--cap-drop=SYS_RESOURCE",  # which not even root of every machine has
    "--security-opt=seccomp=unconfined",
    "--security-opt=systempaths=unconfined",
    "--security-opt=apparmor=unconfined",
)

Outcomes = dict[str, tuple[bool, str]]


@dataclass
class Target:
    """What an algorithm must not find: sockets that listen, a key, folders of others."""

    folder: Path
    abstract: str
    port: int
    name_server: int
    sibling: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def sockets(self) -> Path:
        return self.folder / "run"

    def settings(self, names: list[str], gateways: list[str]) -> dict[str, Any]:
        return {
            "names": names,
            "abstract": self.abstract,
            "port": self.port,
            "gateways": gateways,
            "name_server": ["127.0.0.1", self.name_server],
            "admin_socket": str(self.folder / "state/admin.sock"),
            "key_file": str(self.folder / "state/node.pem"),
            "other_scratch": str(self.folder / "state/other"),
            "host_process": os.getpid(),
            "sibling": self.sibling,
            "sibling_socket": str(self.sockets / self.sibling / "proxy.sock"),
            **TOO_MUCH,
        }


@contextlib.contextmanager
def target() -> Iterator[Target]:
    """A machine with secrets, and services that answer whoever reaches them."""
    folder = Path(tempfile.mkdtemp(prefix="fm-"))
    folder.chmod(0o755)
    for name, mode in (("state", 0o700), ("run", 0o700), ("state/other", 0o755), ("data", 0o777), ("scratch", 0o1777)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    (folder / "state/node.pem").write_text("the node's key")
    (folder / "state/other/file").write_text("another job's")
    (folder / "data/scan").write_text("a patient's")
    abstract = f"folkmoot-attack-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        tcp = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        for address in ("\0" + abstract, str(folder / "state/admin.sock")):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(address)
            listening.listen(16)
        threading.Thread(target=_answer, args=(udp,), daemon=True).start()
        yield Target(folder, abstract, tcp.getsockname()[1], udp.getsockname()[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", udp.getsockname())


def _answer(udp: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            asked, sender = udp.recvfrom(100)
            if not asked:
                return
            udp.sendto(b"here", sender)


def build(conformance_image: str) -> str:
    """Build the attack image upon the conformance image; give its id."""
    command = [
        "docker",
        "build",
        "--quiet",
        "--network",
        "none",
        "--build-arg",
        f"conformance={conformance_image}",
        str(ATTACK),
    ]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}  # the other builder looks for the base image in a registry
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()


def gateways() -> list[str]:
    """Addresses of this machine, as containers would call it."""
    api = docker.APIClient(version="auto", **docker.utils.kwargs_from_env())
    try:
        networks = api.networks(names=["bridge"])
        found = [config.get("Gateway") for network in networks for config in network["IPAM"]["Config"] or ()]
    finally:
        api.close()
    return [*filter(None, found), "172.17.0.1", "127.0.0.1"]


async def protected(image_id: str, there: Target, names: list[str]) -> tuple[Outcomes, FakeRun]:
    """Let the image try everything as a run of the node, while an honest run goes its way; give both."""
    place = make_place("docker", there.sockets, image_id)
    try:
        await place.runtime.adopt()
        sibling = await start(place, "honest", run_name=there.sibling)
        run = await start(
            place,
            "attempt",
            scratch=there.folder / "scratch",
            folders={"images": there.folder / "data"},
            **there.settings(names, gateways()),
        )
        _, content = await run.result
        await sibling.result
        return json.loads(content), sibling
    finally:
        await place.clean()


async def start(
    place: Place,
    function: str,
    *,
    run_name: str = "",
    scratch: Path | None = None,
    folders: dict[str, Path] | None = None,
    limits: Limits = LIMITS,
    **arguments: Any,
) -> FakeRun:
    """Start a run of the attack image."""
    run = FakeRun(run_name or place.runtime.name_run(), function, **arguments)
    place.names.append(run.run_name)
    await place.proxy.open(run, SourceTables({}), place.directory / run.run_name)
    asked = place.start_of(run.run_name, limits=limits, scratch=scratch)
    await place.runtime.start(dataclasses.replace(asked, folders=folders or {}))
    ended = asyncio.ensure_future(place.runtime.wait(run.run_name))
    ended.add_done_callback(lambda done: _give_up(run, done))
    return run


def _give_up(run: FakeRun, ended: "asyncio.Future[Any]") -> None:
    """A run that has ended without a result fails the test, rather than let it wait."""
    if not run.result.done() and not ended.cancelled():
        run.result.set_exception(AssertionError(f"no result: {ended.exception() or ended.result()}"))
        run.result.exception()


def unprotected(image_id: str, there: Target, names: list[str]) -> Outcomes:
    """Let the image try everything with nothing in its way."""
    for name in ("folkmoot", there.sibling):
        (there.sockets / name).mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as sibling:
        sibling.bind(str(there.sockets / there.sibling / "proxy.sock"))
        sibling.listen(16)
        command = [
            "docker", "run", "--rm", *CAPABLE, "--user=0", "--network=host", "--pid=host", "--cgroupns=host", "--shm-size=512m",
             "--tmpfs=/tmp:exec,size=512m",
            f"--volume={there.folder}:{there.folder}", f"--volume={there.sockets}:/run", f"--volume={there.folder}/data:/data/images",
            f"--volume={there.folder}/scratch:/scratch", "--volume=/var/run/docker.sock:/run/docker.sock",
            image_id, "python3", "/opt/attack/attack.py", json.dumps(there.settings(names, gateways())),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return json.loads(done.stdout.splitlines()[-1])
