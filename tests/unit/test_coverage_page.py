"""docs/coverage.md keeps what was asked for beside what holds it: every named test and decision is there, and no requirement is without."""

import re

import pytest

from tests.markdown import REPOSITORY, links
from tests.unit.test_security_table import functions, named

PAGE = (REPOSITORY / "docs/coverage.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if re.match(r"\| [A-Z]\d+ \|", line)
]
NUMBERS = [row[0].strip() for row in ROWS]


def decisions(text: str) -> list[str]:
    return [target for target in links(text) if target.startswith("decisions/")]


def test_all_rows_are_read():
    assert len(ROWS) == len(re.findall(r"^\| [A-Z]", PAGE, re.MULTILINE))
    assert all(len(row) == 4 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=NUMBERS)
def test_every_requirement_is_held_by_tests_or_a_decision_that_exist(row: list[str]):
    _, requirement, held_by, _ = row
    assert requirement
    tests = named(held_by)
    assert tests or decisions(held_by)
    assert len(tests) + len(decisions(held_by)) == len(links(held_by)), "every link is a test, in words, or a decision"
    for file, test in tests:
        assert test in functions(REPOSITORY / file), file
    for target in decisions(held_by):
        assert (REPOSITORY / "docs" / target).exists()


def test_numbers_go_on_without_a_gap():
    sections: dict[str, list[int]] = {}
    for number in NUMBERS:
        sections.setdefault(number[0], []).append(int(number[1:]))
    assert list(sections) == sorted(sections)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sections.values())


def test_a_test_that_is_gone_is_missed():
    assert "test_no_such_thing" not in functions(REPOSITORY / "tests/unit/test_coverage_page.py")
