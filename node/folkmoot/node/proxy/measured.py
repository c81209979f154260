"""A result on its way from its algorithm: hashed and counted as it passes, and stopped when it gets too large."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator

from folkmoot.trust import FolkmootError, digest, pae
from folkmoot.v1.errors_pb2 import ErrorReason


class Measured:
    """A result on its way: hashed, and stopped when it gets too large."""

    def __init__(self, content: AsyncIterator[bytes], content_type: str, limit_bytes: int) -> None:
        self._content = content
        self._content_type = content_type
        self._limit_bytes = limit_bytes
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        async for piece in self._content:
            self.size_bytes += len(piece)
            if self.size_bytes > self._limit_bytes:
                raise FolkmootError(
                    ErrorReason.ERROR_REASON_TOO_LARGE,
                    f"the node's policy gives a result at most {self._limit_bytes} bytes",
                )
            self._hash.update(piece)
            yield piece

    @property
    def digest(self) -> bytes:
        """What tells one result from another, once all of it has passed."""
        return digest_of(self._content_type, self._hash.digest())


def digest_of(content_type: str, content_hash: bytes) -> bytes:
    """What tells one last word of an algorithm from another."""
    return digest(pae(content_type.encode(), content_hash))
