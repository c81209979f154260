"""The demo's algorithms: as container images if there is an engine to build them, else as modules of plain processes."""

import subprocess
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
        built = [
            build(examples / name, base=chosen, tag=f"folkmoot-example-{name}".replace("_", "-"), report=lambda _: None)
            for name in NAMES
        ]
    except BuildFailed as error:
        raise FolkmootError(errors_pb2.ERROR_REASON_IMAGE_NOT_FOUND, str(error)) from error
    return Images(*built), chosen


def process_images() -> Images:
    """The examples as modules that the nodes import."""
    return Images(*(f"process:examples.{name}" for name in NAMES))


def _present(image: str) -> str:
    """The image's name if the engine has it, else nothing."""
    try:
        asked = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    except FileNotFoundError:
        return ""
    return image if asked.returncode == 0 else ""
