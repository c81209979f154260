"""Growth: what lists, a new task and a node's return cost with 1,000,000 runs stored, against 1,000.

The stored runs are those of ended tasks, copied by the database itself from tasks that were made as tasks are made: it has them
in its tables and indexes as if they had come one by one. Each figure is the median of many calls, in milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from bench.context import Context
from bench.report import Row, ratio_at_most
from bench.rows._prepared import Prepared
from bench.rows._stage import Stage, Station, calm, stage
from folkmoot.client import AsyncClient
from folkmoot.client.keyfiles import read_signing_key
from folkmoot.trust import make_authentication, uuid7
from folkmoot.v1.auth_service_pb2 import AuthenticateNodeRequest, GetNonceRequest
from folkmoot.v1.auth_service_pb2_grpc import AuthServiceStub
from folkmoot.v1.link_pb2 import Hello, NodeFrame
from folkmoot.v1.task_service_pb2 import AttachRequest, AttachResponse, CancelTaskRequest, ListTasksRequest
from folkmoot.v1.task_service_pb2_grpc import TaskServiceStub

ONLY_WHEN_ASKED = True  # it takes minutes, and a GB of disk
FEW_RUNS, MANY_RUNS = 1_000, 1_000_000
RUNS_OF_A_TASK = 3
CALLS = 100
TASKS_AT_ONCE = 20_000
COMPLETED = 8


def measure(context: Context) -> list[Row]:
    few, many = asyncio.run(_measure(context))
    return [
        Row(
            f"growth: {name}",
            "ms",
            many[name],
            few[name],
            (ratio_at_most(1.2),),
            peers="vantage6: DISTINCT over payload columns, no index" if name == "ListTasks" else "",
            note=f"median of {CALLS}, with {MANY_RUNS:,} runs stored; the limit is the same with {FEW_RUNS:,}",
        )
        for name in few
    ]


async def _measure(context: Context) -> tuple[dict[str, float], dict[str, float]]:
    async with stage(Station(attached=False), parent=context.folder) as playing, playing.client() as client:
        prepared = await Prepared.by(client, playing, playing.names)
        await client.connection.session.call(client.connection.session.tasks.CreateTask, prepared.request())
        database = playing.folder / "server" / "folkmoot.db"
        figures = []
        for number in (FEW_RUNS, MANY_RUNS):
            await asyncio.to_thread(_store_runs, database, number)
            figures.append(await _figures(playing, client, prepared))
        return figures[0], figures[1]


async def _figures(playing: Stage, client: AsyncClient, prepared: Prepared) -> dict[str, float]:
    session = client.connection.session
    requests = iter([prepared.request() for _ in range(CALLS + 1)])
    everything = ListTasksRequest(genesis=client.connection.reference.genesis)
    node = _Node(playing, client)
    created: list[str] = []

    async def create() -> None:
        created.append((await session.call(session.tasks.CreateTask, next(requests))).task.task_id)

    figures = {
        "ListTasks": await _median(lambda: session.call(session.tasks.ListTasks, everything)),
        "CreateTask": await _median(create),
        "Attach": await _median(node.attach, prepare=node.authenticate),
    }
    for task_id in created:  # as many wait for a node each time: what is stored is compared, not what waits
        await session.call(session.tasks.CancelTask, CancelTaskRequest(task_id=task_id))
    return figures


async def _median(
    action: Callable[[], Awaitable[object]], prepare: Callable[[], Awaitable[object]] | None = None
) -> float:
    taken = []
    await calm()
    for _ in range(CALLS + 1):
        if prepare is not None:
            await prepare()
        began = time.perf_counter()
        await action()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken[1:])


class _Node:
    """The first organization's node, as far as its return goes: from Attach to Welcome."""

    def __init__(self, playing: Stage, client: AsyncClient) -> None:
        self._one = playing.initiator
        self._client = client
        self._key = read_signing_key(self._one.folder / "node.pem")
        authority = x509.load_pem_x509_certificate(Path(playing.cast.authority_file).read_bytes())
        self._authority_digest = authority.fingerprint(hashes.SHA256())
        self._channel = client.connection.session.channel
        self._token = ""

    async def authenticate(self) -> None:
        """Get a token; that is not measured."""
        auth = AuthServiceStub(self._channel)
        own = await self._client.connection.own()
        signed = make_authentication(
            genesis=self._client.connection.reference.genesis,
            organization_id=own.member.organization_id,
            key=self._key,
            nonce=(await auth.GetNonce(GetNonceRequest())).nonce,
            server_authority_digest=self._authority_digest,
            now=datetime.now(UTC),
        )
        self._token = (await auth.AuthenticateNode(AuthenticateNodeRequest(authentication=signed))).access_token

    async def attach(self) -> None:
        """Say Hello and wait for the Welcome."""
        call = TaskServiceStub(self._channel).Attach(metadata=(("authorization", f"Bearer {self._token}"),))
        boot_id = uuid7(datetime.now(UTC), os.urandom)
        hello = Hello(node_id=self._key.fingerprint, boot_id=boot_id, protocol_min=1, protocol_max=1, version="0.1.0")
        await call.write(AttachRequest(frame=NodeFrame(hello=hello)))
        while not (isinstance(answer := await call.read(), AttachResponse) and answer.frame.HasField("welcome")):
            pass
        call.cancel()


# ---- what is stored --------------------------------------------------------------------------------------------------


def _store_runs(database: Path, number: int) -> None:
    """Copy the first task, ended, with its runs and its input, until there are so many runs."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as connection:
        there = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        first, last = there, there + (number - there) // RUNS_OF_A_TASK
        for begin in range(first, last, TASKS_AT_ONCE):
            numbers = (begin, min(begin + TASKS_AT_ONCE, last) - 1)
            connection.execute("BEGIN IMMEDIATE")
            for table, changes in _COPIES.items():
                _copy(connection, table, changes, numbers)
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


_TASK_ID = "printf('01000000-0000-7000-8000-%012x', n)"
_COPIES = {
    "tasks": {"task_id": _TASK_ID, "job_id": _TASK_ID, "digest": "randomblob(32)"},
    "runs": {
        "run_id": f"printf('02000000-0000-7%03x-8000-%012x', position % {RUNS_OF_A_TASK}, n)",
        "task_id": _TASK_ID,
        "state": str(COMPLETED),
        "ended_at": "created_at",
        "input_digest": "CAST(printf('%032d', n) AS BLOB)",
    },
    "payloads": {"envelope_digest": "CAST(printf('%032d', n) AS BLOB)", "task_id": _TASK_ID},
}


def _copy(connection: sqlite3.Connection, table: str, changes: dict[str, str], numbers: tuple[int, int]) -> None:
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "position"]
    values = ", ".join(changes.get(name, name) for name in columns)
    first = "(SELECT task_id FROM tasks ORDER BY position LIMIT 1)"
    count = "WITH RECURSIVE counted(n) AS (SELECT ? UNION ALL SELECT n + 1 FROM counted WHERE n < ?)"
    source = f"counted, (SELECT * FROM {table} WHERE task_id = {first})"
    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) {count} SELECT {values} FROM {source}", numbers)
