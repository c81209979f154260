"""Image building as far as it needs no engine: which source, which wheels, which toolkit."""

import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from folkmoot.algorithm.build import BuildFailed, engine, toolkit, wheels
from folkmoot.algorithm.build.python import QUESTION, Python, parse_answer
from folkmoot.algorithm.build.source import find_source

REPOSITORY = Path(__file__).resolve().parents[3]
DEBIAN = Python((3, 11), "x86_64", 36)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "folkmoot" / "wheels"


def test_package_and_module_are_sources(tmp_path):
    package, module = tmp_path / "average", tmp_path / "single.py"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "requirements.txt").write_text("# none\nnanoarrow>=0.7 # small\n\npandas\n")
    (package / "__pycache__").mkdir()
    module.write_text("")
    assert find_source(package).module == "average"
    assert find_source(package).requirements == ("nanoarrow>=0.7", "pandas")
    assert (find_source(module).module, find_source(module).requirements) == ("single", ())
    for source in (find_source(package), find_source(module)):
        source.copy_to(tmp_path / f"copy of {source.module}")
    copied = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("copy of */**/*")}
    assert copied == {
        "copy of average/average",
        "copy of average/average/__init__.py",
        "copy of average/average/requirements.txt",
        "copy of single/single.py",
    }


@pytest.mark.parametrize("name", ["nothing", "folder", "not-a-name.py", "folkmoot.py"])
def test_what_is_no_algorithm_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "not-a-name.py").write_text("")
    (tmp_path / "folkmoot.py").write_text("")
    with pytest.raises(BuildFailed, match=r"is no algorithm|can't be imported"):
        find_source(tmp_path / name)


def test_every_python_answers_the_question():
    answer = subprocess.run([sys.executable, "-c", QUESTION], capture_output=True, text=True, check=True).stdout
    assert parse_answer(answer).version == sys.version_info[:2]


def test_wheels_are_chosen_for_the_base_and_not_for_this_machine():
    arguments = Python((3, 12), "aarch64", 28).pip_arguments()
    assert "--python-version=3.12" in arguments
    assert "--platform=manylinux_2_28_aarch64" in arguments
    assert "--platform=manylinux2014_aarch64" in arguments
    assert "--platform=manylinux_2_29_aarch64" not in arguments
    assert Python((3, 12), "x86_64", None).pip_arguments()[-2:] == [
        "--platform=musllinux_1_2_x86_64",
        "--platform=musllinux_1_1_x86_64",
    ]


@pytest.mark.parametrize(
    ("answer", "python"),
    [
        ("cpython 3 12 x86_64 glibc 2.36\n", Python((3, 12), "x86_64", 36)),
        ("cpython 3 13 aarch64 musl\n", Python((3, 13), "aarch64", None)),
    ],
)
def test_answer_of_a_base(answer, python):
    assert parse_answer(answer) == python


@pytest.mark.parametrize("answer", ["cpython 3 9 x86_64 glibc 2.31", "pypy 3 11 x86_64 glibc 2.36", "", "Python?"])
def test_base_without_a_fitting_python_is_refused(answer):
    with pytest.raises(BuildFailed, match=r"needs CPython 3\.11 or newer"):
        parse_answer(answer)


def test_wheels_of_an_earlier_build_are_used_again(cache, monkeypatch):
    asked = []

    def download(requirements, python, folder):
        asked.append(requirements)
        folder.mkdir()
        (folder / "one.whl").touch()

    monkeypatch.setattr(wheels, "_download", download)
    first, collected = wheels.collect(["b", "a"], DEBIAN)
    again, again_collected = wheels.collect(["a", "b"], DEBIAN)
    other, _ = wheels.collect(["a", "b"], Python((3, 12), "x86_64", 36))
    refreshed, refreshed_collected = wheels.collect(["a", "b"], DEBIAN, refresh=True)
    assert (first, collected, again_collected, refreshed_collected) == (again, True, False, True)
    assert first == refreshed != other
    assert asked == [["b", "a", "pip"], ["a", "b", "pip"], ["a", "b", "pip"]]
    assert {path.parent for path in (first, other)} == {cache}


def test_failed_collection_leaves_nothing_that_looks_whole(cache):
    with pytest.raises(BuildFailed, match=r"could not collect wheels for Python 3\.11 on x86_64 with glibc 2\.36"):
        wheels.collect(["/no/such/wheel-1-py3-none-any.whl"], DEBIAN)
    assert list(cache.iterdir()) == []


def test_toolkit_needs_no_cryptography():
    assert sorted(line.split(">")[0] for line in toolkit.requirements()) == ["grpcio", "protobuf"]


def test_installed_distribution_becomes_a_wheel_that_pip_takes(tmp_path):
    built = toolkit.write_wheel(tmp_path)
    target, again, repacked = tmp_path / "installed", tmp_path / "again", tmp_path / "repacked"
    install(built, target)
    repacked.mkdir()
    wheel = toolkit.repack(PathDistribution(next(target.glob("*.dist-info"))), repacked)
    install(wheel, again)
    with zipfile.ZipFile(built) as first, zipfile.ZipFile(wheel) as second:
        assert set(first.namelist()) == set(second.namelist())
    assert (again / "folkmoot/algorithm/build/deploy/Dockerfile").read_bytes() == toolkit.shipped(
        "Dockerfile"
    ).read_bytes()


def test_an_image_gets_nothing_that_holds_keys_decides_or_serves(tmp_path):
    with zipfile.ZipFile(toolkit.write_wheel(tmp_path)) as wheel:
        packages = {"/".join(name.split("/")[:2]) for name in wheel.namelist() if ".dist-info/" not in name}
    assert packages == {"folkmoot/algorithm", "folkmoot/v1"}


def install(wheel: Path, target: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    subprocess.run([*pip, f"--target={target}", wheel], check=True)


def test_machine_without_docker_is_told_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildFailed, match="install Docker"):
        engine.ask_python("python:3.12-slim")
