"""algorithm.toml: what it may say, and how it is told what is wrong."""

import pytest

from folkmoot.algorithm.errors import ArgumentsInvalid
from folkmoot.algorithm.functions import Parameter
from folkmoot.algorithm.programs import Program, ProgramsInvalid, read_programs

WHOLE = """
[functions.mean]
description = "The mean."
command = ["python3", "mean.py"]
tables = "json"
columns = ["sex", "$column", "$others"]
parameters = { column = "str", others = "list[str]?" }
"""


def read(tmp_path, text: str) -> dict[str, Program]:
    (tmp_path / "algorithm.toml").write_text(text)
    return read_programs(tmp_path / "algorithm.toml")


def test_everything_is_read(tmp_path):
    assert read(tmp_path, WHOLE) == {
        "mean": Program(
            name="mean",
            command=("python3", "mean.py"),
            description="The mean.",
            tables="json",
            columns=("sex", "$column", "$others"),
            parameters=(Parameter("column", "str", True), Parameter("others", "list[str]", False)),
        )
    }


@pytest.mark.parametrize(
    ("arguments", "columns"),
    [
        ({"column": "age"}, ("sex", "age")),
        ({"column": "age", "others": ["ecog", "age", "time"]}, ("sex", "age", "ecog", "time")),
        ({"column": "sex", "others": []}, ("sex",)),
    ],
)
def test_columns_are_those_that_the_arguments_name(tmp_path, arguments, columns):
    assert read(tmp_path, WHOLE)["mean"].wanted_columns(arguments) == columns


@pytest.mark.parametrize("given", [3, ["age", 3], {"age": 1}])
def test_an_argument_that_names_no_column_is_refused(tmp_path, given):
    with pytest.raises(ArgumentsInvalid, match="column has to name a column"):
        read(tmp_path, WHOLE)["mean"].wanted_columns({"column": given})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has to hold"),
        ("[functions]", "has to hold"),
        ("functions = 3", "has to hold"),
        ("x = 1\n" + WHOLE, "and nothing else"),
        ("[functions.f\n", "can't be read"),
        ("[functions]\nf = 1", r"functions\.f is no table"),
        ("[functions.f]", r"functions\.f\.command has to be a list"),
        ("[functions.f]\ncommand = []", r"functions\.f\.command is missing"),
        ("[functions.f]\ncommand = 'x'", r"functions\.f\.command has to be a list"),
        ("[functions.f]\ncommand = ['x']\ntable = 'csv'", r"functions\.f\.table is not known; known are"),
        ("[functions.f]\ncommand = ['x']\ntables = 'xml'", "allowed are arrow, csv, json, none"),
        ("[functions.f]\ncommand = ['x']\nparameters = ['a']", "has to give a type"),
        ("[functions.f]\ncommand = ['x']\ncolumns = ['$a']", r"names \$a, which is no parameter"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, complaint):
    with pytest.raises(ProgramsInvalid, match=complaint):
        read(tmp_path, text)


def test_a_folder_without_the_file_is_told(tmp_path):
    with pytest.raises(ProgramsInvalid, match="can't be read"):
        read_programs(tmp_path / "algorithm.toml")
