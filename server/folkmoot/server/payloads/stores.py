"""Where the bytes of large envelopes rest: part by part, durable before anybody is told so.

A store keeps parts of a fixed size, each whole or not at all, so that an upload that broke off goes on at a part and two
uploads of the same part do each other no harm. It knows nothing of what they are; the rows of `payloads` do. Which store
it is, the setting `payloads` says by a URL: a folder, or a bucket.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import structlog

from folkmoot.trust import Source
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

Check = Callable[[int, bytes], Awaitable[None]]
"""Is told the size and the SHA-256 of what came, when all has come; raises if that is not right."""

BUCKETS = ("s3", "gs", "az")


class PayloadStore(Protocol):
    """Keeps the parts of payloads."""

    async def check(self) -> None:
        """Write, read and remove a few bytes; raise INVALID_FIELD, with what to do, if the store can't be used."""

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part as it comes, using a few frames of memory; return when it is durable.

        If the frames break off or the check raises, the part is what it was before.
        """

    async def parts(self, digest: bytes, expected: int = 0) -> frozenset[int]:
        """Return the numbers of the parts that are there and durable; of those expected, also what a list does not show yet."""

    def open(self, digest: bytes, size_bytes: int, *, checked: bool = True) -> AbstractContextManager[Source]:
        """Give random access to a payload, all of whose parts are there. Reading blocks: do it in a thread.

        Reading raises PAYLOAD_DAMAGED for a part that is not what was stored, FileNotFoundError for one that is gone. Unchecked,
        parts are read as they are: for what can be told to be right in another way.
        """

    async def remove(self, digest: bytes) -> None:
        """Forget a payload; nothing happens if there is none."""

    async def is_older(self, digest: bytes, before: datetime) -> bool:
        """Tell whether nothing of a payload has come since a time."""

    async def remove_unfinished(self) -> None:
        """Remove what other processes have left of parts that they did not finish."""

    def close(self) -> None:
        """Let go of threads and connections."""


def open_store(url: str, data: Path, log: structlog.typing.FilteringBoundLogger | None = None) -> PayloadStore:
    """Return the store that a URL names; empty: the folder `payloads` of the data folder. Raises INVALID_FIELD.

    The log is for what goes wrong at it.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise unusable("a store's credentials are no part of its URL: its provider's environment variables have them")
    path = unquote(parts.path)
    if parts.query or parts.fragment or ".." in path.split("/"):
        raise unusable(f"'{url}' is no store: a URL has no '?', no '#' and no '..' here")
    if parts.scheme in BUCKETS:
        from folkmoot.server.payloads.bucket import BucketStore

        return BucketStore.at(url, spool=data / "spool", log=log)
    from folkmoot.server.payloads.folder import FolderStore

    if not url:
        return FolderStore(data / "payloads")
    if parts.scheme == "file" and not parts.netloc and path.startswith("/") and path.strip("/"):
        return FolderStore(Path(path))
    raise unusable(
        f"'{url}' is no store: write file:///a/folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )


def unusable(text: str) -> FolkmootError:
    """Return the error of a setting `payloads` with which no server can start."""
    return FolkmootError(ErrorReason.ERROR_REASON_INVALID_FIELD, f"payloads: {text}", violations=(("payloads", text),))
