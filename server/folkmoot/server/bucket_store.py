"""Payloads in a bucket: an object for each part, `prefix/ab/abcd…/00000`, put whole or not at all. By obstore.

A part comes in and goes out by way of a file without a name on this machine (in the data folder's `spool`): it is checked
there before it counts, a slow client keeps a file open and no memory, and only a few parts are in memory on their way to or
from the bucket. Where the bucket is and who may use it is what its provider's own environment variables say, AWS_ENDPOINT_URL
and AWS_ACCESS_KEY_ID for example: docs/payloads.md.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from folkmoot.server.parts import NewPart, Parts
from folkmoot.server.payloads import Check, unusable
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.transport.storage import told_if_full
from folkmoot.transport.timeouts import CALL_SECONDS, IDLE_SECONDS
from folkmoot.trust import Source
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from obstore.store import ObjectStore

THREADS = 4
"""So many parts are on their way to the bucket, or from it ahead of who reads, at a time."""
MOST_TRIES = 4

T = TypeVar("T")


class BucketStore:
    """A bucket of parts, below a prefix."""

    def __init__(self, store: "ObjectStore", name: str, spool: Path) -> None:
        self._store = store
        self._name = name
        self._spool = spool
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads")
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def at(cls, url: str, *, spool: Path) -> "BucketStore":
        """Return the store of a URL; raise INVALID_FIELD for one that is none, and where obstore is missing."""
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise unusable(f"{url} needs obstore: install folkmoot[objects]") from error
        options: Any = {"timeout": timedelta(seconds=IDLE_SECONDS), "allow_http": _is_allowed_http()}
        retries: Any = {
            "max_retries": MOST_TRIES - 1,
            "retry_timeout": timedelta(seconds=CALL_SECONDS),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
        }
        try:
            store = from_url(url, config=_config(url), client_options=options, retry_config=retries)
        except (BaseError, ValueError) as error:
            raise unusable(f"{url}: {_first_line(error)}") from error
        return cls(store, url, spool)

    async def check(self) -> None:
        """Write, read and remove an object of a few bytes. Raises INVALID_FIELD."""
        await self._in_thread(self._check)

    def _check(self) -> None:
        import obstore
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        probe, content = f"check-{secrets.token_hex(8)}", b"folkmoot"
        try:
            obstore.put(self._store, probe, content)
            found = bytes(obstore.get(self._store, probe).bytes())
            obstore.delete(self._store, probe)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            text = "does not let this server write, read and delete: check its credentials and what they are allowed"
            raise unusable(f"{self._name} {text} ({_first_line(error)})") from error
        except FileNotFoundError as error:
            raise unusable(f"{self._name}: there is no such bucket; make it first ({_first_line(error)})") from error
        except BaseError as error:
            text = "can't be used: check its name, the endpoint and the network"
            raise unusable(f"{self._name} {text} ({_first_line(error)})") from error
        if found != content:
            raise unusable(f"{self._name} gives back other bytes than were put into it")

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part into a passing file, then put it. Raises DiskFull, PROVIDER_UNREACHABLE."""
        loop = asyncio.get_running_loop()
        with told_if_full(), tempfile.TemporaryFile(dir=self._spool, buffering=0) as file:
            part = NewPart(file.fileno())
            writing: asyncio.Future[None] = loop.create_future()
            writing.set_result(None)
            try:
                async for frame in frames:
                    await writing
                    writing = loop.run_in_executor(None, part.append, frame)
                await writing
                await check(part.size_bytes, part.digest)
                writing = loop.run_in_executor(self._threads, self._put, _object(digest, number), part)
                await writing
            finally:
                await asyncio.wait([writing])  # also when cancelled: a thread is at the file

    def _put(self, name: str, part: NewPart) -> None:
        import obstore

        part.seal()
        content = os.pread(part.descriptor, os.fstat(part.descriptor).st_size, 0)
        with _told_if_unreachable(self._name):
            obstore.put(self._store, name, content, use_multipart=False)

    async def parts(self, digest: bytes) -> frozenset[int]:
        """Return the numbers of the parts that are there."""
        found = await self._in_thread(lambda: self._listed(digest))
        return frozenset(int(name.rpartition("/")[2]) for name in found)

    @contextmanager
    def open(self, digest: bytes, size_bytes: int) -> Iterator[Source]:
        """Give random access to a payload: parts are fetched whole, the next one while one is read."""
        source = Parts(digest, size_bytes, lambda number: self._fetch(_object(digest, number)), self._threads)
        try:
            yield source
        finally:
            source.close()

    def _fetch(self, name: str) -> int:
        import obstore

        with told_if_full(), tempfile.TemporaryFile(dir=self._spool, buffering=0) as file:
            with _told_if_unreachable(self._name):
                for piece in obstore.get(self._store, name).stream(min_chunk_size=FRAME_BYTES):
                    file.write(piece)
            return os.dup(file.fileno())

    async def remove(self, digest: bytes) -> None:
        """Forget a payload."""
        await self._in_thread(lambda: self._remove(digest))

    def _remove(self, digest: bytes) -> None:
        import obstore

        if found := list(self._listed(digest)):
            with _told_if_unreachable(self._name):
                obstore.delete(self._store, found)

    async def is_older(self, digest: bytes, before: datetime) -> bool:
        """Tell whether nothing of a payload has come since a time, by the bucket's clock."""
        found = await self._in_thread(lambda: self._listed(digest))
        return all(moment < before for moment in found.values())

    async def remove_unfinished(self) -> None:
        """Nothing unfinished is ever in the bucket, and files without names go with their process."""

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown()

    def _listed(self, digest: bytes) -> dict[str, datetime]:
        """Return the names of a payload's objects, and since when they are there."""
        import obstore

        with _told_if_unreachable(self._name):
            pages = obstore.list(self._store, prefix=_folder(digest))
            return {each["path"]: each["last_modified"] for page in pages for each in page}

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


@contextmanager
def _told_if_unreachable(name: str) -> Iterator[None]:
    """Raise PROVIDER_UNREACHABLE for what the bucket did not do, however often it was asked: clients try again later."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        text = f"the store of payloads does not answer as it should: {_first_line(error)}"
        raise FolkmootError(ErrorReason.ERROR_REASON_PROVIDER_UNREACHABLE, text, metadata={"store": name}) from error


def _config(url: str) -> Any:
    """Return what the URL alone doesn't say: the bucket checks the SHA-256 of what arrives, where it can."""
    return {"aws_checksum_algorithm": "SHA256"} if urlsplit(url).scheme == "s3" else {}


def _is_allowed_http() -> bool:
    """Whether an endpoint without TLS was asked for by its own variable, as for a store on this machine."""
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")


def _folder(digest: bytes) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name}"


def _object(digest: bytes, number: int) -> str:
    return f"{_folder(digest)}/{number:05}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
