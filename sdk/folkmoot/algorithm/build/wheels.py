"""The wheels of an algorithm's requirements, collected on this machine and kept for later builds.

Kept per set of requirements and interpreter in the user's cache (XDG), so that a build whose requirements did not change
needs no network at all.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from folkmoot.algorithm.build.errors import BuildFailed, tail
from folkmoot.algorithm.build.python import Python


def cache_folder() -> Path:
    """Return where wheels are kept."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "folkmoot" / "wheels"


def collect(requirements: Sequence[str], python: Python, *, refresh: bool = False) -> tuple[Path, bool]:
    """Return a folder with the wheels of the requirements and of pip, and whether they were collected just now."""
    wheelhouse = cache_folder() / _key(requirements, python)
    if wheelhouse.is_dir() and not refresh:
        return wheelhouse, False
    wheelhouse.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=wheelhouse.parent, prefix="collecting-") as folder:
        _download([*requirements, "pip"], python, Path(folder) / "wheels")
        shutil.rmtree(wheelhouse, ignore_errors=True)
        (Path(folder) / "wheels").rename(wheelhouse)  # all of them or none
    return wheelhouse, True


def _key(requirements: Sequence[str], python: Python) -> str:
    return hashlib.sha256(json.dumps([sorted(requirements), python.pip_arguments()]).encode()).hexdigest()[:16]


def _download(requirements: Sequence[str], python: Python, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", f"--dest={folder}"]
    done = subprocess.run(
        [*pip, *python.pip_arguments(), "--", *requirements], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BuildFailed(
            f"pip could not collect wheels for {python}. A requirement needs a binary wheel for it.\n{tail(done.stderr)}"
        )
