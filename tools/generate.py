"""Generate the Python of the contracts: proto/ -> generated/.

The result is committed, so that nobody needs the compiler to install or read Folkmoot. `--check` writes nothing and
fails when what is committed differs from what the contracts give today.
"""

import argparse
import filecmp
import re
import shutil
import sys
import tempfile
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
PACKAGE = Path("folkmoot/v1")
DOCSTRING = '"""Messages and services of folkmoot.v1, generated from proto/ by `make generate`: do not edit."""\n'


def generate(target: Path) -> None:
    """Write the whole package below `target`; raise SystemExit when a contract doesn't compile."""
    package = target / PACKAGE
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(DOCSTRING)
    package.joinpath("py.typed").touch()

    contracts = sorted(PROTO.rglob("*.proto"))
    services = [path for path in contracts if re.search(r"^service ", path.read_text(), re.MULTILINE)]
    compile_protos(contracts, f"--python_out={target}", f"--mypy_out=quiet:{target}")
    compile_protos(services, f"--grpc_python_out={target}", f"--mypy_grpc_out=quiet:{target}")


def compile_protos(paths: list[Path], *outputs: str) -> None:
    """Run protoc with the plugins that are installed beside this interpreter."""
    plugins = [f"--plugin={Path(sys.executable).with_name(f'protoc-gen-{name}')}" for name in ("mypy", "mypy_grpc")]
    includes = [f"-I{PROTO}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    if paths and protoc.main(["protoc", *plugins, *includes, *outputs, *map(str, paths)]):
        sys.exit("generate: the contracts do not compile")


def differences(fresh: Path, committed: Path) -> list[str]:
    """Relative paths of files that are new, changed or gone."""
    ours, theirs = (
        {path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
        for root in (fresh, committed)
    )
    _, changed, unreadable = filecmp.cmpfiles(fresh, committed, [str(path) for path in ours & theirs], shallow=False)
    return sorted([*map(str, ours ^ theirs), *changed, *unreadable])


def main() -> None:
    """Replace generated/folkmoot/v1, or with --check compare with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; fail when something differs")
    check = parser.parse_args().check

    committed = ROOT / "generated"
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        if not check:
            shutil.rmtree(committed / PACKAGE, ignore_errors=True)
            shutil.copytree(fresh, committed, dirs_exist_ok=True)
        elif stale := differences(fresh, committed):
            sys.exit("generated code is not that of the contracts; run `make generate`:\n  " + "\n  ".join(stale))


if __name__ == "__main__":
    main()
