"""A crowd: calls per second, and a thousand nodes that are attached, are told the same, and come back all at once.

The nodes are admitted by the ledger, authenticate with their keys and attach as real ones do; all of them live in this
process, so that what is measured is the server. The storm: the server is stopped and started again; from the moment when it
serves, each node opens a new connection, attaches with the token that it has, and is welcome. What is told to all is a new
entry of the ledger: it goes to every node of a collaboration, while a task goes to one node of each organization.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from bench.context import Context
from bench.limits import crowd
from bench.limits.common import resident_mebibytes
from bench.report import Row, ratio_at_least, ratio_at_most
from bench.rows._samples import spread
from bench.rows._stage import Stage, Station, calm, stage, start
from folkmoot.client import AsyncClient
from folkmoot.transport import CHANNEL_OPTIONS, ServerAddress, timeouts
from folkmoot.trust import (
    SigningKey,
    State,
    make_authentication,
    make_head_statement,
    make_node_claim,
    node_approve_entry,
)
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest, GetNonceRequest, WhoAmIRequest
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.link_pb2 import Heartbeat, Hello, NodeFrame
from folkmoot.v1.signed_pb2 import Signed
from folkmoot.v1.task_service_pb2 import AttachRequest
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub

CALLS = 4000
REPETITIONS = 5
STORMS = 3


@dataclass
class Node:
    """A node of the crowd: its key, its token, its stream."""

    key: SigningKey
    organization_id: str
    channel: grpc.aio.Channel | None = None
    token: str = ""
    stream: Any = None
    is_attached: bool = False

    async def authenticate(self, address: ServerAddress, genesis: bytes) -> None:
        """Prove the key."""
        auth: Any = AuthServiceStub(self.opened)
        nonce = (await auth.GetNonce(GetNonceRequest(), wait_for_ready=True)).nonce
        proof = make_authentication(
            genesis=genesis,
            organization_id=self.organization_id,
            key=self.key,
            nonce=nonce,
            server_authority_digest=address.authority_digest,
            now=datetime.now(UTC),
        )
        request = AuthenticateNodeRequest(authentication=proof)
        self.token = (await auth.AuthenticateNode(request)).access_token

    async def attach(self, state: State) -> None:
        """Say hello; return when welcome."""
        tasks: Any = TaskServiceStub(self.opened)
        self.stream = tasks.Attach(metadata=(("authorization", f"Bearer {self.token}"),), wait_for_ready=True)
        hello = Hello(
            node_id=self.key.fingerprint,
            boot_id="01890000-0000-7000-8000-000000000001",
            protocol_min=1,
            protocol_max=1,
            version="0.1.0",
            ledger_position=state.position.message(),
            head_statement=make_head_statement(
                state, node_key=self.key, organization_id=self.organization_id, now=datetime.now(UTC)
            ),
        )
        await self.stream.write(AttachRequest(frame=NodeFrame(hello=hello)))
        await self.told("welcome")
        self.is_attached = True

    async def show_life(self) -> None:
        """Send a heartbeat, as nodes do: one that is silent is taken for away."""
        if self.is_attached:
            await self.stream.write(AttachRequest(frame=NodeFrame(heartbeat=Heartbeat())))

    async def hang_up(self) -> None:
        """Close the connection."""
        self.is_attached = False
        if self.channel is not None:
            await self.channel.close()

    async def told(self, kind: str) -> None:
        """Read until a frame of a kind."""
        while True:
            answer = await self.stream.read()
            if any(frame.HasField(kind) for frame in (answer.frame, *answer.more)):
                return

    @property
    def opened(self) -> grpc.aio.Channel:
        """The channel, which is there by now."""
        if self.channel is None:
            raise RuntimeError("the node has no channel yet")
        return self.channel


def measure(context: Context) -> list[Row]:
    _tell("limits: bare calls, streams and handshakes")
    limits = crowd.measure(streams=context.nodes)
    found = asyncio.run(_measure(context))
    rates, kibibytes, pushes, storms = found
    return [
        Row(
            "calls",
            "calls/s",
            statistics.median(rates),
            limits.calls.value,
            (ratio_at_least(0.4),),
            note=f"WhoAmI with a token, {crowd.IN_FLIGHT} in flight on one connection; {spread(rates)}",
        ),
        Row(
            "fan-out",
            "ms",
            statistics.median(pushes),
            limits.push.value,
            (ratio_at_most(3),),
            peers="vantage6 sends to every node of the room, each then fetches",
            note=f"a ledger entry appended until {context.nodes} attached nodes have been told; {spread(pushes)}",
        ),
        Row(
            "idle nodes",
            "KiB",
            kibibytes,
            limits.memory.value,
            (ratio_at_most(2),),
            note=f"resident memory per attached node, {context.nodes} of them",
        ),
        Row(
            "reconnect storm",
            "s",
            statistics.median(storms),
            limits.handshakes.value,
            (ratio_at_most(3),),
            peers="vantage6: password hash over all nodes per login, O(n^2)",
            note=f"{context.nodes} nodes after a restart: from serving until all are attached; {spread(storms)}",
        ),
    ]


def _tell(step: str) -> None:
    print(f"crowd: {step}", file=sys.stderr, flush=True)


async def _measure(context: Context) -> tuple[list[float], float, list[float], list[float]]:
    async with stage(Station(attached=False), parent=context.folder) as playing, AsyncExitStack() as stack:
        _tell("calls")
        async with playing.client() as client:
            rates = await _rates(client)
        one = playing.cast.hospitals[0]
        admin = await stack.enter_async_context(playing.cast.client(one, one.admin))
        nodes = [Node(SigningKey.generate(os.urandom), one.governance_key.fingerprint) for _ in range(context.nodes)]
        stack.push_async_callback(_stop_server, playing)
        stack.push_async_callback(_hang_up, nodes)
        _tell(f"{context.nodes} nodes are admitted")
        state = await _admit_all(admin, one.governance_key, nodes)
        address, server = playing.cast.address, playing.processes["server"]
        await calm()
        before = resident_mebibytes(server.pid)
        stack.enter_context(_alive(nodes))
        _tell("they authenticate and attach")
        await _all_attach(nodes, address, state, authenticate=True)
        kibibytes = (resident_mebibytes(server.pid) - before) * 1024 / context.nodes
        _tell("they are told of entries")
        pushes = [await _push(admin, one.governance_key, nodes, number) for number in range(REPETITIONS)]
        _tell("they come back after restarts")
        storms = [await _storm(playing, nodes, state) for _ in range(STORMS)]
    return rates, kibibytes, pushes, storms


async def _stop_server(playing: Stage) -> None:
    await playing.processes["server"].stop()


async def _hang_up(nodes: list[Node]) -> None:
    await asyncio.gather(*(node.hang_up() for node in nodes))


async def _show_life(nodes: list[Node]) -> None:
    while True:
        await asyncio.sleep(timeouts.HEARTBEAT_SECONDS)
        for node in nodes:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the server is being restarted
                await node.show_life()


@contextmanager
def _alive(nodes: list[Node]) -> Iterator[None]:
    """Have all that are attached show life."""
    showing = asyncio.ensure_future(_show_life(nodes))
    try:
        yield
    finally:
        showing.cancel()


async def _rates(client: AsyncClient) -> list[float]:
    session = client.connection.session

    async def call() -> None:
        await session.auth.WhoAmI(WhoAmIRequest(), metadata=session.metadata(), timeout=timeouts.CALL_SECONDS)

    return [await crowd.in_flight(call, crowd.IN_FLIGHT, CALLS) for _ in range(1 + REPETITIONS)][1:]


async def _admit(admin: AsyncClient, governance_key: SigningKey, node: Node, number: int) -> State:
    """Have the ledger admit a node."""
    now = datetime.now(UTC)

    def make(state: State) -> Signed:
        claim = make_node_claim(
            genesis=state.genesis,
            organization_id=node.organization_id,
            node_name=f"crowd-{number}",
            node_key=node.key,
            now=now,
        )
        return node_approve_entry(state, claim, key=governance_key, organization_id=node.organization_id, now=now)

    return await admin.connection.append(make)


async def _admit_all(admin: AsyncClient, governance_key: SigningKey, nodes: list[Node]) -> State:
    first, *others = nodes
    state = await _admit(admin, governance_key, first, 0)
    for number, node in enumerate(others, 1):
        state = await _admit(admin, governance_key, node, number)
    return state


async def _all_attach(nodes: list[Node], address: ServerAddress, state: State, *, authenticate: bool) -> None:
    authority = address.certificate_authority or b""
    channels = crowd.open_channels(address.target, authority, len(nodes), CHANNEL_OPTIONS)

    async def attach(node: Node) -> None:
        if authenticate:
            await node.authenticate(address, state.genesis)
        await node.attach(state)

    for node, channel in zip(nodes, channels, strict=True):
        node.channel = channel
    await crowd.in_lots(nodes, attach)


async def _push(admin: AsyncClient, governance_key: SigningKey, nodes: list[Node], number: int) -> float:
    """Append an entry; milliseconds until every node has been told of it."""
    another = Node(SigningKey.generate(os.urandom), governance_key.fingerprint)
    heads = asyncio.gather(*(node.told("ledger_head") for node in nodes))
    began = time.perf_counter()
    await _admit(admin, governance_key, another, len(nodes) + number)
    await heads
    return (time.perf_counter() - began) * 1e3


async def _storm(playing: Stage, nodes: list[Node], state: State) -> float:
    """Restart the server; seconds from when it serves until all nodes are back."""
    await playing.processes["server"].stop()
    await _hang_up(nodes)
    arguments = ("server", "start", "--data", str(playing.folder / "server"), "--listen", playing.cast.address.target)
    playing.processes["server"] = await start(playing.folder, "again", *arguments, ready="Serving on ")
    await calm()
    began = time.perf_counter()
    await _all_attach(nodes, playing.cast.address, state, authenticate=False)
    return time.perf_counter() - began
