"""Health, service by service: whether what a service needs is there, looked at every few seconds.

Every service needs the database; PayloadService needs the payload store, too. A load balancer asks grpc.health.v1 by the
service's name, and by the empty name for the server as a whole, which is as healthy as its database. While the server
drains nothing is healthy. What carries wake-ups to other instances makes things slower when it is away, and nothing else:
then everything is served on, and the log and the metrics say that it is missing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from sqlalchemy import literal, select

from folkmoot.server.core import Core
from folkmoot.transport.timeouts import CALL_SECONDS

LOOKED_EVERY_SECONDS = 5.0
STORE_LOOKED_EVERY_SECONDS = 30.0
"""A bucket is asked less often: what is asked of it is paid for. While it is out of reach it is asked as often as the database."""
WHOLE_SERVER = ""
PAYLOAD_SERVICE = "folkmoot.v1.PayloadService"
DATABASE, PAYLOAD_STORE, WAKER = "database", "payload_store", "waker"

Probe = Callable[[], Awaitable[object]]
"""Raises, or does not come back, when something is out of reach."""


class Health:
    """What the server says of itself."""

    def __init__(self, core: Core, services: Sequence[str], payload_store: Probe) -> None:
        self._core = core
        self._servicer = health.aio.HealthServicer()
        self._services = (WHOLE_SERVER, *services)
        self._probes: Mapping[str, Probe] = {
            DATABASE: lambda: core.store.read(lambda connection: connection.execute(select(literal(1))).all()),
            PAYLOAD_STORE: payload_store,
            WAKER: self._reach_others,
        }
        self._missing: frozenset[str] = frozenset()
        self._looking = asyncio.Lock()
        self._store_looked_at = time.monotonic()  # when the server started

    @property
    def dependencies(self) -> Mapping[str, bool]:
        """Whether each thing that the server needs was there when it was looked at last."""
        return {name: name not in self._missing for name in self._probes}

    async def begin(self, server: grpc.aio.Server) -> None:
        """Answer from now on; all is well until it is found not to be."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._tell()

    async def keep(self) -> None:
        """Look every few seconds, until the server is about to stop."""
        while not self._core.draining.is_set():
            is_due = time.monotonic() - self._store_looked_at >= STORE_LOOKED_EVERY_SECONDS
            await self.look([DATABASE, PAYLOAD_STORE, WAKER] if is_due or self._missing else [DATABASE, WAKER])
            await self._core.pause(LOOKED_EVERY_SECONDS)

    async def look(self, names: Sequence[str] = (DATABASE, PAYLOAD_STORE, WAKER)) -> None:
        """Look at what services need; tell who asks or watches."""
        async with self._looking:
            await self._look(names)

    async def _look(self, names: Sequence[str]) -> None:
        if PAYLOAD_STORE in names:
            self._store_looked_at = time.monotonic()
        answers = await asyncio.gather(*(self._is_missing(name) for name in names))
        found = {name for name, is_missing in zip(names, answers, strict=True) if is_missing}
        missing = frozenset(found | (self._missing - set(names)))
        for name in missing - self._missing:
            self._core.log.error("health.lost", what=name)
        for name in self._missing - missing:
            self._core.log.info("health.back", what=name)
        self._missing = missing
        await self._tell()

    async def drain(self) -> None:
        """Say that nothing is served any more; from now on nothing else is said."""
        await self._servicer.enter_graceful_shutdown()

    async def _reach_others(self) -> None:
        if not self._core.waker.is_connected:
            raise ConnectionError(
                "what carries wake-ups to other instances can't be reached; it is tried again by itself"
            )

    async def _is_missing(self, name: str) -> bool:
        try:
            await asyncio.wait_for(self._probes[name](), CALL_SECONDS)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it can't be used
            self._core.log.debug("health.probe_failed", what=name, problem=str(error))
            return True
        return False

    async def _tell(self) -> None:
        for service in self._services:
            needed = {DATABASE, PAYLOAD_STORE} if service == PAYLOAD_SERVICE else {DATABASE}
            is_served = not needed & self._missing
            status = health_pb2.HealthCheckResponse
            await self._servicer.set(service, status.SERVING if is_served else status.NOT_SERVING)
