"""Documents that can't drift: links lead somewhere, snippets compile, commands and settings exist, the reference is today's."""

import ast
import dataclasses
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from folkmoot.cli.app import folkmoot
from folkmoot.node.config import CollaborationConfig, DataBlock, NodeConfig
from folkmoot.node.policy.policy_file import Policy, PolicyLimits, Rule
from folkmoot.server.config import SETTINGS
from folkmoot.trust.reasons import reason_name
from folkmoot.v1.errors_pb2 import ErrorReason
from tests.markdown import DOCUMENTS, REPOSITORY, anchors, blocks, links, name
from tools import generate_docs

DECISIONS = REPOSITORY / "docs/decisions"
LONGEST_DECISION_LINES = 50


def snippets(language: str) -> list[Any]:
    """Return the blocks of a language in all documents, as parameters."""
    return [
        pytest.param(text, id=f"{name(path)}-{number}")
        for path in DOCUMENTS
        for number, (written, text) in enumerate(blocks(path.read_text()), 1)
        if written == language
    ]


# ---- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_leads_somewhere(path: Path):
    for target in links(path.read_text()):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_readme_leads_to_every_guide():
    linked = {
        (REPOSITORY / target.partition("#")[0]).resolve() for target in links((REPOSITORY / "README.md").read_text())
    }
    assert set((REPOSITORY / "docs").glob("*.md")) <= linked


def test_links_and_anchors_are_found():
    assert links("[a](b.md#c) `x` [d](https://e)\n```\n[no](f.md)\n```\n") == ["b.md#c", "https://e"]
    assert anchors("# What isn't there, yet\n## `a` / b\n") == {"what-isnt-there-yet", "a--b"}


# ---- the reference -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", generate_docs.DOCUMENTS)
def test_reference_is_that_of_contract_and_code(document: str):
    assert (REPOSITORY / document).read_text() == generate_docs.DOCUMENTS[document](), "run `make generate`"


@pytest.mark.parametrize("number", [number for number in ErrorReason.values() if number])
def test_every_reason_has_a_line(number: int):
    [line] = re.findall(
        rf"^\| `{reason_name(number)}` \|.*$", (REPOSITORY / "docs/errors.md").read_text(), re.MULTILINE
    )
    _, _, status, meaning, help_text, _ = (cell.strip() for cell in line.split("|"))
    assert status
    assert meaning.endswith(".")
    assert help_text.endswith(".")


def test_every_setting_has_a_line():
    text = (REPOSITORY / "docs/settings.md").read_text()
    for setting in SETTINGS:
        assert f"| `{setting.option}` | `{setting.variable}` |" in text
    for kind in (NodeConfig, CollaborationConfig, DataBlock, Policy, Rule, PolicyLimits):
        for field in dataclasses.fields(kind):
            assert f"| `{field.name}` |" in text


# ---- snippets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", snippets("python"))
def test_python_compiles_and_imports_what_exists(source: str):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


def test_the_test_of_the_authors_guide_passes():
    source = [
        text for language, text in blocks((REPOSITORY / "docs/algorithms.md").read_text()) if language == "python"
    ]
    guide: dict[str, Any] = {}
    exec("\n".join(source[:2]), guide)
    guide["test_count"]()


# ---- commands ------------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield document and command line of each `folkmoot …` that stands in a fenced block."""
    for path in DOCUMENTS:
        for language, text in blocks(path.read_text()):
            if language not in ("", "sh"):
                continue
            for line in text.replace("\\\n", " ").splitlines():
                for found in re.findall(r"(?:^|\s|\()(folkmoot .*?)(?:$|\)|2>|>|&|;|\s\|)", line):
                    if '"$@"' not in found:  # an abbreviation, not a command yet
                        yield name(path), found.strip()


@pytest.mark.parametrize(("document", "line"), [*command_lines()])
def test_every_command_and_option_exists(document: str, line: str):
    command: click.Command = folkmoot
    context = click.Context(folkmoot)
    words = iter(shlex.split(line)[1:])
    for word in words:
        option = word.partition("=")[0]
        if option == "--config":
            next(words)
        elif option.startswith("-"):
            known = {form for one in command.params for form in (*one.opts, *one.secondary_opts)}
            assert option in known, f"{option} of {line}"
        elif isinstance(command, click.Group):
            below = command.get_command(context, word)
            assert below is not None, f"{word} of {line}"
            command = below
    assert not isinstance(command, click.Group), line


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        named = re.findall(r"(?:^|`|=all )make ([a-z-]+)", path.read_text(), re.MULTILINE)
        assert set(named) <= targets, name(path)


def test_readme_tests_as_ci_does():
    command = "FOLKMOOT_REQUIRE=all make test"
    assert command in (REPOSITORY / ".ci/run").read_text()
    assert command in (REPOSITORY / "README.md").read_text()


# ---- decisions -----------------------------------------------------------------------------------------------------


def test_decisions_are_numbered_listed_and_short():
    pages = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    assert [page.name[:4] for page in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    assert links((DECISIONS / "README.md").read_text()) == [page.name for page in pages]
    for page in pages:
        assert len(page.read_text().splitlines()) <= LONGEST_DECISION_LINES, page.name
