"""How a container's end is read from what the engine says; the engine is a fake that says it."""

from typing import Any

import pytest
import requests
from docker.errors import APIError

from folkmoot.node.runtimes import docker
from folkmoot.node.runtimes.docker import DockerRuntime
from folkmoot.v1 import task_pb2 as pb


class Engine:
    """Says one state; the first calls of each kind may fail."""

    def __init__(self, *failures: Exception, events: int = 0, **state: Any) -> None:
        self.wait_failures, self.inspect_failures = list(failures), list(failures)
        self.told = events
        self.state = {"Status": "exited", "OOMKilled": False, "ExitCode": 0, "StartedAt": "then", **state}

    def wait(self, name: str) -> None:
        if self.wait_failures:
            raise self.wait_failures.pop(0)

    def inspect_container(self, name: str) -> dict[str, Any]:
        if self.inspect_failures:
            raise self.inspect_failures.pop(0)
        return {"State": self.state}

    def logs(self, name: str, **_: Any) -> bytes:
        return b"last words"

    def events(self, **asked: Any) -> Any:
        assert asked["filters"]["event"] == "oom"
        return ({} for _ in range(self.told))


def answer(status_code: int) -> APIError:
    response = requests.Response()
    response.status_code = status_code
    return APIError("refused", response)


async def exit_of(engine: Engine) -> pb.ExitClass.ValueType:
    runtime = DockerRuntime(node="node")
    vars(runtime)["_api"] = engine
    await runtime.wait("0" * 12)
    return (await runtime.exit("0" * 12)).exit_class


@pytest.mark.parametrize(
    ("engine", "exit_class"),
    [
        (Engine(), pb.EXIT_CLASS_UNSPECIFIED),
        (Engine(ExitCode=1), pb.EXIT_CLASS_ERROR),
        (Engine(ExitCode=137), pb.EXIT_CLASS_ERROR),
        (Engine(ExitCode=137, OOMKilled=True), pb.EXIT_CLASS_OUT_OF_MEMORY),
        (Engine(ExitCode=137, events=1), pb.EXIT_CLASS_OUT_OF_MEMORY),
        (Engine(ExitCode=1, OOMKilled=True), pb.EXIT_CLASS_OUT_OF_MEMORY),
        (Engine(Status="created", Error="no such file"), pb.EXIT_CLASS_NOT_STARTED),
        (Engine(answer(404)), pb.EXIT_CLASS_LOST),
        (Engine(answer(409)), pb.EXIT_CLASS_LOST),
    ],
    ids=[
        "clean",
        "error",
        "killed",
        "memory by mark",
        "memory by event",
        "a child's memory",
        "not started",
        "gone",
        "going",
    ],
)
async def test_end_has_its_class(engine, exit_class):
    assert await exit_of(engine) == exit_class


async def test_engine_that_restarts_does_not_end_the_wait(monkeypatch):
    """The container may outlive its engine, and nobody may call it lost while the engine can't be asked."""
    monkeypatch.setattr(docker, "_RETRY_SECONDS", 0)
    failures = [requests.exceptions.ConnectionError("refused"), answer(500)] * 3
    assert await exit_of(Engine(*failures, ExitCode=7)) == pb.EXIT_CLASS_ERROR
