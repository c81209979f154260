"""Algorithms as containers of a Docker engine: no network at all, nothing writable but what is named here.

The run's *folder* is mounted, not its socket: a restarted node binds a new socket in the same folder. Containers carry
labels by which a restarted node finds them. Creating, starting, awaiting and removing are separate calls, so that a run's
end and output are never lost; the exit is the engine's word, however often it is asked.
"""

import asyncio
import contextlib
import dataclasses
import functools
import math
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound

from folkmoot.node.execution.images import engine_name, functions_of, image_altered, image_not_found, is_the_image
from folkmoot.node.execution.patience import Tell
from folkmoot.node.proxy.ports import Exit, PreparedImage, RunStart
from folkmoot.node.runtimes.hardening import (
    DATA_FOLDER,
    HOSTNAME,
    LABEL_GPUS,
    RUN_FOLDER,
    SCRATCH_FOLDER,
    USER,
    Confinement,
    deviations,
    host_config_of,
    missing_of,
    seccomp_of,
)
from folkmoot.node.runtimes.host_paths import find_host_paths
from folkmoot.node.runtimes.pulls import Pulls
from folkmoot.node.threads import in_thread
from folkmoot.node.waiting import cancelled
from folkmoot.transport.failpoints import failpoint
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1 import task_pb2 as pb
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image

DETAIL_CHARACTERS = 8192

LABEL_NODE = "folkmoot.node"
LABEL_RUN = "folkmoot.run"
LABEL_RUN_ID = "folkmoot.run-id"
LABEL_TASK_ID = "folkmoot.task-id"
LABEL_ATTEMPT = "folkmoot.attempt"

_RUN_NAME = re.compile(r"[0-9a-f]{12}")
_KILLED = 137
_GONE = (404, 409)  # not there; not running any more, or being removed
_DETAIL_LINES = 200
_ENGINE_CALLS_AT_ONCE = 64
_RETRY_SECONDS = 1.0

ENGINE_PATIENCE_SECONDS = 60.0
"""How long a call waits for an engine that does not answer: its restart takes seconds. A wait for a run's end never gives up."""

_log = structlog.get_logger("folkmoot.node.docker")
_Answer = TypeVar("_Answer")


class DockerRuntime:
    """Implements `ports.Runtime`. `node` tells its containers from those of other nodes at the same engine."""

    def __init__(
        self,
        *,
        node: str,
        container_runtime: str = "",
        gpus: Sequence[str] = (),
        patience_seconds: float = ENGINE_PATIENCE_SECONDS,
        registry_login_file: Path | None = None,
        registry_patience_seconds: float = 0,
    ) -> None:
        self._node = node
        self._patience_seconds = patience_seconds
        self._confinement = Confinement(container_runtime=container_runtime, gpus=tuple(gpus))
        self._not_started: dict[str, str] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}
        self._pulls = Pulls(self._engine, login_file=registry_login_file, patience_seconds=registry_patience_seconds)

    @property
    def isolation(self) -> pb.Isolation.ValueType:
        """A container, or a sandbox if node.toml names one."""
        return self._confinement.isolation

    async def prepare(self, image: Image, tell: Tell) -> PreparedImage:
        """Find the image at the engine, or have the engine fetch it from its registry."""
        found = await self._engine(lambda api: _find(api, image))
        if found is None and image.HasField("registry"):
            await self._pulls.pull(image.registry, tell)
            found = await self._engine(lambda api: _find(api, image))
        if found is None:
            raise image_not_found(image, "the engine does not have it")
        return found

    def name_run(self) -> str:
        """Name the next run."""
        return secrets.token_hex(6)

    def scratch_path(self, scratch: Path) -> str:  # noqa: ARG002 - in a container it is always the same
        """Return where a container sees its job's folder."""
        return SCRATCH_FOLDER

    def folder_path(self, label: str, folder: Path) -> str:  # noqa: ARG002 - in a container it is always the same
        """Return where a container sees a folder of data."""
        return f"{DATA_FOLDER}/{label}"

    async def start(self, start: RunStart) -> None:
        """Create the container, check that it is of the prepared image, start it."""
        try:
            # Not repeated: half of it may have been done.
            await self._engine(lambda api: _start(api, start, self._node, self._confined(api)), patience_seconds=0)
        except ImageNotFound:
            self._not_started[start.run_name] = (
                "The engine does not have the image any more: somebody removed it after it was prepared. Create the task again."
            )
        except (DockerException, FolkmootError) as error:
            _log.warning("engine.not_started", run=start.run_name, detail=str(error))
            self._not_started[start.run_name] = str(error)

    def _confined(self, api: Any) -> Confinement:
        if not self._confinement.seccomp:
            self._confinement = dataclasses.replace(
                self._confinement, seccomp=seccomp_of(api.version()), host_paths=find_host_paths(api)
            )
        return self._confinement

    async def wait(self, run_name: str) -> None:
        """Wait until a container does not run. The engine is asked once, however many wait."""
        if run_name in self._not_started:
            return
        if run_name not in self._ends:
            asking = self._engine(lambda api: _wait(api, _container(run_name)), patience_seconds=math.inf)
            self._ends[run_name] = end = asyncio.create_task(asking)
            end.add_done_callback(lambda _: self._forget_unless_told(run_name, end))
        await asyncio.shield(self._ends[run_name])

    def _forget_unless_told(self, run_name: str, end: "asyncio.Task[None]") -> None:
        """Ask the engine again the next time, if it did not say that a run has ended."""
        if (end.cancelled() or end.exception()) and self._ends.get(run_name) is end:
            del self._ends[run_name]

    async def exit(self, run_name: str) -> Exit:
        """Ask the engine how a container ended, and for the last of its output."""
        if problem := self._not_started.get(run_name):
            return Exit(pb.EXIT_CLASS_NOT_STARTED, None, problem)
        return await self._engine(lambda api: _exit(api, _container(run_name)), patience_seconds=math.inf)

    async def stop(self, run_name: str) -> None:
        """Kill a container that has not ended yet."""
        if (end := self._ends.get(run_name)) and end.done():
            return
        await self._engine(lambda api: _unless_gone(api.kill, _container(run_name)))

    async def remove(self, run_name: str) -> None:
        """Remove a container, and kill it if it runs."""
        self._not_started.pop(run_name, None)
        self._ends.pop(run_name, None)
        await self._engine(lambda api: _unless_gone(api.remove_container, _container(run_name), force=True, v=True))

    async def adopt(self) -> frozenset[str]:
        """Find the containers of an earlier process of this node. INVALID_FIELD for an engine that can't keep algorithms apart."""
        await self._engine(lambda api: _require_able(api, self._confinement.container_runtime))
        filters = {"label": [f"{LABEL_NODE}={self._node}"]}
        found = await self._engine(lambda api: api.containers(all=True, filters=filters))
        return own_runs(found)

    async def close(self) -> None:
        """Let go of the engine."""
        await cancelled(*self._ends.values())
        await self._pulls.close()
        if "_api" in vars(self):
            self._api.close()

    @functools.cached_property
    def _api(self) -> Any:
        # Made at the first call, in its thread: a node starts without its engine, too.
        return docker.APIClient(version="auto", max_pool_size=_ENGINE_CALLS_AT_ONCE, **docker.utils.kwargs_from_env())

    async def _engine(self, call: Callable[[Any], _Answer], *, patience_seconds: float | None = None) -> _Answer:
        """Make a call in a thread; repeat it while the engine does not answer. FolkmootError when patience ends."""
        patience_seconds = self._patience_seconds if patience_seconds is None else patience_seconds
        gives_up_at = time.monotonic() + patience_seconds
        while True:
            try:
                return await in_thread(lambda: call(self._api), name="engine")
            except (requests.exceptions.RequestException, DockerException) as error:
                if not _is_unreachable(error):
                    raise
                if time.monotonic() >= gives_up_at:
                    text = f"the container engine can't be reached ({error})"
                    raise FolkmootError(ErrorReason.ERROR_REASON_SHUTTING_DOWN, text) from None
                _log.warning("engine.unreachable", detail=str(error))
                await asyncio.sleep(_RETRY_SECONDS)


def own_runs(containers: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The runs whose containers these are. Labels alone say nothing: an image may have the same, and then everything made of it has them."""
    named = ((each["Labels"].get(LABEL_RUN, ""), each["Names"]) for each in containers)
    return frozenset(run for run, names in named if _RUN_NAME.fullmatch(run) and f"/{_container(run)}" in names)


def _find(api: Any, image: Image) -> PreparedImage | None:
    name = engine_name(image)
    if name is None:
        raise image_not_found(image, "this node runs containers only")
    try:
        found = api.inspect_image(name)
    except ImageNotFound:
        return None
    if not is_the_image(image, found["Id"], found.get("RepoDigests") or []):
        other = image_altered if image.HasField("registry") else image_not_found
        raise other(image, f"the engine has {found['Id']} under this name")
    return PreparedImage(found["Id"], functions_of(found["Config"].get("Labels")))


def _require_able(api: Any, container_runtime: str) -> None:
    if missing := missing_of(api.info(), container_runtime):
        text = f"algorithms can't be kept apart by this container engine: {'; '.join(missing)}"
        raise FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, text)


def _start(api: Any, start: RunStart, node: str, confinement: Confinement) -> None:
    name = _container(start.run_name)
    asked = host_config_of(start, confinement, gpus_in_use=_gpus_in_use(api, node) if start.limits.gpus else ())
    made = api.create_container(
        start.image_id,
        name=name,
        user=USER,
        environment={"FOLKMOOT_PROXY": f"unix:{RUN_FOLDER}/proxy.sock", "HOME": "/tmp"},  # noqa: S108 - its own
        labels={
            **start.labels,
            LABEL_NODE: node,
            LABEL_RUN: start.run_name,
            LABEL_RUN_ID: start.run_id,
            LABEL_TASK_ID: start.task_id,
            LABEL_ATTEMPT: str(start.attempt),
            LABEL_GPUS: ",".join(gpu for request in asked["DeviceRequests"] for gpu in request["DeviceIDs"]),
        },
        hostname=HOSTNAME,
        healthcheck={"test": ["NONE"]},
        host_config=asked,
    )
    for warning in made.get("Warnings") or ():
        _log.warning("engine.warning", run=start.run_name, detail=warning)
    if problem := _unlike(api.inspect_container(name), start, asked):
        api.remove_container(name, force=True, v=True)
        raise DockerException(problem)
    failpoint("node.run.container_created")
    api.start(name)


def _gpus_in_use(api: Any, node: str) -> list[str]:
    """The GPUs of this node's containers that run, each as often as one has it."""
    running = api.containers(filters={"label": [f"{LABEL_NODE}={node}"]})
    return [gpu for container in running for gpu in container["Labels"].get(LABEL_GPUS, "").split(",") if gpu]


def _unlike(created: dict[str, Any], start: RunStart, asked_config: dict[str, Any]) -> str:
    """What about a container is not as it was asked for; empty if nothing is."""
    if created["Image"] != start.image_id:
        return f"the engine made a container of {created['Image']} instead of {start.image_id}"
    asked = {
        RUN_FOLDER,
        *([SCRATCH_FOLDER] if start.scratch else ()),
        *(f"{DATA_FOLDER}/{label}" for label in start.folders),
    }
    if volumes := {mount["Destination"] for mount in created["Mounts"]} - asked:
        return f"the image declares volumes, which would be writable: take VOLUME {' '.join(sorted(volumes))} out of it"
    if wrong := deviations(created, asked_config):
        return f"the engine did not make the container as it was asked to: {'; '.join(wrong)}"
    return ""


def _wait(api: Any, name: str) -> None:
    with _outlived():
        _unless_gone(api.wait, name)


def _exit(api: Any, name: str) -> Exit:
    try:
        with _outlived():
            state = api.inspect_container(name)["State"]
            if state["Status"] == "created":
                return Exit(pb.EXIT_CLASS_NOT_STARTED, None, state.get("Error") or "it was never started")
            return Exit(_exit_class(api, name, state), state["ExitCode"], _output(api, name))
    except APIError as error:
        if error.status_code not in _GONE:
            raise
        return Exit(pb.EXIT_CLASS_LOST, None, "the engine does not know the container, or is removing it")


@contextlib.contextmanager
def _outlived() -> Iterator[None]:
    """Take an engine that fails for one that shuts down: a container may outlive it."""
    try:
        yield
    except APIError as error:
        if not error.is_server_error():
            raise
        raise requests.exceptions.ConnectionError(str(error)) from None


def _exit_class(api: Any, name: str, state: dict[str, Any]) -> pb.ExitClass.ValueType:
    if state["OOMKilled"]:
        return pb.EXIT_CLASS_OUT_OF_MEMORY
    if state["ExitCode"] == _KILLED and _ran_out_of_memory(api, name, state):
        return pb.EXIT_CLASS_OUT_OF_MEMORY
    return pb.EXIT_CLASS_ERROR if state["ExitCode"] else pb.EXIT_CLASS_UNSPECIFIED


def _ran_out_of_memory(api: Any, name: str, state: dict[str, Any]) -> bool:
    """Whether the engine told so; the mark in its state can miss a kill."""
    told = api.events(
        since=state["StartedAt"], until=time.time(), filters={"container": name, "event": "oom"}, decode=True
    )
    with contextlib.closing(told):
        return any(True for _ in told)


def _output(api: Any, name: str) -> str:
    text: bytes = api.logs(name, stdout=True, stderr=True, tail=_DETAIL_LINES)
    return text.decode(errors="replace")[-DETAIL_CHARACTERS:]


def _unless_gone(call: Callable[..., object], name: str, **options: Any) -> None:
    try:
        call(name, **options)
    except APIError as error:
        if error.status_code not in _GONE:
            raise


def _container(run_name: str) -> str:
    return f"folkmoot-{run_name}"


def _is_unreachable(error: Exception) -> bool:
    return (isinstance(error, requests.exceptions.RequestException) and not isinstance(error, APIError)) or (
        "Error while fetching server API version" in str(error)  # the client's first call of all
    )
