"""Build the container image of the data station from this checkout: wheels are collected here, nothing is fetched inside of the build.

    python tools/node_image.py --base python:3.12-slim --tag folkmoot-node:0.1.0

Prints the image's id.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from folkmoot.algorithm.build import DEFAULT_BASE, BuildFailed, engine, wheels

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("node", "postgres", "mariadb", "excel", "sparql")
"""The node with the drivers of every source of data."""


def requirements(extra: str) -> list[str]:
    """Return what the distribution requires with an extra, its own other extras resolved."""
    found = []
    for line in requires("folkmoot") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "folkmoot":
            found += [each for other in requirement.extras for each in requirements(other)]
        else:
            requirement.marker = None
            found.append(str(requirement))
    return sorted(set(found))


def main() -> None:
    """Build the image."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default=DEFAULT_BASE, help=f"an image with python3 ({DEFAULT_BASE})")
    parser.add_argument("--tag", default="", help="a name for the engine")
    options = parser.parse_args()
    try:
        print(build(options.base, options.tag))
    except BuildFailed as error:
        sys.exit(str(error))


def build(base: str, tag: str = "") -> str:
    """Build the image and return its id."""
    needed = sorted({requirement for extra in EXTRAS for requirement in requirements(extra)})
    wheelhouse, _ = wheels.collect(needed, engine.ask_python(base))
    with tempfile.TemporaryDirectory(prefix="folkmoot-node-") as folder:
        context = Path(folder)
        shutil.copy(ROOT / "deploy/node/Dockerfile", context)
        shutil.copytree(wheelhouse, context / "wheels")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*command, f"--wheel-dir={context / 'wheels'}", ROOT], check=True)
        (context / "requirements.txt").write_text(f"folkmoot[{','.join(EXTRAS)}]\n")
        return engine.build(context, {"BASE": base}, tag=tag)


if __name__ == "__main__":
    main()
