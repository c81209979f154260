"""How the server is run: health, reflection, TLS, one process per folder, a clean end."""

import asyncio
import json
import signal
import sys
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from folkmoot.server.app import SERVICES, serve
from folkmoot.server.config import Config
from folkmoot.trust import FolkmootError
from folkmoot.v1 import admin_service_pb2 as admin
from folkmoot.v1 import auth_service_pb2 as auth
from tests.integration.harness import reason, refused, server


def check_health(s, service):
    stub: Any = health_pb2_grpc.HealthStub(s.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service))


async def listed_services(s) -> set[str]:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(s.channel)
    answers = stub.ServerReflectionInfo(iter([request]))
    return {service.name async for answer in answers for service in answer.list_services_response.service}


async def test_every_service_is_healthy_without_a_token(tmp_path):
    async with server(tmp_path) as s:
        for name in ("", *SERVICES):
            assert (await check_health(s, name)).status == health_pb2.HealthCheckResponse.SERVING
        assert len(SERVICES) == 6


async def test_contract_can_be_read_from_the_server(tmp_path):
    async with server(tmp_path) as s:
        assert await listed_services(s) == {*SERVICES, "grpc.health.v1.Health"}


async def test_reflection_can_be_closed(tmp_path):
    async with server(tmp_path, reflection=False) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed_services(s)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_client_that_does_not_know_the_authority_is_not_served(tmp_path):
    credentials = grpc.ssl_channel_credentials()
    async with server(tmp_path) as s, grpc.aio.secure_channel(s.running.address, credentials) as channel:
        call: Any = channel.unary_unary("/folkmoot.v1.AdminService/GetServerInfo")
        assert (await refused(call(b""))).code == grpc.StatusCode.UNAVAILABLE


async def test_insecure_server_has_no_certificates(tmp_path):
    async with server(tmp_path, insecure=True) as s:
        assert s.running.certificate_authority is None
        await s.root()
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # a folder that servers share is what PostgreSQL is for
async def test_second_server_on_the_same_folder_is_refused_and_the_first_goes_on(tmp_path):
    async with server(tmp_path) as s:
        with pytest.raises(FolkmootError, match="another server uses"):
            await serve(Config(data=tmp_path, listen="127.0.0.1:0"))
        await s.root()


async def test_taken_address_is_a_clear_error_and_lets_go_of_the_folder(tmp_path):
    async with server(tmp_path / "one") as s:
        for _ in range(2):
            with pytest.raises(FolkmootError, match="can't be listened on"):
                await serve(Config(data=tmp_path / "two", listen=s.running.address))
    async with server(tmp_path / "two") as s:
        await s.root()


async def test_fault_of_ours_is_logged_and_not_told(tmp_path, monkeypatch, capsys):
    async with server(tmp_path, log_level="error") as s:
        root = await s.root()

        def broken(*_arguments, **_settings):
            raise ZeroDivisionError("the secret of the house")

        monkeypatch.setattr("folkmoot.server.pages.size", broken)
        error = await refused(s.admin.ListUsers(admin.ListUsersRequest(), metadata=root.metadata))
        assert (reason(error), error.code.name) == ("INTERNAL", "INTERNAL")
        assert "secret" not in str(error)
        logged = json.loads(capsys.readouterr().err)
        assert logged["request_id"] == error.metadata["request_id"]
        assert "the secret of the house" in logged["exception"]


async def test_message_that_is_too_large_is_refused(tmp_path):
    async with server(tmp_path) as s:
        call: Any = s.channel.unary_unary("/folkmoot.v1.AuthService/Login")
        error = await refused(call(auth.LoginRequest(username="x" * (4 * 1024 * 1024)).SerializeToString()))
        assert error.code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_data_folder_is_its_owners_alone(tmp_path):
    async with server(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0


async def test_command_serves_until_it_is_told_to_stop(tmp_path):
    command = "from folkmoot.server.cli import server; server()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", command, "start", "--data", tmp_path / "data", "--listen", "127.0.0.1:0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(3)]
    assert lines[0].startswith("Set-up token: ")
    assert lines[2].startswith("Serving on 127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    _, log = await process.communicate()
    assert process.returncode == 0
    said = [json.loads(line)["event"] for line in log.splitlines()]
    assert [event for event in said if event != "events.head"] == ["server.started", "server.stopped"]
