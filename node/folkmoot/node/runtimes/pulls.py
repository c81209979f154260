"""Images on their way from registries to the engine.

Promises: an image is fetched once, however many runs want it, and different images at the same time; who waits for it can stop waiting,
and the image goes on coming, for the next one who wants it. Fetching takes no slot and holds nothing up. A registry that can't be
reached is tried again until patience ends; what it refuses, it refuses at once. No login is ever told.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import structlog
from docker.errors import APIError

from folkmoot.node.execution.patience import Tell, while_unreachable
from folkmoot.node.waiting import cancelled
from folkmoot.registry import LoginRefused, NotInRegistry, RegistryAltered, RegistryUnreachable, Repository, find_login
from folkmoot.trust.errors import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import RegistryImage

TELL_EVERY_SECONDS = 0.5

Engine: TypeAlias = Callable[[Callable[[Any], None]], Awaitable[None]]
"""Makes a call of the engine's API, in a thread."""

_LOGIN = ("no basic auth credentials", "unauthorized", "authentication required", "denied", "forbidden")
_ALTERED = ("verification failed", "not match", "unexpected commit digest", "invalid checksum", "unknown blob")
_NOT_THERE = ("manifest unknown", "name unknown", "name not known", "not found", "no matching manifest")
_NO_ROOM = "no space left on device"
_QUERY = re.compile(r"\?[^\s\"]*")

_log = structlog.get_logger("folkmoot.node.pulls")


class Pulls:
    """The images that are being fetched."""

    def __init__(self, engine: Engine, *, login_file: Path | None, patience_seconds: float) -> None:
        self._engine = engine
        self._login_file = login_file
        self._patience_seconds = patience_seconds
        self._under_way: dict[str, _Pull] = {}

    async def pull(self, image: RegistryImage, tell: Tell) -> None:
        """Wait until the engine has fetched an image; raises the errors of `folkmoot.registry.errors`."""
        name = f"{image.repository}@{image.digest}"
        pull = self._under_way.get(name)
        if pull is None:
            pull = self._under_way[name] = _Pull()
            pull.work = asyncio.create_task(self._fetch(image, pull))
            pull.work.add_done_callback(lambda work: self._ended(name, work))
        pull.listeners.append(tell)
        try:
            if pull.told:
                tell(pull.told)
            await asyncio.shield(pull.work)
        finally:
            pull.listeners.remove(tell)

    async def close(self) -> None:
        """Wait for nothing any more; what the engine has fetched so far, it keeps."""
        await cancelled(*(pull.work for pull in self._under_way.values()))

    def _ended(self, name: str, work: "asyncio.Task[None]") -> None:
        del self._under_way[name]
        if not work.cancelled() and (error := work.exception()):  # perhaps nobody waits for it any more
            _log.warning("image.not_pulled", image=name, detail=str(error))

    async def _fetch(self, image: RegistryImage, pull: "_Pull") -> None:
        name, began = f"{image.repository}@{image.digest}", time.monotonic()
        repository, loop = Repository.parse(image.repository), asyncio.get_running_loop()
        _log.info("image.pulling", image=name)

        def fetch(api: Any) -> None:
            login = find_login(
                self._login_file, repository.host
            )  # anew each time: the owner may put it right meanwhile
            progress, told_at, problem = Progress(), 0.0, ""
            try:
                lines = api.pull(
                    image.repository,
                    tag=image.digest,
                    stream=True,
                    decode=True,
                    auth_config=login.for_engine() if login else {},
                )
                for line in lines:
                    problem = problem or str(line.get("error", ""))
                    progress.take(line)
                    if progress.text and time.monotonic() - told_at >= TELL_EVERY_SECONDS:
                        told_at = time.monotonic()
                        loop.call_soon_threadsafe(pull.tell, progress.text)
            except APIError as error:
                problem = str(error.explanation)
            if problem:
                raise pull_problem(image, problem, login_given=login is not None)

        await while_unreachable(lambda: self._engine(fetch), patience_seconds=self._patience_seconds, tell=pull.tell)
        _log.info("image.pulled", image=name, seconds=round(time.monotonic() - began, 1))


@dataclass
class _Pull:
    """One image on its way, and who waits for it."""

    work: "asyncio.Task[None]" = field(init=False)
    listeners: list[Tell] = field(default_factory=list)
    told: str = ""

    def tell(self, text: str) -> None:
        self.told = text
        for listener in self.listeners:
            listener(text)


class Progress:
    """How far a pull is, from the lines that an engine writes about it."""

    def __init__(self) -> None:
        self._layers: dict[str, _Layer] = {}

    def take(self, line: Mapping[str, Any]) -> None:
        """Take a line. Lines that are not about a layer, or of another form, are passed over."""
        name, status, detail = line.get("id"), line.get("status"), line.get("progressDetail")
        if not isinstance(name, str) or not isinstance(detail, dict):
            return
        layer = self._layers.setdefault(name, _Layer())
        current, total = detail.get("current"), detail.get("total")
        if status == "Downloading" and isinstance(current, int) and isinstance(total, int):
            layer.size_bytes, layer.here_bytes = total, current
        elif status in ("Download complete", "Extracting", "Pull complete", "Already exists"):
            layer.here_bytes = layer.size_bytes
            layer.complete = status in ("Pull complete", "Already exists")

    @property
    def text(self) -> str:
        """A few words for people; empty while nothing is known."""
        if not self._layers:
            return ""
        complete = sum(layer.complete for layer in self._layers.values())
        here, size = (
            sum(getattr(layer, name) for layer in self._layers.values()) for name in ("here_bytes", "size_bytes")
        )
        number = min(complete + 1, len(self._layers))
        amount = f", {here / 1e6:.0f} of {size / 1e6:.0f} MB" if size else ""
        return f"layer {number} of {len(self._layers)}{amount}"


@dataclass
class _Layer:
    size_bytes: int = 0
    here_bytes: int = 0
    complete: bool = False


def pull_problem(image: RegistryImage, text: str, *, login_given: bool) -> FolkmootError:
    """What an engine means by the text with which a pull ended."""
    name, host = f"{image.repository}@{image.digest}", Repository.parse(image.repository).host
    said = text.lower()
    if any(word in said for word in _ALTERED):
        return RegistryAltered(name, "what the registry gives is not what the digest names, or is incomplete")
    if any(word in said for word in _LOGIN):
        return LoginRefused(host, login_given=login_given)
    if any(word in said for word in _NOT_THERE):
        return NotInRegistry(name)
    if _NO_ROOM in said:
        return FolkmootError(ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE, f"{name}: the engine has no room for it")
    return RegistryUnreachable(host, _QUERY.sub("", text))  # queries of addresses may hold tokens
