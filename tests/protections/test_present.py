"""Each protection that is taken out at night stands in the source as the case says, and its test is there.

Else the night finds out that a case has come to mean nothing, weeks after somebody moved what it is about.
"""

import ast

import pytest

from tests.protections.protection import REPOSITORY, Protection
from tests.protections.protections import PROTECTIONS


@pytest.mark.parametrize("protection", PROTECTIONS, ids=str)
def test_it_stands_once_as_the_case_says(protection: Protection):
    assert (REPOSITORY / protection.path).read_text().count(protection.present) == 1


@pytest.mark.parametrize("path", sorted({protection.test.partition("::")[0] for protection in PROTECTIONS}))
def test_those_who_notice_are_there(path: str):
    there = {
        node.name
        for node in ast.walk(ast.parse((REPOSITORY / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    named = {one.test.partition("[")[0].rpartition("::")[2] for one in PROTECTIONS if one.test.startswith(f"{path}::")}
    assert named <= there
