"""Real nodes in this process, attached to a real server, with real clients; and an engine without containers to inject faults with.

    async with hub.station("Alpha", engine=engine) as alpha: ...

An engine outlives its node, as containers do: the same engine given to the next station is what that finds when it starts.
"""

import asyncio
import hashlib
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio

from folkmoot.node.app import RunningNode, serve
from folkmoot.node.config import CollaborationConfig, load_config
from folkmoot.node.proxy.ports import Exit, PreparedImage, RunStart
from folkmoot.node.proxy.service import Proxy
from folkmoot.trust import dump_organization_key, dump_signing_key
from folkmoot.v1 import proxy_service_pb2 as pb
from folkmoot.v1.proxy_service_pb2_grpc import ProxyServiceStub
from folkmoot.v1.task_pb2 import ExitClass, Image, Isolation, TaskInput
from tests.integration.client.conftest import Hub

POLICY = """
runtimes = ["process"]
[[allow]]
images = ["process:examples.*"]
initiators = ["*"]
labels = ["patients"]
subtasks = true
messages = true
"""
PATIENTS = "age,sex\n40,1\n50,2\n60,1\n"


@dataclass
class Algorithm:
    """An algorithm's side of its proxy."""

    stub: Any
    context: pb.GetContextResponse
    sent: dict[str, int] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        return json.loads(self.context.input.arguments_json)

    async def result(self, value: object) -> None:
        await self.write("application/json", json.dumps(value).encode())

    async def insist(self, value: object) -> None:
        """Write a result, across restarts of the node."""
        while True:
            try:
                return await self.result(value)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.02)

    async def subtask(self, function: str, *, key: str, organizations: list[str]) -> str:
        head = TaskInput(function=function, arguments_json="{}").SerializeToString()
        content = len(head).to_bytes(4, "big") + head
        addresses = [self.address(name) for name in organizations]
        inputs = [pb.SubtaskInput(size_bytes=len(content))]
        wish = pb.SubtaskHead(key=key, organization_ids=addresses, labels=self.context.labels, inputs=inputs)

        async def frames() -> AsyncIterator[pb.CreateSubtaskRequest]:
            yield pb.CreateSubtaskRequest(head=wish)
            yield pb.CreateSubtaskRequest(data=content)

        return (await self.stub.CreateSubtask(frames(), wait_for_ready=True)).task_id

    async def results(self, task_id: str) -> AsyncIterator[Any]:
        content = b""
        async for frame in self.stub.WatchSubtask(pb.WatchSubtaskRequest(task_id=task_id)):
            content += frame.data
            if frame.data:
                yield json.loads(content)

    async def send(self, organization: str, value: object) -> None:
        address = self.address(organization)
        self.sent[address] = self.sent.get(address, 0) + 1
        await self.stub.SendMessage(
            pb.SendMessageRequest(
                organization_id=address, sequence=self.sent[address], content=json.dumps(value).encode()
            )
        )

    async def receive(self, organization: str) -> Any:
        call = self.stub.ReceiveMessages(pb.ReceiveMessagesRequest())
        async for message in call:
            if message.organization_id == self.address(organization):
                call.cancel()
                return json.loads(message.content)
        raise AssertionError("the node ended the stream")

    def address(self, organization: str) -> str:
        return next(peer.organization_id for peer in self.context.members if peer.name == organization)

    async def write(self, content_type: str, content: bytes) -> None:
        async def frames() -> AsyncIterator[pb.WriteResultRequest]:
            yield pb.WriteResultRequest(head=pb.ResultHead(content_type=content_type))
            for at in range(0, len(content), 1 << 20):
                yield pb.WriteResultRequest(data=content[at : at + (1 << 20)])
            yield pb.WriteResultRequest(digest=hashlib.sha256(content).digest())

        await self.stub.WriteResult(frames(), wait_for_ready=True)


Function = Callable[[Algorithm], Awaitable[None]]


@dataclass
class Engine:
    """What runs, whichever node watches it: functions of this process, each over a real socket."""

    functions: Mapping[str, Function]
    started: list[RunStart] = field(default_factory=list)
    running: dict[str, "asyncio.Task[None]"] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    def runtime(self, config: CollaborationConfig, directory: Path, node_id: str, proxy: Proxy) -> "EngineRuntime":
        return EngineRuntime(self)

    async def execute(self, start: RunStart) -> None:
        async with grpc.aio.insecure_channel(f"unix:{start.socket_directory}/proxy.sock") as channel:
            stub = ProxyServiceStub(channel)
            context = await stub.GetContext(pb.GetContextRequest(), wait_for_ready=True)
            await self.functions[context.input.function](Algorithm(stub, context))

    async def close(self) -> None:
        for task in self.running.values():
            task.cancel()
        await asyncio.gather(*self.running.values(), return_exceptions=True)


@dataclass
class EngineRuntime:
    """Implements `ports.Runtime` for one node."""

    engine: Engine
    isolation: Isolation.ValueType = Isolation.ISOLATION_PROCESS

    async def prepare(self, image: Image, tell: Callable[[str], None]) -> PreparedImage:
        return PreparedImage(image.process.tree_hash.hex(), tuple(self.engine.functions))

    def name_run(self) -> str:
        return secrets.token_hex(6)

    def scratch_path(self, scratch: Path) -> str:
        return str(scratch)

    def folder_path(self, label: str, folder: Path) -> str:
        return str(folder)

    async def start(self, start: RunStart) -> None:
        self.engine.started.append(start)
        self.engine.running[start.run_name] = asyncio.create_task(self.engine.execute(start))

    async def wait(self, run_name: str) -> None:
        if task := self.engine.running.get(run_name):
            await asyncio.wait({task})

    async def exit(self, run_name: str) -> Exit:
        task = self.engine.running.get(run_name)
        if task is None:
            return Exit(ExitClass.EXIT_CLASS_LOST, None, "")
        if run_name in self.engine.stopped or task.cancelled() or task.exception():
            return Exit(ExitClass.EXIT_CLASS_ERROR, 1, "" if task.cancelled() else str(task.exception()))
        return Exit(ExitClass.EXIT_CLASS_UNSPECIFIED, 0, "")

    async def stop(self, run_name: str) -> None:
        self.engine.stopped.add(run_name)
        if task := self.engine.running.get(run_name):
            task.cancel()
            await asyncio.wait({task})

    async def remove(self, run_name: str) -> None:
        await self.stop(run_name)
        self.engine.running.pop(run_name, None)

    async def adopt(self) -> frozenset[str]:
        return frozenset(self.engine.running)

    async def close(self) -> None:
        """What runs goes on."""


@dataclass
class Stations:
    """Nodes of a hub's organizations; the same organization again is the same node, restarted."""

    hub: Hub
    keep_files: bool = False
    """Leave an organization's files as they are, as a test has changed them."""

    def configure(
        self,
        organization: str,
        *,
        place: str = "",
        node: str = "",
        policy: str = POLICY,
        data: str = PATIENTS,
        **changes: Any,
    ) -> Path:
        """Write what a node of an organization (the first one) needs, on the machine `place`; return its node.toml."""
        folder = self.hub.folder / f"station-{organization}{place}"
        if self.keep_files:
            return folder / "node.toml"
        folder.mkdir(exist_ok=True)
        owner = self.hub.lung[organization]
        authority = self.hub.server.running.certificate_authority
        (folder / "ca.pem").write_bytes(authority or b"")
        (folder / "node.pem").write_bytes(dump_signing_key(owner.nodes[node or f"{organization.lower()}-1"]))
        (folder / "organization.pem").write_bytes(dump_organization_key(owner.organization_key))
        (folder / "policy.toml").write_text(policy)
        (folder / "patients.csv").write_text(data)
        sockets = folder / "sockets.txt"
        if not sockets.exists():
            sockets.write_text(tempfile.mkdtemp(prefix="fm-"))
        usual = {
            "collaboration": str(self.hub.lung.state.reference),
            "server": self.hub.server.running.address,
            "organization": owner.address,
            "node_key": "node.pem",
            "organization_key": "organization.pem",
            "policy": "policy.toml",
            "encryption": "sealed",
            "runtime": "process",
            "slots": 1,
        }
        settings = usual | ({"certificate_authority": "ca.pem"} if authority else {"insecure": True}) | changes
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        (folder / "node.toml").write_text(
            "\n".join(
                [
                    'state_directory = "state"',
                    f"runtime_directory = {json.dumps(sockets.read_text())}",
                    "[[collaboration]]",
                    *lines,
                    "[collaboration.data.patients]",
                    'source = "csv"',
                    'path = "patients.csv"',
                ]
            )
        )
        return folder / "node.toml"

    @asynccontextmanager
    async def station(
        self, organization: str, *, engine: Engine | None = None, attached: bool = True, **changes: Any
    ) -> AsyncIterator[RunningNode]:
        """A node, attached, until the block ends."""
        config = load_config(self.configure(organization, **changes))
        runtime = {"runtime": engine.runtime} if engine else {}
        async with serve(config, **runtime) as node:
            if attached:
                await node.attached()
            yield node
