"""What goes into an image: an algorithm's package or module with its requirements, or a folder of programs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from folkmoot.algorithm.build.errors import BuildFailed
from folkmoot.algorithm.programs import FILE, ProgramsInvalid, read_programs

REQUIREMENTS = "requirements.txt"
PROGRAMS = "program"
"""The folder of programs in an image, below that of everything else."""

_TABLES = ("nanoarrow>=0.7",)
"""What it takes to write tables as CSV or JSON."""
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True)
class Source:
    """A package's folder, a module's file, or a folder of programs (then `module` is empty)."""

    path: Path
    module: str
    requirements: tuple[str, ...]

    @property
    def name(self) -> str:
        """What to call it."""
        return self.module or self.path.name

    @property
    def target(self) -> str:
        """The stage of the Dockerfile that makes its image."""
        return "module" if self.module else "programs"

    def copy_to(self, folder: Path) -> None:
        """Copy the code, so that the module can be imported with the folder in the path."""
        folder.mkdir()
        if self.path.is_dir():
            shutil.copytree(self.path, folder / (self.module or PROGRAMS), ignore=_LEFT_OUT)
        else:
            shutil.copy(self.path, folder)


def find_source(path: Path) -> Source:
    """Return the algorithm at a path; BuildFailed if there is none."""
    path = path.resolve()
    if (path / FILE).is_file():
        return _find_programs(path)
    is_package, is_module = (path / "__init__.py").is_file(), path.is_file() and path.suffix == ".py"
    if not (is_package or is_module):
        raise BuildFailed(
            f"{path} is no algorithm: name a Python package (a folder with __init__.py), a .py file, or a folder with {FILE}"
        )
    module = path.stem
    if not module.isidentifier() or module == "folkmoot":
        raise BuildFailed(
            f"{module!r} can't be imported in the image: give {path.name} a name that is a Python identifier"
        )
    folder = path if is_package else path.parent
    return Source(path, module, _requirements(folder / REQUIREMENTS))


def _find_programs(path: Path) -> Source:
    try:
        programs = read_programs(path / FILE)
    except ProgramsInvalid as error:
        raise BuildFailed(str(error)) from None
    needs_tables = any(program.tables in ("csv", "json") for program in programs.values())
    return Source(path, "", (*_requirements(path / REQUIREMENTS), *(_TABLES if needs_tables else ())))


def _requirements(file: Path) -> tuple[str, ...]:
    if not file.is_file():
        return ()
    lines = (line.split(" #")[0].strip() for line in file.read_text().splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))
