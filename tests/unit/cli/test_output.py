"""How lists look, and how arguments are read."""

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from folkmoot.cli.output import json_line, show_rows, show_thing
from folkmoot.cli.task_options import ArgumentType, parsed
from folkmoot.cli.tasks import finish
from folkmoot.client import Proof, Result, RunState
from folkmoot.v1 import errors_pb2 as reasons

ROWS = [{"name": "Beta", "online": True, "labels": ["a", "b"], "since": None}]


def test_table_for_people(capsys: pytest.CaptureFixture[str]):
    show_rows(ROWS, ("name", "online", "labels", "since"), as_json=False)
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "online", "labels", "since"]
    assert row.split() == ["Beta", "yes", "a,", "b"]


def test_json_for_programs(capsys: pytest.CaptureFixture[str]):
    show_rows(ROWS, ("name",), as_json=True)
    assert json.loads(capsys.readouterr().out) == ROWS


HOSTILE = "eve\x9b2J\x7f\u202e\U000e0041\nroles  Root"


def test_nothing_in_json_steers_the_terminal_and_programs_read_what_it_was(capsys: pytest.CaptureFixture[str]):
    show_rows([{"name": HOSTILE}], ["name"], as_json=True)
    printed = capsys.readouterr().out
    assert not {"\x9b", "\x7f", "\u202e", "\U000e0041"} & set(printed + json_line(HOSTILE))
    assert json.loads(printed) == [{"name": HOSTILE}]
    assert json.loads(json_line(HOSTILE)) == HOSTILE


def test_a_line_that_somebody_wrote_is_no_row_and_no_field(capsys: pytest.CaptureFixture[str]):
    show_rows([{"name": HOSTILE}], ["name"], as_json=False)
    assert len(capsys.readouterr().out.splitlines()) == 2
    show_thing(SimpleNamespace(name=HOSTILE, roles="Viewer"), as_json=False)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("roles")] == ["roles  Viewer"]


def test_times_in_json_are_those_of_iso_8601(capsys: pytest.CaptureFixture[str]):
    show_rows([{"at": datetime(2026, 11, 20, 12, 30, tzinfo=UTC)}], ("at",), as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"at": "2026-11-20T12:30:00+00:00"}]


def test_empty_list_says_so(capsys: pytest.CaptureFixture[str]):
    show_rows([], ("name",), as_json=False, empty="no tasks")
    assert capsys.readouterr().out == "(no tasks)\n"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_argument_that_is_json_is_read_as_json(value: Any):
    assert parsed(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["age", "1.2.3", "NaN", "Infinity", "{", "", "true story"])
def test_argument_that_is_not_json_is_text(text: str):
    assert parsed(text) == text


def test_argument_from_a_file(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(b"\x00\x01")
    read = ArgumentType().convert
    assert read(f"model=@{tmp_path}/model.bin", None, None) == ("model", b"\x00\x01")
    assert read("a=b=c", None, None) == ("a", "b=c")
    for wrong in ("age", "=age", f"model=@{tmp_path}/none"):
        with pytest.raises(click.BadParameter):
            read(wrong, None, None)


def test_results_are_shown_and_decide_the_exit_code(capsys: pytest.CaptureFixture[str]):
    usual: dict[str, Any] = {"organization_id": "b", "run_id": "r", "attempt": 1, "proven": Proof.PROVEN}
    elsewhere = Result(organization="Beta", state=RunState.COMPLETED, **usual)
    finish([elsewhere], as_json=False)
    assert "(sealed to others)" in capsys.readouterr().out
    refused = Result(
        organization="Gamma", state=RunState.REFUSED, reason=reasons.ERROR_REASON_IMAGE_NOT_ALLOWED, **usual
    )
    with pytest.raises(click.exceptions.Exit) as left:
        finish([elsewhere, refused], as_json=True)
    assert left.value.exit_code == 8
    rows = json.loads(capsys.readouterr().out)
    assert [row["error"] for row in rows] == ["", "Gamma: the node refused it: IMAGE_NOT_ALLOWED"]


def test_what_only_the_server_says_is_marked(capsys: pytest.CaptureFixture[str]):
    rows = [{"name": "beta-1", "online": True}]
    show_rows(rows, ("name", "online"), as_json=False, server_says=("online",))
    shown = capsys.readouterr().out
    assert "online*" in shown
    assert "name*" not in shown
    assert "* the server says" in shown
    show_rows(rows, ("name", "online"), as_json=True, server_says=("online",))
    assert json.loads(capsys.readouterr().out) == [{**rows[0], "server_says": ["online"]}]


def test_what_is_no_terminal_gets_addresses_in_one_piece(capsys: pytest.CaptureFixture[str]):
    address = "f" * 56
    show_rows([dict.fromkeys("abcd", address)], tuple("abcd"), as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split() == [address] * 4


def in_terminal(program: str, *, columns: int) -> str:
    """What a program writes to a real terminal of that width."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=slave, env=environment | {"TERM": "xterm"}
    ) as process:
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 1 << 16):
                shown += piece
        except OSError:  # Linux says so when nobody writes any more
            pass
        assert process.wait() == 0
    os.close(master)
    return shown.decode()


def test_in_a_narrow_terminal_an_id_stays_in_one_piece_and_words_are_folded():
    row = {
        "name": "Ada",
        "organization": "University Medical Center " * 3,
        "user_id": "01890000-0000-7000-8000-0123456789ab",
    }
    program = f"from folkmoot.cli.output import show_rows; show_rows([{row}], {tuple(row)}, as_json=False)"
    shown = in_terminal(program, columns=60)
    assert row["user_id"] in shown
    assert "\x1b[1m" in shown  # a heading stands out, in a terminal
    assert max(len(line.rstrip()) for line in shown.splitlines()[1:]) <= 60


def test_what_is_piped_has_no_colour(capsys: pytest.CaptureFixture[str]):
    show_rows(ROWS, ("name",), as_json=False)
    assert "\x1b" not in capsys.readouterr().out
