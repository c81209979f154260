"""docs/security.md promises a test for each claim: every test that it names is there, and every attack of both suites is named."""

import ast
import re
from pathlib import Path

import pytest

from tests.markdown import REPOSITORY

DOCUMENT = REPOSITORY / "docs/security.md"
SUITES = ("tests/hostile", "tests/attacks")
MACHINERY = {"test_protections.py"}
"""Files of the suites that have no attacks, but test the machinery of the others."""
PARTIES = [
    "The server",
    "Another member",
    "An algorithm",
    "A researcher's laptop",
    "A stolen node's disk",
    "A registry",
]

_TEST_LINK = re.compile(r"\[([^\]]+)\]\(\.\./(tests/[^)]+/test_\w+\.py)\)")


def named(text: str) -> set[tuple[str, str]]:
    """Return file and function of each test that a text links: the link's text is the function's name in words."""
    return {(file, "test_" + words.replace(" ", "_")) for words, file in _TEST_LINK.findall(text)}


def functions(file: Path) -> set[str]:
    """Return the tests of a file."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def claims(party: str) -> list[tuple[str, str]]:
    """Return claim and tests of each row below a party's heading."""
    section = DOCUMENT.read_text().split(f"\n## {party}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [(row[0].strip(), row[1]) for row in rows if row[1].strip() not in ("which is bounded by", "held by")]


@pytest.mark.parametrize(("file", "test"), sorted(named(DOCUMENT.read_text())))
def test_every_named_test_exists(file: str, test: str):
    assert test in functions(REPOSITORY / file)


@pytest.mark.parametrize(
    "file",
    sorted(path for suite in SUITES for path in (REPOSITORY / suite).glob("test_*.py") if path.name not in MACHINERY),
    ids=lambda path: path.stem,
)
def test_every_attack_is_named(file: Path):
    here = file.relative_to(REPOSITORY).as_posix()
    linked = {test for of, test in named(DOCUMENT.read_text()) if of == here}
    assert functions(file) - linked == set()


@pytest.mark.parametrize("party", PARTIES)
def test_every_claim_names_a_test(party: str):
    listed = claims(party)
    assert listed
    assert [claim for claim, tests in listed if not named(tests)] == []


def test_links_to_tests_are_all_read():
    text = DOCUMENT.read_text()
    assert len(re.findall(r"\(\.\./tests/[^)]*test_", text)) == len(_TEST_LINK.findall(text))
