"""docs/what-can-happen.md is one page, and each number on it leads to a test that is there."""

import re

import pytest

from tests.markdown import REPOSITORY
from tests.unit.test_security_table import functions

PAGE = (REPOSITORY / "docs/what-can-happen.md").read_text()
MOST_LINES, MOST_COLUMNS, MOST_WORDS = 60, 118, 700
"""What A4 takes, in a type that can be read."""

_REFERENCE = re.compile(r'^\[(\d+)\]: \.\./(tests/\S+\.py) "(.+)"$', re.MULTILINE)
REFERENCES = _REFERENCE.findall(PAGE)
PRINTED = _REFERENCE.sub("", PAGE).rstrip()


def test_it_prints_on_one_page():
    lines = PRINTED.splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= MOST_COLUMNS
    assert len(re.sub(r"\[\d+\]", "", PRINTED).split()) <= MOST_WORDS


@pytest.mark.parametrize(("file", "words"), [(file, words) for _, file, words in REFERENCES])
def test_every_number_leads_to_a_test(file: str, words: str):
    assert "test_" + words.replace(" ", "_") in functions(REPOSITORY / file)


def test_every_number_is_explained_and_used_in_order():
    used = re.findall(r"\[(\d+)\]", PRINTED)
    assert used == [number for number, _, _ in REFERENCES] == [str(number) for number in range(1, len(used) + 1)]
    assert "]: " not in PRINTED


@pytest.mark.parametrize(
    "heading", ["What leaves", "What can't leave", "Who decides", "What is recorded", "What remains"]
)
def test_it_answers_what_a_board_asks(heading: str):
    assert f"\n## {heading}" in PRINTED
