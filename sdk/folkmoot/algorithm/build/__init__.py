"""Container images of algorithms: from a Python package or module, or a folder of programs, to `local:sha256:…`, without any fetching inside of the build.

    python -m folkmoot.algorithm.build examples/average --tag average --base python:3.12-slim

Wheels are collected on this machine, for the Python that the base image has; the image gets them, the toolkit, and the algorithm.
What the algorithm's functions are is asked of the finished image, and becomes its label `org.folkmoot.functions`.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from folkmoot.algorithm.build import engine, toolkit, wheels
from folkmoot.algorithm.build.errors import BuildFailed
from folkmoot.algorithm.build.source import Source, find_source
from folkmoot.algorithm.describe import FUNCTIONS_LABEL
from folkmoot.algorithm.version import VERSION

__all__ = ["DEFAULT_BASE", "BuildFailed", "build"]

DEFAULT_BASE = "python:3.12-slim"
TOOLKIT_LABEL = "org.folkmoot.toolkit"

Report = Callable[[str], None]


def build(
    path: Path,
    *,
    base: str = DEFAULT_BASE,
    tag: str = "",
    push: str = "",
    refresh: bool = False,
    report: Report = print,
) -> str:
    """Build the image of the package, module or folder of programs at `path` and return how tasks name it, `local:sha256:…`.

    `push` is a name in a registry: the image is pushed there, and tasks name it `repository@sha256:…`. Its requirements are those of the `requirements.txt` beside the code. Wheels that an earlier build collected for the same requirements
    are used again unless `refresh`. `report` gets a line per step. BuildFailed says what went wrong, and what to do.
    """
    source = find_source(path)
    python = engine.ask_python(base)
    report(f"{base} has {python}")
    requirements = [*toolkit.requirements(), *source.requirements]
    wheelhouse, collected = wheels.collect(requirements, python, refresh=refresh)
    report(f"{len(list(wheelhouse.iterdir()))} wheels, {'collected' if collected else 'kept from an earlier build'}")
    with tempfile.TemporaryDirectory(prefix="folkmoot-build-") as folder:
        context = Path(folder)
        _fill(context, source, wheelhouse, requirements)
        arguments = {"BASE": base, "MODULE": source.module}
        functions = engine.describe(engine.build(context, arguments, target=source.target), source.module)
        labels = {FUNCTIONS_LABEL: functions, TOOLKIT_LABEL: VERSION}
        image_id = engine.build(
            context, arguments, target=source.target, labels=labels, tag=tag
        )  # every layer is there already
    report(f"built {tag or source.name}")
    if push:
        report(f"pushing {push}")
        return engine.push(image_id, push)
    return f"local:{image_id}"


def _fill(context: Path, source: Source, wheelhouse: Path, requirements: list[str]) -> None:
    """Lay out the build context as the Dockerfile expects it."""
    shutil.copy(toolkit.shipped("Dockerfile"), context)
    shutil.copytree(wheelhouse, context / "wheels")
    (context / "requirements.txt").write_text("".join(f"{line}\n" for line in requirements))
    (context / "toolkit").mkdir()
    toolkit.write_wheel(context / "toolkit")
    source.copy_to(context / "algorithm")
