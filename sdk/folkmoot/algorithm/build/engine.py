"""The container engine, by its command line.

By the command, and not by the engine's library: whoever builds images has it, it brings the builder that the engine wants (the library
knows only the old one), and the toolkit stays without another dependency.
"""

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from folkmoot.algorithm.build.errors import BuildFailed, tail
from folkmoot.algorithm.build.python import QUESTION, Python, parse_answer
from folkmoot.algorithm.build.source import PROGRAMS

_ISOLATED = ("run", "--rm", "--network=none", "--entrypoint=python3")


def ask_python(base: str) -> Python:
    """Return the Python of a base image."""
    return parse_answer(_docker(*_ISOLATED, base, "-c", QUESTION, failed=f"{base} can't be asked for its python3"))


def build(
    context: Path,
    arguments: Mapping[str, str],
    *,
    target: str = "",
    labels: Mapping[str, str] | None = None,
    tag: str = "",
) -> str:
    """Build an image without any network and return its id."""
    options = [f"--target={target}"] if target else []
    options += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    options += [f"--label={name}={value}" for name, value in (labels or {}).items()]
    options += [f"--tag={tag}"] if tag else []
    with tempfile.NamedTemporaryFile(prefix="folkmoot-image-") as id_file:
        command = ["build", "--network=none", f"--iidfile={id_file.name}", *options, str(context)]
        _docker(*command, failed="the image could not be built")
        built = Path(id_file.name).read_text().strip()
    return _docker("image", "inspect", "--format={{.Id}}", built, failed="the built image is gone").strip()


def push(image_id: str, name: str) -> str:
    """Push an image under a name in a registry and return how tasks name it there, `repository@sha256:…`."""
    _docker("image", "tag", image_id, name, failed=f"{name} can't be an image's name")
    _docker("push", "--quiet", name, failed=f"{name} could not be pushed; `docker login` gives the registry your login")
    listed = _docker(
        "image", "inspect", '--format={{join .RepoDigests "\\n"}}', name, failed="the pushed image is gone"
    )
    repository = name.removesuffix(f":{name.rpartition('/')[2].partition(':')[2]}")
    for pinned in listed.split():
        if pinned.startswith(f"{repository}@"):
            return pinned
    raise BuildFailed(
        f"the engine does not say which digest {name} has: ask the registry, and name it repository@sha256:…"
    )


def describe(image_id: str, module: str) -> str:
    """Return what an image's functions are, as JSON; asked of the image, because only there are its requirements."""
    if not module:
        asking = ("-m", "folkmoot.algorithm.exec", "--describe", PROGRAMS)
        return _docker(*_ISOLATED, "--read-only", image_id, *asking, failed="the image can't read its programs").strip()
    failed = f"{module} can't be imported in the image"
    output = _docker(*_ISOLATED, "--read-only", image_id, "-m", "folkmoot.algorithm.describe", module, failed=failed)
    description = output.strip().rpartition("\n")[2]  # a module may print when it is imported
    if not json.loads(description):
        raise BuildFailed(f"{module} has no functions: mark them with @central or @partial")
    return description


def _docker(*command: str, failed: str) -> str:
    try:
        done = subprocess.run(["docker", *command], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildFailed(
            "there is no docker command: install Docker, or use a process image while developing"
        ) from None
    if done.returncode:
        raise BuildFailed(f"{failed}:\n{tail(done.stdout + done.stderr)}")
    return done.stdout
