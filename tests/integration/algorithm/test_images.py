"""Images of the examples on both kinds of base, run as hardened as a node runs them."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from folkmoot.algorithm.arrow import PyArrow
from folkmoot.algorithm.build import BuildFailed, build
from folkmoot.algorithm.describe import describe
from folkmoot.algorithm.version import VERSION
from tests.conftest import BASE_IMAGES

pytestmark = [pytest.mark.needs_docker, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
ALGORITHM = '''
"""An algorithm that looks around."""
import os
from pathlib import Path
from folkmoot.algorithm import Context, partial

print("imported")

@partial
def look(ctx: Context) -> dict:
    """Look around."""
    def writable(path):
        try:
            Path(path, "file").touch()
        except OSError:
            return False
        return True
    return {
        "user": os.getuid(),
        "interfaces": [line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]],
        "writable": [path for path in ("/", "/opt/algorithm", "/run/folkmoot") if writable(path)],
        "compiled": __cached__ is not None and Path(__cached__).exists(),
        "module": __name__,
    }
'''


def docker(*command: str | Path) -> str:
    return subprocess.run(["docker", *command], capture_output=True, text=True, check=True).stdout.strip()


# Debian's own layout is what other tests build on.
@pytest.fixture(scope="module", params=[pytest.param(BASE_IMAGES[0], marks=pytest.mark.nightly), BASE_IMAGES[1]])
def base(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def image(base, tmp_path_factory) -> Iterator[str]:
    """Return the id of an image that looks around."""
    source = tmp_path_factory.mktemp("source") / "around.py"
    source.write_text(ALGORITHM)
    image = build(source, base=base)
    yield image.removeprefix("local:")
    docker("image", "rm", "--force", image.removeprefix("local:"))


def run(image: str, socket: Path) -> int:
    socket.chmod(0o666)
    socket.parent.chmod(0o711)
    hardened = (
        "--network=none",
        "--read-only",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
        "--pids-limit=64",
        "--tmpfs=/tmp",
    )
    mount = f"--mount=type=bind,source={socket.parent},target=/run/folkmoot,readonly"
    return subprocess.run(["docker", "run", "--rm", *hardened, mount, image], timeout=120, check=False).returncode


def test_image_runs_without_network_user_or_disk(image, node, state, socket):
    state.give("look")
    assert run(image, socket) == 0
    assert state.result is not None
    assert json.loads(state.result[1]) == {
        "user": 65532,
        "interfaces": ["lo"],
        "writable": [],
        "compiled": True,
        "module": "around",
    }


def test_image_says_what_its_functions_are(image):
    labels = json.loads(docker("image", "inspect", "--format={{json .Config.Labels}}", image))
    assert labels["org.folkmoot.toolkit"] == VERSION
    assert json.loads(labels["org.folkmoot.functions"]) == [
        {"name": "look", "kind": "partial", "parameters": [], "description": "Look around."}
    ]


def test_failure_in_a_container_is_told(image, node, state, socket):
    state.give("look", nothing=1)
    assert run(image, socket) == 1
    assert state.failure == (
        "ERROR_REASON_ARGUMENTS_INVALID",
        "the arguments do not fit: unknown nothing. It is look()",
    )


def test_example_reads_its_table_in_a_container(base, node, state, socket):
    reported: list[str] = []
    image = build(EXAMPLES / "average", base=base, tag="folkmoot-test-average", report=reported.append)
    try:
        labels = json.loads(docker("image", "inspect", "--format={{json .Config.Labels}}", "folkmoot-test-average"))
        assert labels["org.folkmoot.functions"] == describe("examples.average")
        state.tables["patients"] = PyArrow().write(pa.table({"age": [60, None, 70, 75]}))
        state.give("partial_average", column="age")
        assert run(image.removeprefix("local:"), socket) == 0
        assert state.result == ("application/json", b'{"sum":205.0,"count":3}')
    finally:
        docker("image", "rm", "--force", "folkmoot-test-average")
    assert reported[0].startswith(f"{base} has Python 3.")


def test_programs_of_any_language_become_an_image(tmp_path, node, state, socket):
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "algorithm.toml").write_text(
        '[functions.lines]\ndescription = "Count lines."\ncommand = ["sh", "lines.sh"]\ntables = "csv"\ncolumns = ["$column"]\n'
        'parameters = { column = "str" }'
    )
    (folder / "lines.sh").write_text('wc -l < "$FOLKMOOT_INPUT/tables/patients.csv" > "$FOLKMOOT_OUTPUT/result.json"')
    image = build(folder, base=BASE_IMAGES[0], report=lambda _: None).removeprefix("local:")
    try:
        labels = json.loads(docker("image", "inspect", "--format={{json .Config.Labels}}", image))
        [function] = json.loads(labels["org.folkmoot.functions"])
        assert (function["name"], function["kind"], function["description"]) == ("lines", "partial", "Count lines.")
        state.tables["patients"] = PyArrow().write(pa.table({"age": [60, None, 70, 75]}))
        state.give("lines", column="age")
        assert run(image, socket) == 0
        assert state.result == ("application/json", b"5")
    finally:
        docker("image", "rm", "--force", image)


def test_programs_that_are_described_wrongly_make_no_image(tmp_path):
    (tmp_path / "algorithm.toml").write_text("[functions.f]\ntables = 'csv'")
    with pytest.raises(BuildFailed, match=r"functions\.f\.command has to be a list"):
        build(tmp_path, base=BASE_IMAGES[0])


def test_module_without_functions_makes_no_image(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BuildFailed, match="empty has no functions"):
        build(tmp_path / "empty.py", base=BASE_IMAGES[0])


def test_module_that_cannot_be_imported_makes_no_image(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name")
    with pytest.raises(BuildFailed, match="No module named 'nothing_of_that_name'"):
        build(tmp_path / "broken.py", base=BASE_IMAGES[0])


def test_command_prints_the_name_for_tasks_alone(tmp_path):
    (tmp_path / "around.py").write_text(ALGORITHM)
    command = [sys.executable, "-m", "folkmoot.algorithm.build", str(tmp_path / "around.py"), "--base", BASE_IMAGES[0]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("local:sha256:")
    assert done.stdout.count("\n") == 1
    docker("image", "rm", "--force", done.stdout.strip().removeprefix("local:"))
