"""From the text that names an algorithm to the image that a task is signed for, and what a local image says of its functions.

| text | image |
|---|---|
| `registry.example.org/x/y@sha256:…` | in a registry, by manifest digest |
| `local:sha256:…` | present at the nodes' engines, by image id |
| `average:1.0`, any other name | the same, the id being that of this machine's engine |
| `process:package.module` | a Python module in a plain process, by the hash of its source; for development |
"""

import asyncio
import http.client
import json
import os
import re
import socket
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2
from folkmoot.v1.task_pb2 import Image, LocalImage, ProcessImage, RegistryImage

FUNCTIONS_LABEL = "org.folkmoot.functions"
"""Label of an image: a JSON list of its functions."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)+")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_ENGINE_SECONDS = 5.0


@dataclass(frozen=True)
class LocalEngineImage:
    """An image as this machine's engine knows it."""

    id: str
    labels: Mapping[str, str]


async def resolve_image(text: str) -> tuple[Image, LocalEngineImage | None]:
    """The image that the text names, and what the local engine knows of it if it has it. Raises IMAGE_NOT_FOUND."""
    kind, _, rest = text.partition(":")
    if kind == "process":
        return process_image(rest), None
    if kind == "local":
        name = rest
    elif "@" in text:
        return registry_image(text), None
    else:
        name = text
    found = await asyncio.to_thread(inspect_locally, name)
    if _DIGEST.fullmatch(name):
        return Image(local=LocalImage(id=name)), found
    if found is None:
        raise _not_found(f"no engine of this machine has an image named {name!r}")
    return Image(local=LocalImage(id=found.id, name=name)), found


def registry_image(text: str) -> Image:
    """An image by repository and digest."""
    repository, _, digest = text.partition("@")
    if not _REPOSITORY.fullmatch(repository) or not _DIGEST.fullmatch(digest):
        raise _not_found(f"{text!r} is no repository with a digest")
    return Image(registry=RegistryImage(repository=repository, digest=digest))


def process_image(module: str) -> Image:
    """A module of this machine, with the hash of its source, which the node's copy must equal."""
    if not _MODULE.fullmatch(module):
        raise _not_found(f"{module!r} is no name of a Python module")
    from folkmoot.algorithm.source import tree_hash

    try:
        return Image(process=ProcessImage(module=module, tree_hash=tree_hash(module)))
    except (ImportError, OSError) as error:
        raise _not_found(f"the module {module} can't be found here: {error}") from error


def _not_found(what: str) -> FolkmootError:
    return FolkmootError(
        errors_pb2.ERROR_REASON_IMAGE_NOT_FOUND,
        f"{what}. Images are named registry.example.org/x/y@sha256:<64 hex>, local:sha256:<64 hex>, "
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
        if answer.status != http.client.OK:
            return None
        described: dict[str, Any] = json.loads(answer.read())
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
