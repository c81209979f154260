"""Build the `folkmoot` command with the node as one executable file, for machines that have no Python of their own.

    python tools/executable.py dist/

It runs on Linux machines of this one's architecture whose C library is not older than this one's. Algorithms run in containers only: the
process runtime needs a Python and the algorithms' packages.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENTRY = ROOT / "deploy/executable/folkmoot_executable.py"
OPTIONS = (
    "--onefile",
    "--noconfirm",
    "--log-level=ERROR",
    "--name=folkmoot",
    # Commands are entry points, found by metadata and imported by name: PyInstaller sees neither.
    "--copy-metadata=folkmoot",
    "--collect-submodules=folkmoot",
    "--collect-data=folkmoot",
    "--exclude-module=pandas",
    "--exclude-module=tkinter",
)


def main() -> None:
    """Build the executable."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to put it")
    print(build(parser.parse_args().folder.resolve()))


def build(folder: Path) -> Path:
    """Build the executable from this checkout, in an environment of its own, and return its path."""
    with tempfile.TemporaryDirectory(prefix="folkmoot-executable-") as work:
        environment = Path(work, "environment")
        venv.create(environment, with_pip=True)
        python = environment / "bin/python"
        install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, f"{ROOT}[node]", "pyinstaller>=6.10"], check=True)
        places = [f"--distpath={folder}", f"--workpath={work}/build", f"--specpath={work}"]
        subprocess.run([python, "-m", "PyInstaller", *OPTIONS, *places, ENTRY], check=True, stdout=sys.stderr)
    return folder / "folkmoot"


if __name__ == "__main__":
    main()
