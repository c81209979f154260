"""Health by service: what a service needs is gone, or the server is about to stop."""

import shutil
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from folkmoot.server.app import SERVICES
from folkmoot.server.observation.health import PAYLOAD_SERVICE
from tests.integration.harness import Server, server

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def healthy(s: Server) -> set[str]:
    """Return the services that say that they serve."""
    stub: Any = health_pb2_grpc.HealthStub(s.channel)
    asked = {name: await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("", *SERVICES)}
    return {name for name, answer in asked.items() if answer.status == SERVING}


async def test_payload_store_that_is_gone_ends_the_health_of_what_needs_it(tmp_path):
    async with server(tmp_path, payloads=f"file://{tmp_path}/elsewhere") as s:
        health = s.running._health
        await health.look()
        assert await healthy(s) == {"", *SERVICES}
        shutil.rmtree(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").touch()
        await health.look()
        assert await healthy(s) == {"", *SERVICES} - {PAYLOAD_SERVICE}
        (tmp_path / "elsewhere").unlink()
        await health.look()
        assert await healthy(s) == {"", *SERVICES}


async def test_database_that_is_gone_ends_all_health(tmp_path, monkeypatch):
    async with server(tmp_path) as s:

        async def gone(_operation):
            raise OSError("the database is away")

        monkeypatch.setattr(s.running.core.store, "read", gone)
        await s.running._health.look()
        assert await healthy(s) == set()
        monkeypatch.undo()
        await s.running._health.look()
        assert await healthy(s) == {"", *SERVICES}


async def test_broker_that_is_away_is_told_and_everything_is_served_on(tmp_path, monkeypatch):
    async with server(tmp_path) as s:
        monkeypatch.setattr(s.running.core.waker, "is_connected", False)
        health = s.running._health
        await health.look()
        assert health.dependencies == {"database": True, "payload_store": True, "waker": False}
        assert await healthy(s) == {"", *SERVICES}
        monkeypatch.undo()
        await health.look()
        assert all(health.dependencies.values())


async def test_who_watches_hears_that_the_server_is_about_to_stop(tmp_path):
    async with server(tmp_path) as s:
        stub: Any = health_pb2_grpc.HealthStub(s.channel)
        watching = stub.Watch(health_pb2.HealthCheckRequest(service=PAYLOAD_SERVICE))
        assert (await watching.read()).status == SERVING
        await s.running._health.drain()
        assert (await watching.read()).status == NOT_SERVING
        await s.running._health.look()
        assert await healthy(s) == set(), "what drains does not recover"
