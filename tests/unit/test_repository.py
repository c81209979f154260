"""The layout that everything else relies on: namespace folders, direction of imports, floors of dependencies."""

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOTS = ("generated", "sdk", "server", "node")

# Part of the namespace -> the parts that it may import, besides itself.
MAY_IMPORT = {
    "v1": set[str](),
    "trust": {"v1"},
    "algorithm": {"v1"},
    "transport": {"v1", "trust"},
    "registry": {"v1", "trust"},
    "client": {"v1", "trust", "transport", "registry", "algorithm"},
    "server": {"v1", "trust", "transport", "cli"},
    "node": {"v1", "trust", "transport", "registry", "algorithm", "cli"},
    "cli": {"v1", "trust", "transport", "registry", "client", "algorithm"},
}


def parts() -> dict[str, Path]:
    """Return the folders below the four `folkmoot/`, by name."""
    return {
        folder.name: folder
        for root in ROOTS
        for folder in (REPOSITORY / root / "folkmoot").glob("*/")
        if folder.name != "__pycache__"
    }


def imported_parts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and part for each import of another folkmoot module, at whatever depth it stands."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(module="folkmoot"):
                names = [f"folkmoot.{alias.name}" for alias in node.names]
            case ast.ImportFrom(module=str(module)):
                names = [module]
            case _:
                continue
        for name in names:
            if name.startswith("folkmoot."):
                yield node.lineno, name.split(".")[1]


@pytest.mark.parametrize("folder", ["alembic", *(f"{root}/folkmoot" for root in ROOTS)])
def test_namespace_folder_has_no_init(folder):
    assert not (REPOSITORY / folder / "__init__.py").exists(), "it would hide the other parts, or the library"


@pytest.mark.parametrize("root", ROOTS)
def test_nothing_lies_beside_the_parts(root):
    beside = [path.name for path in (REPOSITORY / root / "folkmoot").glob("*") if path.is_file()]
    assert beside == []


def test_every_part_is_a_typed_package_with_a_rule():
    assert parts(), "nothing to scan"
    assert parts().keys() <= MAY_IMPORT.keys()
    for folder in parts().values():
        assert (folder / "__init__.py").is_file()
        assert (folder / "py.typed").is_file()


def test_dependencies_point_one_way():
    scanned, wrong = 0, []
    for part, folder in parts().items():
        for path in sorted(folder.rglob("*.py")):
            scanned += 1
            for line, other in imported_parts(path.read_text()):
                if other not in MAY_IMPORT[part] | {part}:
                    wrong.append(f"{path.relative_to(REPOSITORY)}:{line} imports folkmoot.{other}")
    assert scanned
    assert wrong == []


@pytest.mark.parametrize(
    "source",
    [
        "import folkmoot.node",
        "import folkmoot.node.journal.database as journal",
        "from folkmoot import node",
        "from folkmoot.node import journal",
        "def late():\n    from folkmoot.node.journal.database import Journal",
    ],
)
def test_scan_sees_every_way_to_import(source):
    assert [part for _, part in imported_parts(source)] == ["node"]


@pytest.mark.parametrize("part", ["server", "node"])
def test_log_events_are_called_alike(part):
    """What it is about, a dot, what happened: `run.refused`."""
    calls = re.compile(r"\b_?log\.(?:debug|info|warning|error|critical|exception)\(\s*\"(.+?)\"")
    events = [event for path in parts()[part].rglob("*.py") for event in calls.findall(path.read_text())]
    assert events
    assert [event for event in events if not re.fullmatch(r"[a-z]+\.[a-z_]+", event)] == []


def test_floors_are_those_of_the_generated_code():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    generated = REPOSITORY / "generated/folkmoot/v1"
    grpc = versions(generated.glob("*_pb2_grpc.py"), r"^GRPC_GENERATED_VERSION = '(\d+)\.(\d+)\.(\d+)'$")
    protobuf = versions(generated.glob("*_pb2.py"), r"Domain\.PUBLIC,\s*(\d+),\s*(\d+),\s*(\d+)")
    floors = dict(requirement.split(">=") for requirement in project["dependencies"])
    assert ({floors["grpcio"]}, {floors["protobuf"]}) == (grpc, protobuf)


def versions(paths: Iterable[Path], pattern: str) -> set[str]:
    """Return the versions that the files ask for; "" stands for a file that doesn't say."""
    found = (re.search(pattern, path.read_text(), re.MULTILINE) for path in paths)
    return {".".join(match.groups()) if match else "" for match in found}
