"""A task as it is handed to the server: signed spec and sealed inputs. Handing it over again gives the same task.

Whoever has made a task keeps this while he waits for it. A server that was restored from a backup may not know the task any
more; it gets it again, with the ids, signature and ciphertext that the nodes know already, so that nothing is executed twice.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from folkmoot.client.connection import Connection
from folkmoot.client.inputs import SealedInput, inline
from folkmoot.transport import RemoteError
from folkmoot.transport.tracing import record_task
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import TaskChain, TaskSpec
from folkmoot.v1.task_service_pb2 import CreateTaskRequest

Answer = TypeVar("Answer")

log = logging.getLogger("folkmoot.client")


@dataclass(frozen=True)
class Submission:
    """What makes a task at the server."""

    chain: TaskChain
    inputs: Sequence[SealedInput]

    async def hand_over(self, connection: Connection) -> None:
        """Have the server store the task; one that it has already stays as it is."""
        await giving_back(connection, lambda: self._create(connection))

    async def _create(self, connection: Connection) -> None:
        session = connection.session
        along, before = inline(self.inputs)
        began_at = time.time()
        for one in before:
            await session.upload(one.source, one.reference.envelope_digest)
        request = CreateTaskRequest(chain=self.chain, envelopes=[one.envelope() for one in along])
        await session.call(session.tasks.CreateTask, request)
        if session.tracer is not None:
            record_task(session.tracer, TaskSpec.FromString(self.chain.specs[-1].body), began_at=began_at)

    async def hand_over_again(self, connection: Connection, task_id: str) -> None:
        """Give the task to a server that has lost it."""
        log.warning("the server does not know the task %s any more, and gets it again", task_id)
        await self.hand_over(connection)


async def giving_back(connection: Connection, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask something of the server; one that has lost entries of the ledger gets them back first, and is asked again."""
    try:
        return await ask()
    except RemoteError as error:
        if error.reason != ErrorReason.ERROR_REASON_LEDGER_STALE:
            raise
        await connection.state(newest=True)
        return await ask()
