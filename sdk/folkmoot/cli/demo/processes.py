"""The demo's processes: one server and a node per hospital, each the real command in a process of its own, logs in files."""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2

_COMMAND = (sys.executable, "-c", "from folkmoot.cli.main import main; main()")
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0


@dataclass
class Processes:
    """What the demo has started; `stop` ends all of it. Nothing else on the machine is touched."""

    folder: Path
    python_path: Path
    """Where algorithms of the process runtime are imported from."""
    _running: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def log(self, name: str) -> Path:
        """The file with everything that a process says."""
        return self.folder / f"{name}.log"

    async def start(self, name: str, *arguments: str, ready: str) -> str:
        """Start `folkmoot ARGUMENTS` and wait until its output has the word `ready`; gives that output. It goes on running."""
        process = await self._launch(name, arguments)
        loop = asyncio.get_running_loop()
        end = loop.time() + _START_SECONDS
        while loop.time() < end and process.returncode is None:
            if ready in (output := self.log(name).read_text()):
                return output
            await asyncio.sleep(0.02)
        raise _failed(name, self.log(name))

    async def run(self, name: str, *arguments: str) -> None:
        """Run `folkmoot ARGUMENTS` to its end."""
        process = await self._launch(name, arguments)
        if await process.wait() != 0:
            raise _failed(name, self.log(name))
        del self._running[name]

    async def stop(self) -> None:
        """End the processes, the newest first, so nodes before their server."""
        for process in reversed(self._running.values()):
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                await asyncio.wait_for(process.wait(), _STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        self._running.clear()

    async def wait(self) -> None:
        """Wait until one of the processes ends."""
        await asyncio.wait(
            [asyncio.create_task(process.wait()) for process in self._running.values()],
            return_when=asyncio.FIRST_COMPLETED,
        )

    async def _launch(self, name: str, arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
        paths = [str(self.python_path), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        with self.log(name).open("wb") as log:
            self._running[name] = await asyncio.create_subprocess_exec(
                *_COMMAND, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return self._running[name]


def _failed(name: str, log: Path) -> FolkmootError:
    lines = log.read_text().splitlines()[-5:]
    return FolkmootError(
        errors_pb2.ERROR_REASON_INTERNAL,
        f"{name} did not do what it was started for; the end of {log}:\n  " + "\n  ".join(lines),
    )
