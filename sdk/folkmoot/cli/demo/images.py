"""The demo's algorithms: as container images if there is an engine to build them, else as modules of plain processes."""

import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path

from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, build
from folkmoot.cli.demo.analyses import Images
from folkmoot.trust import FolkmootError
from folkmoot.v1 import errors_pb2

NAMES = ("average", "survival", "secure_sum")
OFFLINE_BASE = "folkmoot-base:debian12"
"""What `make services` makes where no image can be pulled."""


def container_images(examples: Path, base: str) -> tuple[Images, str]:
    """Build the three images; gives them and the base they were built on. Raises IMAGE_NOT_FOUND, saying what is missing."""
    chosen = base or _present(DEFAULT_BASE) or _present(OFFLINE_BASE) or DEFAULT_BASE
    try:
        return Images(*(_image(examples, name, chosen) for name in NAMES)), chosen
    except BuildFailed as error:
        raise FolkmootError(errors_pb2.ERROR_REASON_IMAGE_NOT_FOUND, str(error)) from error


def _image(examples: Path, name: str, base: str) -> str:
    """One image: the one that an earlier demo built, unless the base or a file that goes into it has changed since."""
    source = examples.parent
    made_of = [
        examples / name,
        source / "sdk" / "folkmoot" / "algorithm",
        source / "generated",
        source / "deploy" / "algorithm",
        source / "pyproject.toml",
    ]
    tag = f"folkmoot-example-{name.replace('_', '-')}:{_fingerprint(made_of, _inspect(base))}"
    present = _inspect(tag)
    return f"local:{present}" if present else build(examples / name, base=base, tag=tag, report=lambda _: None)


def _fingerprint(paths: Iterable[Path], base_id: str) -> str:
    digest = hashlib.sha256(base_id.encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                digest.update(f"{file.name}:{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def process_images() -> Images:
    """The examples as modules that the nodes import."""
    return Images(*(f"process:examples.{name}" for name in NAMES))


def _present(image: str) -> str:
    """The image's name if the engine has it, else nothing."""
    return image if _inspect(image) else ""


def _inspect(image: str) -> str:
    """The id of an image that the engine has; else nothing."""
    command = ["docker", "image", "inspect", "--format={{.Id}}", image]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
