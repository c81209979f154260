"""The guides' Python has the types that it should: names, arguments and attributes that don't exist are found by mypy."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.markdown import DOCUMENTS, REPOSITORY, blocks, name

GIVEN = "from folkmoot.client import Client, Subtasks\nclient: Client\nimage: str\n"
"""What an example's README takes for granted."""

pytestmark = pytest.mark.timeout(300)


def written(path: Path) -> str:
    """Return a document's Python, as one module."""
    snippets = "\n".join(text for language, text in blocks(path.read_text()) if language == "python")
    return GIVEN + snippets if snippets and path.is_relative_to(REPOSITORY / "examples") else snippets


def check(folder: Path) -> str:
    """Return what the type checker says of the files in a folder."""
    options = ["--allow-untyped-defs", "--allow-untyped-calls", "--no-error-summary"]  # guides are for people
    command = [sys.executable, "-m", "mypy", *options, *sorted(map(str, folder.glob("*.py")))]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout


def test_every_name_and_argument_exists(tmp_path: Path):
    for number, path in enumerate(DOCUMENTS):
        if source := written(path):
            (tmp_path / f"document_{number}.py").write_text(f"# {name(path)}\n{source}")
    assert len(list(tmp_path.glob("*.py"))) >= 5
    assert check(tmp_path) == ""


def test_a_wrong_argument_is_found(tmp_path: Path):
    (tmp_path / "document.py").write_text(GIVEN + "client.tasks.create(image=image, organisations=[])\n")
    assert "organisations" in check(tmp_path)
