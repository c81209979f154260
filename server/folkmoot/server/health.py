"""Health, service by service: whether what a service needs is there, looked at every few seconds.

Every service needs the database; PayloadService needs the payload store, too. A load balancer asks grpc.health.v1 by the
service's name, and by the empty name for the server as a whole, which is as healthy as its database. While the server
drains nothing is healthy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from sqlalchemy import literal, select

from folkmoot.server.core import Core
from folkmoot.transport.timeouts import CALL_SECONDS

LOOKED_EVERY_SECONDS = 5.0
WHOLE_SERVER = ""
PAYLOAD_SERVICE = "folkmoot.v1.PayloadService"

Probe = Callable[[], Awaitable[object]]
"""Raises, or does not come back, when something is out of reach."""


class Health:
    """What the server says of itself."""

    def __init__(self, core: Core, services: Sequence[str], payload_store: Probe) -> None:
        self._core = core
        self._servicer = health.aio.HealthServicer()
        self._services = (WHOLE_SERVER, *services)
        self._probes: Mapping[str, Probe] = {
            "database": lambda: core.store.read(lambda connection: connection.execute(select(literal(1))).all()),
            "payload store": payload_store,
        }
        self._missing: frozenset[str] = frozenset()
        self._looking = asyncio.Lock()

    async def begin(self, server: grpc.aio.Server) -> None:
        """Answer from now on; all is well until it is found not to be."""
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        await self._tell()

    async def keep(self) -> None:
        """Look every few seconds, until the server is about to stop."""
        while not self._core.draining.is_set():
            await self.look()
            await self._core.pause(LOOKED_EVERY_SECONDS)

    async def look(self) -> None:
        """Look at what services need; tell who asks or watches."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        answers = await asyncio.gather(*(self._is_missing(name) for name in self._probes))
        missing = frozenset(name for name, is_missing in zip(self._probes, answers, strict=True) if is_missing)
        for name in missing - self._missing:
            self._core.log.error("health.lost", what=name)
        for name in self._missing - missing:
            self._core.log.info("health.back", what=name)
        self._missing = missing
        await self._tell()

    async def drain(self) -> None:
        """Say that nothing is served any more; from now on nothing else is said."""
        await self._servicer.enter_graceful_shutdown()

    async def _is_missing(self, name: str) -> bool:
        try:
            await asyncio.wait_for(self._probes[name](), CALL_SECONDS)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it can't be used
            self._core.log.debug("health.probe_failed", what=name, problem=str(error))
            return True
        return False

    async def _tell(self) -> None:
        for service in self._services:
            needed = {"database", "payload store"} if service == PAYLOAD_SERVICE else {"database"}
            is_served = not needed & self._missing
            status = health_pb2.HealthCheckResponse
            await self._servicer.set(service, status.SERVING if is_served else status.NOT_SERVING)
