"""What goes into an image: an algorithm's package or module, with its requirements."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from folkmoot.algorithm.build.errors import BuildFailed

REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class Source:
    """A package's folder, or a module's file."""

    path: Path
    module: str
    requirements: tuple[str, ...]

    def copy_to(self, folder: Path) -> None:
        """Copy the code, so that the module can be imported with the folder in the path."""
        folder.mkdir()
        if self.path.is_dir():
            shutil.copytree(self.path, folder / self.module, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(self.path, folder)


def find_source(path: Path) -> Source:
    """Return the algorithm at a path; BuildFailed if there is none."""
    path = path.resolve()
    is_package, is_module = (path / "__init__.py").is_file(), path.is_file() and path.suffix == ".py"
    if not (is_package or is_module):
        raise BuildFailed(f"{path} is no algorithm: name a Python package (a folder with __init__.py) or a .py file")
    module = path.stem
    if not module.isidentifier() or module == "folkmoot":
        raise BuildFailed(
            f"{module!r} can't be imported in the image: give {path.name} a name that is a Python identifier"
        )
    folder = path if is_package else path.parent
    return Source(path, module, _requirements(folder / REQUIREMENTS))


def _requirements(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    lines = (line.split(" #")[0].strip() for line in file.read_text().splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
