"""The container image that rows run: built on whatever base is there, as an author builds one."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from bench import algorithms
from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, build

BASES = (DEFAULT_BASE, "folkmoot-base:debian12")
SOURCE = Path(algorithms.__path__[0]) / "least.py"


class NoImage(Exception):  # noqa: N818 - says what is the case
    """There is no engine, or no image that it could build on."""


@functools.cache
def least_image() -> str:
    """Build the image of `bench.algorithms.least`; return how tasks name it. Raises NoImage, saying what is missing."""
    base = next(filter(_is_there, BASES), DEFAULT_BASE)
    try:
        return build(SOURCE, base=base, report=lambda _: None)
    except BuildFailed as error:
        raise NoImage(str(error)) from error


def _is_there(base: str) -> bool:
    try:
        return subprocess.run(["docker", "image", "inspect", base], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
