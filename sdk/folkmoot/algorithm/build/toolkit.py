"""Folkmoot itself, as a wheel for the image: built from the checkout that is installed here, or put together again from what is installed.

An image gets what an algorithm runs with, and nothing of what holds keys, decides or serves.
"""

import base64
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from folkmoot.algorithm.build.errors import BuildFailed, tail

# What the toolkit imports. The rest of the distribution's dependencies is for those who hold keys.
NEEDED = ("grpcio", "protobuf")
_HERE = Path(__file__).resolve().parent
_NOT_IN_A_WHEEL = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_TOOLKIT = ("folkmoot/algorithm/", "folkmoot/v1/")
_NOT_IN_AN_IMAGE = (".pyi", "/RECORD", "/entry_points.txt")


def shipped(name: str) -> Path:
    """Return a file of deploy/algorithm: beside the toolkit in an installed wheel, at its place in a checkout."""
    installed = _HERE / "deploy" / name
    return installed if installed.is_file() else _HERE.parents[3] / "deploy" / "algorithm" / name


def requirements() -> list[str]:
    """Return what the toolkit requires, with the versions that this release needs."""
    return [line for line in _installed().requires or () if re.split(r"[^\w-]", line)[0] in NEEDED]


def write_wheel(folder: Path) -> Path:
    """Write the toolkit's wheel into a folder."""
    installed = _installed()
    checkout = _checkout(installed)
    with TemporaryDirectory() as elsewhere:
        whole = _build(checkout, Path(elsewhere)) if checkout else repack(installed, Path(elsewhere))
        with zipfile.ZipFile(whole) as archive:
            names = sorted(name for name in archive.namelist() if _belongs_in_an_image(name))
            return _write(folder / whole.name, ((name, archive.read(name)) for name in names))


def repack(installed: Distribution, folder: Path) -> Path:
    """Put an installed distribution's files into a wheel again."""
    paths = [
        path
        for path in sorted(installed.files or (), key=str)
        if path.parts[0] != ".." and path.suffix != ".pyc" and path.name not in _NOT_IN_A_WHEEL
    ]
    wheel = folder / f"{installed.name}-{installed.version}-py3-none-any.whl"
    return _write(wheel, ((path.as_posix(), Path(str(path.locate())).read_bytes()) for path in paths))


def _belongs_in_an_image(name: str) -> bool:
    return (name.startswith(_TOOLKIT) or ".dist-info/" in name) and not name.endswith(_NOT_IN_AN_IMAGE)


def _write(wheel: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write a wheel with these files."""
    record, record_path = [], f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/RECORD"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(content)}\n")
        archive.writestr(record_path, "".join([*record, f"{record_path},,\n"]))
    return wheel


def _installed() -> Distribution:
    try:
        return distribution("folkmoot")
    except PackageNotFoundError:
        raise BuildFailed(
            "folkmoot is not installed here: pip install folkmoot, or pip install -e . in a checkout"
        ) from None


def _checkout(installed: Distribution) -> Path | None:
    """Return the source tree of an editable installation."""
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin["url"]).path))


def _build(checkout: Path, folder: Path) -> Path:
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", *isolation]
    done = subprocess.run([*command, f"--wheel-dir={folder}", checkout], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"could not build the wheel of {checkout}:\n{tail(done.stderr)}")
    return next(folder.glob("*.whl"))
