"""The inputs of a subtask, which its algorithm sends one after the other in one stream, cut where the head says."""

import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator

from folkmoot.trust import FolkmootError, digest, pae
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.proxy_service_pb2 import SubtaskHead, SubtaskInput


class Portions:
    """A stream of inputs, one after the other, cut where the head says."""

    def __init__(self, content: AsyncIterator[bytes]) -> None:
        self._content = content
        self._hash = hashlib.sha256()
        self._rest = b""

    def cut(self, inputs: Iterable[SubtaskInput]) -> Iterator[tuple[SubtaskInput, AsyncIterator[bytes]]]:
        """Each input with its bytes, which are to be read before the next one's."""
        return ((each, self._take(each.size_bytes)) for each in inputs)

    async def _take(self, size_bytes: int) -> AsyncIterator[bytes]:
        while size_bytes:
            if not self._rest:
                self._rest = await self._next()
            piece, self._rest = self._rest[:size_bytes], self._rest[size_bytes:]
            size_bytes -= len(piece)
            yield piece

    async def _next(self) -> bytes:
        async for piece in self._content:
            self._hash.update(piece)
            return piece
        raise FolkmootError(ErrorReason.ERROR_REASON_MALFORMED, "the inputs are shorter than the subtask's head says")

    async def request_digest(self, head: SubtaskHead) -> bytes:
        """What tells one request from another, once everything has been read."""
        async for piece in self._content:
            self._hash.update(piece)
        return digest(pae(head.SerializeToString(deterministic=True), self._hash.digest()))
