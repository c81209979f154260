"""Algorithms as plain processes of this machine: for development, refused unless the policy says so.

What an algorithm is kept from is little: it gets a clean environment, a session of its own and a limit on its memory (the
data segment, RLIMIT_DATA: memory that it asks for and may write). There is no limit on processor, processes or network, and
it runs as the node's user. Out of memory is told from a MemoryError, or from the kernel's count of such kills.

Workers outlive the node: the next one takes them over by pid and start time.
"""

import asyncio
import contextlib
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from folkmoot.algorithm.source import tree_hash
from folkmoot.node.execution.images import image_not_found
from folkmoot.node.execution.patience import Tell
from folkmoot.node.execution.workers import WarmWorkers
from folkmoot.node.proxy.ports import Exit, PreparedImage, RunStart
from folkmoot.node.proxy.service import Proxy
from folkmoot.node.proxy.sockets import socket_path
from folkmoot.node.runtimes.worker import Worker
from folkmoot.v1 import task_pb2 as pb
from folkmoot.v1.task_pb2 import Image

WORKER_COMMAND = (sys.executable, "-P", "-m", "folkmoot.algorithm.worker")
RECORDS = "workers"

_STOP_SECONDS = 2.0
_PATH = "/usr/local/bin:/usr/bin:/bin"


class ProcessRuntime:
    """Implements `ports.Runtime`. `node` tells its workers from those of other nodes with the same runtime directory."""

    isolation = pb.ISOLATION_PROCESS

    def __init__(
        self,
        runtime_directory: Path,
        *,
        node: str,
        proxy: Proxy,
        warm_workers: int = 0,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._directory = runtime_directory
        self._records = runtime_directory / RECORDS
        self._node = node
        self._proxy = proxy
        self._command = tuple(command)
        self._workers: dict[str, Worker] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._stopped: set[str] = set()
        self._not_started: dict[str, str] = {}
        self._warm = WarmWorkers(
            warm_workers,
            start=self._start_warm,
            discard=self._discard,
            alive=lambda name: self._workers[name].alive,
        )

    async def prepare(self, image: Image, tell: Tell) -> PreparedImage:  # noqa: ARG002 - it is here or it is not
        """Check that the module's source here is what the image pins."""
        module = image.process.module
        if image.WhichOneof("source") != "process":
            raise image_not_found(image, "this node runs plain processes only")
        try:
            found = await asyncio.to_thread(tree_hash, module)
        except (ImportError, OSError) as error:
            raise image_not_found(image, str(error)) from None
        if found != image.process.tree_hash:
            raise image_not_found(image, f"the source of {module} here differs from what the task pins")
        return PreparedImage(found.hex(), None)

    def name_run(self) -> str:
        """Name the next run after a warm worker, or anew."""
        return self._warm.take() or _new_name()

    def scratch_path(self, scratch: Path) -> str:
        """Return the folder itself: a process sees this machine's files."""
        return str(scratch)

    def folder_path(self, label: str, folder: Path) -> str:  # noqa: ARG002
        """Return where a process sees a folder of data."""
        return str(folder)

    async def start(self, start: RunStart) -> None:
        """Give a warm worker its limits, or start a cold one."""
        worker = self._workers.get(start.run_name)
        try:
            if worker is None:
                self._spawn(start.run_name, start.limits.memory_bytes)
            else:
                worker.limit_memory(start.limits.memory_bytes)
                assigned = Worker(**{**vars(worker), "assigned": True})
                assigned.save(self._records)
                self._workers[start.run_name] = assigned
        except OSError as error:
            self._not_started[start.run_name] = str(error)

    async def wait(self, run_name: str) -> None:
        """Wait for a worker's end."""
        if worker := self._workers.get(run_name):
            await worker.ended()
            self._reap(run_name)

    async def exit(self, run_name: str) -> Exit:
        """Tell what its shell has written down."""
        if problem := self._not_started.get(run_name):
            return Exit(pb.EXIT_CLASS_NOT_STARTED, None, problem)
        worker = self._workers.get(run_name)
        if worker is None:
            return Exit(pb.EXIT_CLASS_LOST, None, "there is no such process")
        return worker.exit(self._records, stopped=run_name in self._stopped)

    async def stop(self, run_name: str) -> None:
        """Kill the algorithm; if its shell stays, that too."""
        worker = self._workers.get(run_name)
        if worker is None:
            return
        self._stopped.add(run_name)
        worker.kill_algorithm()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.ended(), _STOP_SECONDS)
        worker.kill()

    async def remove(self, run_name: str) -> None:
        """Kill it if it runs, and forget it."""
        self._not_started.pop(run_name, None)
        worker = self._workers.pop(run_name, None)
        if worker is None:
            return
        worker.kill()
        await worker.ended()
        self._reap(run_name)
        worker.forget(self._records)
        self._stopped.discard(run_name)

    async def adopt(self) -> frozenset[str]:
        """Take over the workers of an earlier process of this node that have a run; end those that wait for one."""
        for folder in (self._directory, self._records):  # `parents` would not give the upper one the mode
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for worker in Worker.load_all(self._records, node=self._node):
            self._workers[worker.run_name] = worker
            if not (worker.assigned and worker.known):  # Whoever serves no known process ends when its folder is gone.
                await self._discard(worker.run_name)
        Worker.forget_strays(self._records)
        self._warm.fill()
        return frozenset(self._workers)

    async def close(self) -> None:
        """End the workers that wait; leave alone those that have a run."""
        await self._warm.close()
        for child in self._children.values():
            if child.poll() is None:
                child.returncode = 0  # it goes on without this process; nobody is to warn of that
        self._children.clear()

    async def _start_warm(self) -> str:
        name = _new_name()
        await self._proxy.reserve(self._directory / name)
        self._spawn(name, None, assigned=False)
        return name

    async def _discard(self, name: str) -> None:
        await self._proxy.close(name)
        await self.remove(name)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def _spawn(self, name: str, memory_bytes: int | None, *, assigned: bool = True) -> None:
        self._workers[name], self._children[name] = Worker.start(
            self._records,
            name,
            node=self._node,
            command=self._command,
            environment=_environment(self._directory / name),
            memory_bytes=memory_bytes,
            assigned=assigned,
        )

    def _reap(self, name: str) -> None:
        if child := self._children.pop(name, None):
            child.wait()


def _new_name() -> str:
    return secrets.token_hex(6)


def _environment(folder: Path) -> dict[str, str]:
    """What an algorithm gets: its socket, and where this node imports modules from that are not installed."""
    return {
        "FOLKMOOT_PROXY": f"unix:{socket_path(folder)}",
        "HOME": "/tmp",  # noqa: S108 - as in a container
        "LANG": "C.UTF-8",
        "PATH": _PATH,
        "PYTHONPATH": ":".join(
            path for path in sys.path if path and not path.startswith((sys.prefix, sys.base_prefix))
        ),
    }
