"""From the text that names an algorithm to the image that a task is signed for, and what a local image says of its functions.

| text | image |
|---|---|
| `registry.example.org/x/y@sha256:…` | in a registry, by manifest digest |
| `registry.example.org/x/y:1.0` | the same, the digest being that of the tag now: the registry is asked once, with the login of `docker login` |
| `local:sha256:…` | present at the nodes' engines, by image id |
| `average:1.0`, any other name | the same, the id being that of this machine's engine |
| `process:package.module` | a Python module in a plain process, by the hash of its source; for development |
"""

import asyncio
import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from folkmoot.algorithm.image import parse_image
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.task_pb2 import Image

if TYPE_CHECKING:
    from folkmoot.registry import Registry

_ENGINE_SECONDS = 5.0


@dataclass(frozen=True)
class LocalEngineImage:
    """An image as this machine's engine knows it."""

    id: str
    labels: Mapping[str, str]


async def resolve_image(text: str) -> tuple[Image, LocalEngineImage | None]:
    """The image that the text names, and what the local engine knows of it if it has it. Raises IMAGE_NOT_FOUND."""
    name = text.removeprefix("local:")
    if text.startswith("process:"):
        return pinned(text), None
    if tagged := _tagged(text):
        text = await asyncio.to_thread(_with_digest, *tagged)
    if "@" in text:
        image = pinned(text)
        return image, await asyncio.to_thread(inspect_locally, text)
    found = await asyncio.to_thread(inspect_locally, name)
    if name.startswith("sha256:"):
        return pinned(f"local:{name}"), found
    if found is None:
        raise _not_found(f"no engine of this machine has an image named {name!r}")
    image = pinned(f"local:{found.id}")
    image.local.name = name
    return image, found


def _tagged(text: str) -> tuple[str, str] | None:
    """Repository and tag of an image in a registry, which is what names its host; other names are the local engine's."""
    host, slash, rest = text.partition("/")
    named = "." in host or ":" in host or host == "localhost"
    if not slash or not named or "@" in text or text.startswith("local:"):
        return None
    path, _, tag = rest.partition(":")
    return f"{host}/{path}", tag or "latest"


def _with_digest(repository: str, tag: str) -> str:
    """The image that a tag means now, by its digest."""
    return f"{repository}@{open_registry(repository).resolve(tag)}"


def open_registry(repository: str) -> "Registry":
    """The registry of a repository, with the login of `docker login`. Calls block."""
    # Imported here: most tasks name no image of a registry, and HTTP takes its time to import.
    from folkmoot.registry import DOCKER_LOGINS, Registry, Repository, find_login

    place = Repository.parse(repository)
    folder = os.environ.get("DOCKER_CONFIG")
    logins = Path(folder) / DOCKER_LOGINS.name if folder else Path.home() / DOCKER_LOGINS
    return Registry(place, find_login(logins, place.host))


def pinned(text: str) -> Image:
    """The image that a text names by digest, id or source."""
    try:
        return parse_image(text)
    except (ValueError, ImportError, OSError) as error:
        raise _not_found(str(error)) from error


def _not_found(what: str) -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_IMAGE_NOT_FOUND,
        f"{what}; images are named registry.example.org/x/y:1.0, registry.example.org/x/y@sha256:<64 hex>, local:sha256:<64 hex>, "
        "by the name that this machine's engine knows, or process:package.module",
    )


# ---- the local engine ----------------------------------------------------------------------------------------------


def inspect_locally(name: str) -> LocalEngineImage | None:
    """What the local engine says of an image; None without an engine that answers, or without the image there.

    Asked over its socket with nothing but the standard library: a researcher's install has no engine library.
    """
    path = _engine_socket()
    if path is None:
        return None
    connection = _EngineConnection(path)
    try:
        connection.request("GET", f"/images/{urllib.parse.quote(name, safe='')}/json")
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != http.client.OK:
            return None
        described: dict[str, Any] = json.loads(content)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    return LocalEngineImage(described["Id"], (described.get("Config") or {}).get("Labels") or {})


def _engine_socket() -> str | None:
    """Path of the engine's socket; None if the engine is reached otherwise."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    return address.removeprefix("unix://") if address.startswith("unix://") else None


class _EngineConnection(http.client.HTTPConnection):
    """HTTP over the engine's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_ENGINE_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
