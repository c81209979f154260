"""What an image says of its functions, wherever that can be read: at this machine's engine, in its registry, or in the module itself.

It helps people before anything is sent; nothing rests on it. Where an image can't be looked at, nothing is known of it, and nobody waits
long for that.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from folkmoot.algorithm.describe import FUNCTIONS_LABEL, read_functions
from folkmoot.algorithm.functions import Function
from folkmoot.client.images import LocalEngineImage, open_registry
from folkmoot.trust import FolkmootError
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image, RegistryImage

REGISTRY_SECONDS = 5.0
"""How long a registry is waited for."""
UNREACHABLE_SECONDS = 300.0
"""How long one that could not be asked is left alone."""
MODULE_SECONDS = 60.0
"""How long a module may take to be imported."""


@dataclass(frozen=True)
class Published:
    """An image's functions, and where that was read."""

    functions: Mapping[str, Function]
    source: str
    """"engine", "registry" or "module"."""


async def published(image: Image, local: LocalEngineImage | None, *, modules: bool = False) -> Published | None:
    """What the image says of its functions; None if it says nothing, or can't be looked at.

    `modules`: import a process image's module too, in a process of its own; that runs its code.
    """
    if local is not None:
        return _read(local.labels, "engine")
    if image.HasField("registry"):
        return _read(await _registry_labels(image.registry), "registry")
    if modules and image.HasField("process"):
        label = await asyncio.to_thread(_described, image.process.module, image.process.tree_hash)
        return _read({FUNCTIONS_LABEL: label}, "module")
    return None


def _read(labels: Mapping[str, str], source: str) -> Published | None:
    functions = read_functions(labels.get(FUNCTIONS_LABEL, ""))
    return None if functions is None else Published(functions, source)


# ---- registries ----------------------------------------------------------------------------------------------------

_left_alone_until: dict[str, float] = {}
"""Registries that could not be asked, by host: who creates many tasks waits for each once."""


async def _registry_labels(image: RegistryImage) -> Mapping[str, str]:
    host = image.repository.partition("/")[0]
    if time.monotonic() < _left_alone_until.get(host, 0.0):
        return {}
    try:
        asking = asyncio.to_thread(_labels, image.repository, image.digest)
        return await asyncio.wait_for(asking, REGISTRY_SECONDS)
    except TimeoutError:
        _left_alone_until[host] = time.monotonic() + UNREACHABLE_SECONDS
    except FolkmootError as error:
        if error.reason == ErrorReason.ERROR_REASON_IMAGE_UNAVAILABLE:
            _left_alone_until[host] = time.monotonic() + UNREACHABLE_SECONDS
    return {}


@lru_cache(maxsize=256)  # what has a digest never changes
def _labels(repository: str, digest: str) -> Mapping[str, str]:
    from folkmoot.registry import image_labels

    return image_labels(open_registry(repository), digest)


# ---- modules -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _described(module: str, _tree_hash: bytes) -> str:
    """What a module's functions are, asked in a fresh process: this one may hold an older version of it. Empty if it can't be imported."""
    command = [sys.executable, "-m", "folkmoot.algorithm.describe", module]
    paths = os.pathsep.join(path or os.curdir for path in sys.path)
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            timeout=MODULE_SECONDS,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip().rpartition("\n")[2]  # a module may print when it is imported
