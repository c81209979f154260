"""What an algorithm says about itself: its functions, their signatures, the hash of its source, the text of its image."""

import hashlib
import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import folkmoot.algorithm
from folkmoot.algorithm import ArgumentsInvalid, Context, FunctionNotFound, central, errors, partial, version
from folkmoot.algorithm.describe import describe
from folkmoot.algorithm.functions import find, functions_of
from folkmoot.algorithm.image import image_text, parse_image
from folkmoot.algorithm.source import tree_hash
from folkmoot.trust import encoding
from folkmoot.v1.errors_pb2 import ErrorReason
from folkmoot.v1.task_pb2 import Image

REPOSITORY = Path(__file__).resolve().parents[3]
DIGEST = "sha256:" + "0123456789abcdef" * 4


@partial
def count(ctx: Context, column: str, weights: "str | None" = None, *, at=()) -> int:
    """Count.

    Not more.
    """
    return 1


def algorithm() -> ModuleType:
    module = ModuleType("algorithm")
    vars(module).update(count=count, helper=lambda ctx: None)
    return module


def test_only_marked_functions_are_offered():
    functions = functions_of(algorithm())
    assert list(functions) == ["count"]
    assert functions["count"].signature == "count(column: str, weights: str | None = None, at = [])"
    assert functions["count"].description == "Count.\n\nNot more."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "missing column. It is count"),
        ({"column": "a", "x": 1, "y": 2}, "unknown x, y. It is"),
        ({"x": 1}, "missing column; unknown x. It is"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, says):
    with pytest.raises(ArgumentsInvalid, match=says):
        functions_of(algorithm())["count"].check(arguments)


def test_arguments_that_fit_pass():
    functions_of(algorithm())["count"].check({"column": "age"})
    functions_of(algorithm())["count"].check({"column": "age", "weights": None, "at": []})


def test_unknown_function_names_those_there_are():
    with pytest.raises(FunctionNotFound, match="there is no function 'sum': there are count"):
        find(functions_of(algorithm()), "sum")


def test_functions_that_cannot_be_called_by_name_are_refused_at_import():
    for wrong in (lambda: None, lambda *ctx: None, lambda ctx, *rest: None, lambda ctx, **rest: None):
        with pytest.raises(TypeError):
            central(wrong)


@pytest.mark.parametrize("example", ["average", "survival", "secure_sum"])
def test_label_describes_every_function(example):
    module = f"examples.{example}"
    described = json.loads(describe(module))
    assert {one["name"] for one in described} == functions_of(importlib.import_module(module)).keys()
    for one in described:
        assert one.keys() - {"data"} == {"name", "kind", "parameters", "description"}
        assert one["kind"] in ("central", "partial")
        assert one["description"], "an example documents its functions"
        for parameter in one["parameters"]:
            assert parameter.keys() - {"default"} == {"name", "type", "required", "schema"}
            assert ("default" in parameter) is not parameter["required"]


def test_tree_hash_is_that_of_the_contract(tmp_path, monkeypatch):
    package = tmp_path / "hashed"
    (package / "part").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('must not run')")
    (package / "part" / "b.py").write_text("b")
    (package / "a.py").write_text("a")
    (package / "data.csv").write_text("not source")
    (tmp_path / "plain.py").write_text("plain")
    monkeypatch.syspath_prepend(str(tmp_path))
    paths = ["__init__.py", "a.py", "part/b.py"]
    expected = b"".join(encoding.pae(path.encode(), (package / path).read_bytes()) for path in paths)
    assert tree_hash("hashed") == hashlib.sha256(expected).digest()
    assert tree_hash("plain") == hashlib.sha256(encoding.pae(b"plain.py", b"plain")).digest()
    (package / "part" / "b.py").write_text("changed")
    assert tree_hash("hashed") != hashlib.sha256(expected).digest()


def test_tree_hash_of_nothing(tmp_path):
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        tree_hash("nowhere_at_all")


@pytest.mark.parametrize("text", [f"registry.example.org:5000/team/average@{DIGEST}", f"local:{DIGEST}"])
def test_image_text_is_read_and_written(text):
    assert image_text(parse_image(text)) == text


def test_image_of_a_module_is_pinned_by_its_source():
    image = parse_image("process:examples.average")
    assert (image.process.module, image.process.tree_hash) == ("examples.average", tree_hash("examples.average"))
    assert image_text(image) == "process:examples.average"


def test_image_that_names_nothing_has_no_text():
    assert not image_text(Image())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "average:latest",
        "registry.example.org/average:1",
        "local:sha256:12",
        f"local:{DIGEST}0",
        "process:",
        "process:a/b",
    ],
)
def test_image_that_is_not_pinned_is_refused(text):
    with pytest.raises(ValueError, match="does not pin an image"):
        parse_image(text)


def test_reasons_come_from_the_catalogue():
    refused = errors.refusal("COLUMN_NOT_FOUND: no column x: its columns are a, b")
    assert (type(refused), str(refused)) == (errors.ColumnNotFound, "no column x: its columns are a, b")
    assert errors.refusal("RESULT_WRITTEN: twice").reason == ErrorReason.Value("ERROR_REASON_RESULT_WRITTEN")
    assert str(errors.refusal("something: else")) == "something: else"


def test_version_is_that_of_the_distribution():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["version"] == version.VERSION


def test_public_names_are_those_that_are_promised():
    assert folkmoot.algorithm.__all__ == sorted(folkmoot.algorithm.__all__)
    assert all(hasattr(folkmoot.algorithm, name) for name in folkmoot.algorithm.__all__)


def test_import_pulls_in_nothing_but_grpc_protobuf_and_the_contract():
    probe = "import sys, folkmoot.algorithm.worker; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    )
    base = (
        "import sys, grpc, folkmoot.v1.proxy_service_pb2_grpc; print(*{name.partition('.')[0] for name in sys.modules})"
    )
    needed = set(
        subprocess.run([sys.executable, "-c", base], capture_output=True, text=True, check=True).stdout.split()
    )
    assert loaded - needed <= set(sys.stdlib_module_names)
