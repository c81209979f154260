"""folkmoot-exec: programs that know nothing of the node get files and leave one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from folkmoot.algorithm.arrow import PyArrow
from folkmoot.algorithm.values import decode
from tests.markdown import REPOSITORY

TABLE = pa.table(
    {
        "age": pa.array([60, None], pa.int64()),
        "weight": pa.array([71.5, float("nan")], pa.float64()),
        "name": ['Ö, "quoted"', ""],
        "born": [date(1960, 2, 29), None],
        "seen": pa.array([datetime(2026, 1, 1, 12, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "dose": pa.array([Decimal("0.10"), None], pa.decimal128(9, 2)),
        "raw": [b"\x00\xff", None],
    }
)
FUNCTION = """
[functions.f]
command = ["{python}", "program.py"]
tables = "{tables}"
columns = {columns}
parameters = {{ column = "str?", blob = "bytes?", frame = "Table?" }}
"""
PRELUDE = """
import json, os, sys
from pathlib import Path
from typing import Any
given, taken = Path(os.environ["FOLKMOOT_INPUT"]), Path(os.environ["FOLKMOOT_OUTPUT"])
def result(value): (taken / "result.json").write_text(json.dumps(value))
"""
Run = Callable[..., int]


@pytest.fixture
def execute(tmp_path, node, state, socket) -> Run:
    """Serve one run of a program, written in Python for once; return the exit code."""
    state.tables["patients"] = PyArrow().write(TABLE)

    def run(program: str, *, tables: str = "none", columns: str = "[]", **arguments: object) -> int:
        (tmp_path / "algorithm.toml").write_text(FUNCTION.format(python=sys.executable, tables=tables, columns=columns))
        (tmp_path / "program.py").write_text(PRELUDE + program)
        state.give("f", **arguments)
        return serve(tmp_path, socket)

    return run


def serve(folder: Path, socket: Path) -> int:
    command = [Path(sys.executable).with_name("folkmoot-exec"), folder]
    environment = {**os.environ, "FOLKMOOT_PROXY": f"unix:{socket}"}
    return subprocess.run(command, env=environment, timeout=60, check=False).returncode


def given(state) -> Any:
    assert state.failure is None
    assert state.result is not None
    return decode(*state.result)


def test_arguments_context_and_attachments_are_files(execute, state):
    program = """
result({
    "arguments": json.loads((given / "arguments.json").read_text()),
    "organization": json.loads((given / "context.json").read_text())["organization"]["name"],
    "blob": (given / "attachments/blob.bytes").read_bytes().hex(),
    "frame": (given / "attachments/frame.arrow").stat().st_size > 0,
    "tables": list((given / "tables").iterdir()),
    "folder": Path("algorithm.toml").is_file(),
})"""
    assert execute(program, column="age", blob=b"\x01\x02", frame=TABLE) == 0
    assert given(state) == {
        "arguments": {"column": "age"},
        "organization": "Alpha",
        "blob": "0102",
        "frame": True,
        "tables": [],
        "folder": True,
    }


def test_a_table_as_csv(execute, state):
    assert execute("result((given / 'tables/patients.csv').read_text())", tables="csv") == 0
    assert given(state) == (
        "age,weight,name,born,seen,dose,raw\n"
        '60,71.5,"Ö, ""quoted""",1960-02-29,2026-01-01T12:00:00+00:00,0.10,AP8=\n'
        ",,,,,,\n"
    )


def test_a_table_as_json(execute, state):
    assert execute("result((given / 'tables/patients.json').read_text())", tables="json") == 0
    first, second = map(json.loads, str(given(state)).splitlines())
    assert first == {
        "age": 60,
        "weight": 71.5,
        "name": 'Ö, "quoted"',
        "born": "1960-02-29",
        "seen": "2026-01-01T12:00:00+00:00",
        "dose": "0.10",
        "raw": "AP8=",
    }
    assert second == {**dict.fromkeys(first), "name": ""}


def test_a_table_as_arrow_comes_back_as_it_was(execute, state):
    program = "(taken / 'result.arrow').write_bytes((given / 'tables/patients.arrow').read_bytes())"
    assert execute(program, tables="arrow") == 0
    assert given(state).arrow().equals(TABLE) or str(given(state).arrow()) == str(TABLE)  # NaN equals nothing


def test_only_the_named_columns_are_asked_for(execute, state):
    assert execute("result(1)", tables="arrow", columns='["age", "$column"]', column="weight") == 0
    assert [list(request.columns) for request in state.reads] == [["age", "weight"]]


@pytest.mark.parametrize(
    ("program", "failure"),
    [
        ("(taken / 'failure.txt').write_text('too few rows'); sys.exit(1)", "too few rows"),
        ("(taken / 'failure.txt').write_text('not even so')", "not even so"),
        ("sys.exit('a patient called Alice')", "ended with code 1, and wrote no failure.txt"),
        ("", "has to write one of result.json, result.arrow, result.bytes: there is nothing"),
        ("(taken / 'result.txt').touch()", "there is result.txt"),
        ("(taken / 'result.json').touch(); (taken / 'result.bytes').touch()", "there is result.bytes, result.json"),
        ("(taken / 'result.json').write_text('{')", "result.json is no JSON"),
    ],
)
def test_a_program_that_fails_says_why_and_nothing_else(execute, state, program, failure):
    assert execute(program) == 1
    assert state.result is None
    assert failure in state.failure[1]
    assert "Alice" not in state.failure[1]


def test_a_program_that_is_killed_leaves_no_word(execute, state):
    assert execute("os.kill(os.getpid(), 9)") == 128 + 9
    assert (state.result, state.failure) == (None, None)


def test_bytes_are_a_result(execute, state):
    assert execute("(taken / 'result.bytes').write_bytes(b'\\x00\\x01')") == 0
    assert state.result == ("application/octet-stream", b"\x00\x01")


def test_a_dataframe_of_the_session_is_a_table_and_another_is_left_beside_the_result(execute, state):
    state.context.dataframes.append("cleaned")
    state.context.leaves_dataframe = "model"
    state.tables["cleaned"] = PyArrow().write(TABLE)
    program = """
import shutil
shutil.copy(given / "tables/cleaned.arrow", taken / "dataframe.arrow")
facts = json.loads((given / "context.json").read_text())
result([facts["dataframes"], facts["leaves"], sorted(path.name for path in (given / "tables").iterdir())])"""
    assert execute(program, tables="arrow") == 0
    assert given(state) == [["cleaned"], "model", ["cleaned.arrow", "patients.arrow"]]
    assert state.dataframe == state.tables["cleaned"]


def test_what_is_wrong_with_the_folder_is_told(tmp_path, node, state, socket):
    state.give("f")
    assert serve(tmp_path, socket) == 1
    assert "algorithm.toml can't be read" in state.failure[1]


@pytest.mark.needs_r
def test_the_example_in_r(node, state, socket):
    ages = [50, 55, 60, 65, 70, 75, 80, None, 52, 66]
    died = [1, 1, 2, 1, 2, 2, 2, 2, 1, 1]
    state.tables["patients"] = PyArrow().write(pa.table({"age": pa.array(ages, pa.int64()), "status": died}))
    state.give("coefficients", outcome="status", covariates=["age"])
    assert serve(REPOSITORY / "examples/r", socket) == 0
    result = given(state)
    assert result["terms"] == ["(Intercept)", "age"]
    assert result["rows"] == 9
    intercept, slope = result["coefficients"]
    # The likelihood's slope is zero there: sum of (y - p) and of x (y - p) vanish.
    rows = [(age, status - 1) for age, status in zip(ages, died, strict=True) if age is not None]
    residuals = [(age, y - 1 / (1 + 2.718281828459045 ** -(intercept + slope * age))) for age, y in rows]
    assert abs(sum(residual for _, residual in residuals)) < 1e-6
    assert abs(sum(age * residual for age, residual in residuals)) < 1e-4


@pytest.mark.needs_r
def test_the_example_in_r_says_what_it_can_not_do(node, state, socket):
    state.tables["patients"] = PyArrow().write(pa.table({"age": [50, 60], "status": [1, 1]}))
    state.give("coefficients", outcome="status", covariates=["age"])
    assert serve(REPOSITORY / "examples/r", socket) == 1
    assert state.failure[1] == "status needs two values, it has 1"
