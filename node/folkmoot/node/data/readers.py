"""Child processes that read tables: one per read, and one started in advance so that a read begins at once.

A child gets an environment that tells it nothing, no descriptor but its three, a session of its own, and the job on standard input. It
ends with the read: whoever stops reading kills it. What it writes waits in a pipe, so a slow reader slows it down.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import select
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from typing import Any, Self

from folkmoot.node.children import least_environment, module_command, start
from folkmoot.node.descriptors import readable
from folkmoot.transport.limits import FRAME_BYTES

SPARE_SECONDS = 60
"""How long the child that waits in advance outlives the last read."""

_COMMAND = module_command("folkmoot.node.data.reader")
_COMPLAINT_BYTES = 64 << 10
_LOGGED_LETTERS = 2000
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
"""Arrow's other pools reserve a gigabyte, which would count for what a query may hold (`confinement.hold_query`)."""


class Child:
    """One reader process."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int) -> None:
        self._process = process
        self._pipe = pipe
        self._open = True
        self._ahead = b""
        self._secrets: tuple[str, ...] = ()

    @classmethod
    async def start(cls) -> Self:
        """Start one; it imports what it needs and waits for its job."""
        pipe, its_end = os.pipe2(os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # beyond the user's share of pipe memory: a smaller pipe does, too
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, FRAME_BYTES)
            os.set_blocking(pipe, False)
            process = await start(
                *_COMMAND,
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=its_end,
                stderr=asyncio.subprocess.PIPE,
                cwd="/",
                env={**least_environment(), **_ENVIRONMENT},
                start_new_session=True,
            )
        except BaseException:
            os.close(pipe)
            raise
        finally:
            os.close(its_end)
        return cls(process, pipe)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can still be given a job: it holds the other end of the pipe as long as it lives."""
        poll = select.poll()
        poll.register(self._pipe, 0)  # a hang-up is told in any case
        return self._open and not poll.poll(0)

    def never_tell(self, secrets: Iterable[str]) -> None:
        """Leave out of its complaints what it was trusted with."""
        self._secrets = tuple(secrets)

    async def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Hand over the job; return the line that answers it. EOFError if the child ended instead."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for
        with contextlib.suppress(ConnectionError):  # then there is no answer either
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            await self._process.stdin.drain()
        line = b""
        while b"\n" not in line:
            frame = await self._read()
            if not frame:
                raise EOFError
            line += frame
        line, self._ahead = line.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """What follows the answer, in frames of at most 1 MiB."""
        if self._ahead:
            yield self._ahead
        while frame := await self._read():
            yield frame

    async def end(self) -> tuple[int, str]:
        """Wait for the exit; return the code and what the child complained of."""
        assert self._process.stderr is not None  # noqa: S101 - it was asked for
        complaint = b""
        while more := await self._process.stderr.read(_COMPLAINT_BYTES):
            complaint += more[: _COMPLAINT_BYTES - len(complaint)]
        text = complaint.decode(errors="replace").strip()
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return await self._process.wait(), text[:_LOGGED_LETTERS]

    def kill(self) -> None:
        """End it, whatever it does."""
        if self._open:
            self._open = False
            os.close(self._pipe)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _read(self) -> bytes:
        while True:
            try:
                return os.read(self._pipe, FRAME_BYTES)
            except BlockingIOError:
                await readable(self._pipe)


class Readers:
    """Gives a fresh child to each read, and keeps one ahead while reads go on."""

    def __init__(self) -> None:
        self._spare: asyncio.Task[Child] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._giving_up: asyncio.Task[None] | None = None
        self._closed = False

    def expect(self) -> None:
        """Have a child ready soon; it is given up when no read comes."""
        if self._closed:
            return
        if self._spare is None:
            self._spare = asyncio.create_task(Child.start())
        if self._idle:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(SPARE_SECONDS, self._give_up)

    @contextlib.asynccontextmanager
    async def child(self) -> AsyncIterator[Child]:
        """A child for one read; it does not outlive the block."""
        spare, self._spare = self._spare, None
        child = await spare if spare else None
        if child is None or not child.alive:
            child = await Child.start()
        try:
            yield child
        finally:
            child.kill()
            self.expect()  # now: beside the read it would have taken the read's processor
            await child.end()

    async def close(self) -> None:
        """End the child that waits in advance; from now on none does."""
        self._closed = True
        await self._end_spare()

    def _give_up(self) -> None:
        self._giving_up = asyncio.create_task(self._end_spare())

    async def _end_spare(self) -> None:
        if self._idle:
            self._idle.cancel()
        spare, self._spare = self._spare, None
        if spare:
            child = await spare
            child.kill()
            await child.end()
