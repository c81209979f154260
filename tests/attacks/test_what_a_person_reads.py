"""What researchers and algorithms write, as the person at the station reads it who decides: it is shown, and can't pass for anything else."""

import struct
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from folkmoot.cli.exits import Exit
from folkmoot.node.cli import station as station_cli
from folkmoot.node.cli.station import show_lines
from folkmoot.node.cli.view import ARROW, JSON, readable, run_lines
from folkmoot.v1 import station_service_pb2 as pb
from folkmoot.v1.proxy_service_pb2 import ResultHead
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


def looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content_type: str, *options: str) -> Result:
    """What `folkmoot node look` says of a result."""
    frames = [
        pb.ReadHeldResultResponse(head=ResultHead(content_type=content_type)),
        pb.ReadHeldResultResponse(data=b"\x00secret"),
    ]
    station = SimpleNamespace(stub=SimpleNamespace(ReadHeldResult=None), stream=lambda *_: iter(frames))
    monkeypatch.setattr(station_cli, "at_station", lambda _: nullcontext(station))
    (tmp_path / "node.toml").touch()
    return CliRunner().invoke(station_cli.look, [str(tmp_path / "node.toml"), "run", *options])


@pytest.mark.parametrize("options", [(), ("--output", "there")], ids=["on the screen", "into a file"])
def test_a_media_type_steers_no_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...]):
    monkeypatch.chdir(tmp_path)
    said = looked_at(monkeypatch, tmp_path, "image/png\x1b[2J\x1b]0;all is well\x07", *options).output
    assert "image/png" in said
    assert "\x1b" not in said


@pytest.mark.parametrize("prepared", ["a file that others read", "a link to such a file", "a link to nothing"])
def test_nobody_prepares_the_file_that_a_held_result_is_written_to(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prepared: str
):
    """In /tmp, say, where another user of the machine knows the name."""
    file, elsewhere = tmp_path / "result", tmp_path / "elsewhere"
    match prepared:
        case "a file that others read":
            file.touch(0o666)
        case "a link to such a file":
            elsewhere.touch(0o666)
            file.symlink_to(elsewhere)
        case _:
            file.symlink_to(elsewhere)
    outcome = looked_at(monkeypatch, tmp_path, "image/png", "--output", str(file))
    assert outcome.exit_code == Exit.USAGE
    assert "--output" in outcome.output
    assert not [path for path in (file, elsewhere) if path.exists() and path.read_bytes()]
