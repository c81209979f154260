"""Payloads in a bucket: an object for each part, `prefix/ab/abcd…/00000`, put whole or not at all. By obstore.

A part comes in and goes out by way of a file without a name on this machine (in the data folder's `spool`): it is checked
there before it counts, a slow client keeps a file open and no memory, and only a few parts are in memory on their way to
the bucket. Where the bucket is and who may use it is what its provider's own environment variables say, AWS_ENDPOINT_URL
and AWS_ACCESS_KEY_ID for example: docs/payloads.md. What a bucket says of a failure is for the operator's log alone.
"""

import asyncio
import concurrent.futures
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from folkmoot.server.aside import Aside
from folkmoot.server.payloads.parts import NewPart, Parts, take
from folkmoot.server.payloads.stores import Check, unusable
from folkmoot.transport.limits import FRAME_BYTES
from folkmoot.transport.payloads import DURABLE_SECONDS
from folkmoot.transport.storage import told_if_full
from folkmoot.transport.timeouts import CALL_SECONDS, IDLE_SECONDS
from folkmoot.trust import Source
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason

if TYPE_CHECKING:
    from obstore.store import ObjectStore

THREADS = 4
"""So many parts are hashed ahead of who reads them, or written, at a time."""
PUTS_AT_ONCE = 2
"""So many parts are in memory: each is there twice."""
MOST_TRIES = 4
PUT_SECONDS = DURABLE_SECONDS / 5
"""A part on its way to the bucket, at one try: at 70 KB/s and more it gets there. All tries end before clients give the answer up."""
GET_SECONDS = 3600.0
"""A part on its way back; silence ends it much sooner."""
LOOKED_CLOSER_AT = 16
"""So many parts at most that a list lacks are asked for one by one: some stores' lists lag behind."""


class Objects(NamedTuple):
    """A bucket, as obstore has it. A put is limited as a whole: it has no other limit that a slow one keeps to."""

    others: "ObjectStore"
    puts: "ObjectStore"


class BucketStore:
    """A bucket of parts, below a prefix."""

    def __init__(
        self, objects: Objects, name: str, spool: Path, log: structlog.typing.FilteringBoundLogger | None
    ) -> None:
        self._objects = objects
        self._name = name
        self._spool = spool
        self._log = log
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="payloads")
        self._aside = Aside("bucket")
        self._puts = asyncio.Semaphore(PUTS_AT_ONCE)
        spool.mkdir(mode=0o700, parents=True, exist_ok=True)

    @classmethod
    def at(cls, url: str, *, spool: Path, log: structlog.typing.FilteringBoundLogger | None = None) -> "BucketStore":
        """Return the store of a URL; raise INVALID_FIELD for one that is none, and where obstore is missing."""
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ModuleNotFoundError as error:
            raise unusable(f"{url} needs obstore: install folkmoot[objects]") from error
        retries: Any = {
            "max_retries": MOST_TRIES - 1,
            "retry_timeout": timedelta(seconds=CALL_SECONDS),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
        }

        def store(**limits: float) -> "ObjectStore":
            options: Any = {name: timedelta(seconds=value) for name, value in limits.items()}
            options |= {"allow_http": _is_allowed_http()}
            return from_url(url, config=_config(url), client_options=options, retry_config=retries)

        try:
            objects = Objects(store(timeout=GET_SECONDS, read_timeout=IDLE_SECONDS), store(timeout=PUT_SECONDS))
        except (BaseError, ValueError) as error:
            raise unusable(f"{url}: {_said(error)}") from error
        return cls(objects, url, spool, log)

    async def check(self) -> None:
        """Write, read and remove an object of a few bytes. Raises INVALID_FIELD."""
        await self._aside.do(self._check())

    async def _check(self) -> None:
        import obstore
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        store, probe, content = self._objects.others, f"check-{secrets.token_hex(8)}", b"folkmoot"
        try:
            await obstore.put_async(store, probe, content)
            found = bytes(await (await obstore.get_async(store, probe)).bytes_async())
            await obstore.delete_async(store, probe)
        except (PermissionDeniedError, UnauthenticatedError) as error:
            text = "does not let this server write, read and delete: check its credentials and what they are allowed"
            raise unusable(f"{self._name} {text} ({_said(error)})") from error
        except FileNotFoundError as error:
            raise unusable(f"{self._name}: there is no such bucket; make it first ({_said(error)})") from error
        except BaseError as error:
            text = "can't be used: check its name, the endpoint and the network"
            raise unusable(f"{self._name} {text} ({_said(error)})") from error
        if found != content:
            raise unusable(f"{self._name} gives back other bytes than were put into it")

    async def write_part(self, digest: bytes, number: int, frames: AsyncIterator[bytes], check: Check) -> None:
        """Take a part into a passing file, then put it. Raises DiskFull, PROVIDER_UNREACHABLE."""
        with told_if_full(), tempfile.TemporaryFile(dir=self._spool, buffering=0) as file:
            part = NewPart(file.fileno())
            await take(part, frames, self._threads)
            await check(part.size_bytes, part.digest)
            await self._aside.do(self._put(_object(digest, number), part))

    async def _put(self, name: str, part: NewPart) -> None:
        import obstore

        part.seal()
        with self._told_if_unreachable():
            async with asyncio.timeout(DURABLE_SECONDS * 0.8), self._puts:
                content = os.pread(part.descriptor, os.fstat(part.descriptor).st_size, 0)
                await obstore.put_async(self._objects.puts, name, content, use_multipart=False)

    async def parts(self, digest: bytes, expected: int = 0) -> frozenset[int]:
        """Return the numbers of the parts that are there."""
        return await self._aside.do(self._parts(digest, expected))

    async def _parts(self, digest: bytes, expected: int) -> frozenset[int]:
        import obstore

        there = {int(name.rpartition("/")[2]) for name in await self._listed(digest)}
        lacking = set(range(expected)) - there
        if len(lacking) <= LOOKED_CLOSER_AT:
            for number in lacking:
                with self._told_if_unreachable():
                    try:
                        await obstore.head_async(self._objects.others, _object(digest, number))
                    except FileNotFoundError:
                        continue
                there.add(number)
        return frozenset(there)

    @contextmanager
    def open(self, digest: bytes, size_bytes: int, *, checked: bool = True) -> Iterator[Source]:
        """Give random access to a payload: parts are fetched whole, the next one while one is read."""

        def fetch(number: int) -> int:
            return self._fetch(_object(digest, number))

        source = Parts(digest, size_bytes, fetch, self._threads, checked=checked)
        try:
            yield source
        finally:
            source.close()

    def _fetch(self, name: str) -> int:
        with told_if_full(), tempfile.TemporaryFile(dir=self._spool, buffering=0) as file:
            with self._told_if_unreachable():
                self._aside.result(self._get(name, file.fileno()))
            return os.dup(file.fileno())

    async def _get(self, name: str, descriptor: int) -> None:
        import obstore

        found = await obstore.get_async(self._objects.others, name)
        async for piece in found.stream(min_chunk_size=FRAME_BYTES):
            os.write(descriptor, piece)

    async def remove(self, digest: bytes) -> None:
        """Forget a payload."""
        await self._aside.do(self._remove(digest))

    async def _remove(self, digest: bytes) -> None:
        import obstore

        if found := list(await self._listed(digest)):
            with self._told_if_unreachable():
                await obstore.delete_async(self._objects.others, found)

    async def is_older(self, digest: bytes, before: datetime) -> bool:
        """Tell whether nothing of a payload has come since a time, by the bucket's clock."""
        found = await self._aside.do(self._listed(digest))
        return all(moment < before for moment in found.values())

    async def remove_unfinished(self) -> None:
        """Nothing unfinished is ever in the bucket, and files without names go with their process."""

    def close(self) -> None:
        """End what is under way; let go of the threads."""
        self._aside.close()
        self._threads.shutdown()

    async def _listed(self, digest: bytes) -> dict[str, datetime]:
        """Return the names of a payload's objects, and since when they are there."""
        import obstore

        with self._told_if_unreachable():
            pages = obstore.list(self._objects.others, prefix=_folder(digest))
            return {each["path"]: each["last_modified"] async for page in pages for each in page}

    @contextmanager
    def _told_if_unreachable(self) -> Iterator[None]:
        """Raise PROVIDER_UNREACHABLE for what the bucket did not do, however often it was asked: clients try again later.

        What it said is for the operator: it may name keys, and what it signs.
        """
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError:
            raise  # an object that is not there
        except (BaseError, TimeoutError, concurrent.futures.CancelledError) as error:
            if self._log is not None:
                self._log.warning("payloads.unreachable", store=self._name, cause=_said(error) or type(error).__name__)
            text = (
                "the store of payloads does not answer as it should; its operator finds the cause in the server's log"
            )
            raise FolkmootError(ErrorReason.ERROR_REASON_PROVIDER_UNREACHABLE, text) from error


def _config(url: str) -> Any:
    """Return what the URL alone doesn't say: the bucket checks the SHA-256 of what arrives, where it can."""
    return {"aws_checksum_algorithm": "SHA256"} if url.startswith("s3:") else {}


def _is_allowed_http() -> bool:
    """Whether an endpoint without TLS was asked for by its own variable, as for a store on this machine."""
    return os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")


def _folder(digest: bytes) -> str:
    name = digest.hex()
    return f"{name[:2]}/{name}"


def _object(digest: bytes, number: int) -> str:
    return f"{_folder(digest)}/{number:05}"


def _said(error: BaseException) -> str:
    """Return an error's first line, of what the bucket answered the code alone, and no query: they name keys, and signatures."""
    line = str(error).strip().partition("\n")[0]
    line = re.sub(r"<.*?<Code>(\w+)</Code>.*", r"\1", line)
    return re.sub(r"\?[^\s)]*", "?…", line)[:500]
