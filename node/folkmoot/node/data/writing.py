"""Checking a dataframe in a child process: Arrow goes in, Parquet comes out, and the node itself reads neither.

The child (`writer`) gets an environment that tells it nothing, no descriptor but its three, and a session of its own. Who stops feeding it,
or is cancelled, kills it.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from folkmoot.node.children import least_environment, module_command, start
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.trust.errors import FolkmootError
from folkmoot.trust.reasons import reason_number
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import DataframeColumn, DataframeLeft

_COMMAND = module_command("folkmoot.node.data.writer")
_ENVIRONMENT = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # Arrow's other pools reserve a gigabyte, which would count
_WORD_BYTES = 4 << 20


class Checked:
    """An Arrow stream on its way to Parquet: iterate to the end, then `left` says what it was.

    Raises what the stream raises, and MALFORMED or TOO_LARGE for what is no dataframe.
    """

    def __init__(self, content: AsyncIterator[bytes], name: str, *, most_bytes: int) -> None:
        self._content = content
        self._name = name
        self._most_bytes = most_bytes
        self.left = DataframeLeft(name=name)

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        child = await start(
            *_COMMAND,
            str(os.getpid()),
            str(self._most_bytes),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=FRAME_BYTES,
            cwd="/",
            env={**least_environment(), **_ENVIRONMENT},
            start_new_session=True,
        )
        assert child.stdout is not None  # noqa: S101 - it was asked for
        assert child.stderr is not None  # noqa: S101
        feeding = asyncio.create_task(self._feed(child))
        listening = asyncio.create_task(child.stderr.read(_WORD_BYTES))
        try:
            while piece := await child.stdout.read(FRAME_BYTES):
                yield piece
            word, code = await listening, await child.wait()
            if feeding.done() and (error := feeding.exception()) is not None:
                raise error
            self._understand(word, code)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            for task in (feeding, listening):
                task.cancel()
            await asyncio.gather(feeding, listening, return_exceptions=True)
            await child.wait()

    async def _feed(self, child: asyncio.subprocess.Process) -> None:
        """Hand over all of it; a child that has seen enough closes its end, and says why."""
        assert child.stdin is not None  # noqa: S101 - it was asked for
        taken_bytes, closed = 0, False
        try:
            async for piece in self._content:
                taken_bytes += len(piece)
                self._require_room(taken_bytes)
                if not closed:
                    try:
                        child.stdin.write(piece)
                        await child.stdin.drain()
                    except (BrokenPipeError, ConnectionResetError):
                        closed = True
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            raise
        child.stdin.close()

    def _require_room(self, taken_bytes: int) -> None:
        if taken_bytes > self._most_bytes:
            text = f"the node has room for {self._most_bytes} bytes of this session's dataframe"
            raise FolkmootError(ErrorReason.ERROR_REASON_TOO_LARGE, text)

    def _understand(self, word: bytes, code: int) -> None:
        told = _told(word)
        if code or "rows" not in told:
            reason = reason_number(told.get("reason", "MALFORMED"))
            raise FolkmootError(reason, str(told.get("message", "this is no Arrow stream that can be kept")))
        columns = [DataframeColumn(name=name, type=kind) for name, kind in told["columns"]]
        self.left = DataframeLeft(name=self._name, rows=told["rows"], columns=columns)


def _told(word: bytes) -> dict[str, Any]:
    """The last line that the child said; nothing, if it was ended before."""
    lines = word.decode(errors="replace").strip().splitlines()
    try:
        told = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
