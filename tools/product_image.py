"""What the images of node and server have in common: wheels are collected here, nothing is fetched inside of the build."""

import argparse
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, engine, wheels

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras: Sequence[str]) -> list[str]:
    """Return what this checkout requires with extras, its own other extras resolved."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, wanted = set(project["dependencies"]), list(extras)
    while wanted:
        for line in project["optional-dependencies"][wanted.pop()]:
            requirement = Requirement(line)
            if requirement.name == project["name"]:
                wanted += requirement.extras
            elif requirement.marker is None or requirement.marker.evaluate():
                requirement.marker = None
                found.add(str(requirement))
    return sorted(found)


def build(dockerfile: Path, extras: Sequence[str], base: str, tag: str = "") -> str:
    """Build an image of this checkout with extras; return its id."""
    wheelhouse, _ = wheels.collect(requirements(extras), engine.ask_python(base))
    with tempfile.TemporaryDirectory(prefix="folkmoot-product-") as folder:
        context = Path(folder)
        shutil.copy(dockerfile, context)
        shutil.copytree(wheelhouse, context / "wheels")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, f"--wheel-dir={context / 'wheels'}", ROOT], check=True)
        (context / "requirements.txt").write_text(f"folkmoot[{','.join(extras)}]\n")
        return engine.build(context, {"BASE": base}, tag=tag)


def main(description: str | None, dockerfile: Path, extras: Sequence[str]) -> None:
    """Build the image that the command line asks for, and print its id."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base", default=DEFAULT_BASE, help=f"an image with python3 ({DEFAULT_BASE})")
    parser.add_argument("--tag", default="", help="a name for the engine")
    options = parser.parse_args()
    try:
        print(build(dockerfile, extras, options.base, options.tag))
    except BuildFailed as error:
        sys.exit(str(error))
