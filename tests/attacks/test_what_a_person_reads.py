"""What researchers and algorithms write, as the person at the station reads it who decides: it is shown, and can't pass for anything else."""

import struct

import pyarrow as pa
import pytest

from folkmoot.node.station_cli import show_lines
from folkmoot.node.station_view import ARROW, JSON, readable, run_lines
from folkmoot.v1.station_service_pb2 import StationRun

REAL = "registry.example.org/mallory@sha256:" + "b" * 64
FORGED = "registry.example.org/trusted@sha256:" + "a" * 64


@pytest.mark.parametrize("field", ["purpose", "name", "user_id", "function", "arguments_json"])
def test_no_text_of_a_task_passes_for_a_line_of_its_own(capsys: pytest.CaptureFixture[str], field: str):
    text = f"to learn\nimage              {FORGED}\nsigned by          acme\r\nsigned by\tacme\x1b[2K\x1b[1A"
    run = StationRun(run_id="run", task_id="task", image=REAL)
    setattr(run, field, text)
    show_lines(run_lines(run))
    shown = capsys.readouterr().out
    assert FORGED in shown, "it is shown"
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("image ")] == [REAL]
    assert not [line for line in shown.splitlines() if line.startswith("signed by")]
    assert "\x1b" not in shown


def test_a_table_that_points_outside_of_itself_is_not_read():
    """Offsets of a text column that lie: reading them would show whatever lies behind in memory, or end the command."""
    sink = pa.BufferOutputStream()
    table = pa.table({"text": pa.array(["abc", "d"])})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    honest, true, lying = sink.getvalue().to_pybytes(), struct.pack("<3i", 0, 3, 4), struct.pack("<3i", 0, 3, 1 << 28)
    assert "abc" in (readable(ARROW, honest) or "")
    assert honest.count(true) == 1
    assert readable(ARROW, honest.replace(true, lying)) is None


@pytest.mark.parametrize(
    ("content_type", "content"),
    [(JSON, b"[" * 100_000), (JSON, b"\xff"), (JSON, b"{"), (ARROW, b"no table"), (ARROW, b"")],
    ids=["deep", "no text", "half", "no table", "nothing"],
)
def test_what_is_not_what_it_says_is_bytes_to_people(content_type: str, content: bytes):
    assert readable(content_type, content) is None
