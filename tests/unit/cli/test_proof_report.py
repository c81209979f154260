"""`folkmoot proof verify` on files: what people and programs read, what ends it with which code, and what must not reach a terminal."""

import json
from pathlib import Path
from typing import Any

import click
import pytest

from folkmoot.cli.app import run
from folkmoot.cli.exits import Exit
from folkmoot.cli.proofs import require_free
from folkmoot.trust import sign_receipt
from folkmoot.trust.proof_format import MAGIC, MAX_PROOF_BYTES
from folkmoot.v1.task_pb2 import Receipt
from tests.proofs import Story, told


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tree.proof"
    path.write_bytes(told().proof())
    return path


def verify(file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, str, str]:
    code = run(["proof", "verify", str(file), *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def facts(file: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    code, output, _ = verify(file, capsys, "--json")
    assert code == Exit.OK
    return json.loads(output)


def test_people_read_who_what_whose_data_and_who_voted(file, capsys):
    code, output, errors = verify(file, capsys)
    assert (code, errors) == (Exit.OK, "")
    for line in (
        "The proof is valid: nothing in it was altered.",
        "  asked of      Beta, Gamma",
        "  data          patients",
        "  results to    Alpha",
        "    Alpha: founded the collaboration",
        "    Gamma: entry 3, approved by Alpha, Beta",
        "  run of Beta: proven CRASHED (LOST)",
        "  run of Gamma: proven REFUSED (IMAGE_NOT_ALLOWED images)",
        "  run of Alpha: NOT PROVEN, no node signed how it ended",
    ):
        assert line in output.splitlines()


def test_an_attempt_of_two_nodes_is_told(tmp_path, capsys):
    file, story = tmp_path / "tree.proof", told()
    other = story.world.add_node("Gamma", "gamma-2")
    receipt = Receipt.FromString(story.tasks[0].receipts[-1].body)
    receipt.node_id = other.fingerprint
    receipt.ledger_position.CopyFrom(story.world.state.position.message())
    story.tasks[0].receipts.append(sign_receipt(receipt, other))
    file.write_bytes(story.proof())
    code, output, _ = verify(file, capsys)
    assert code == Exit.OK
    assert (
        "  run of Gamma: attempt 1 was GIVEN TO SEVERAL NODES; the server lied, or had been restored"
        in output.splitlines()
    )
    assert [each["attempts_of_several_nodes"] for each in facts(file, capsys)["tasks"][0]["runs"]] == [[], [1]]


def test_programs_read_keys_nodes_chains_and_digests(file, capsys):
    read, story = facts(file, capsys), told()
    root, below, deepest = read["tasks"]
    assert [each["parent_task_id"] for each in (root, below, deepest)] == ["", root["task_id"], below["task_id"]]
    assert [receipt["attempt"] for receipt in root["runs"][0]["receipts"]] == [1, 2]
    assert root["runs"][0]["receipts"][1]["input_digest"] == root["inputs"][0]
    assert read["not_proven"] == [deepest["runs"][0]["run_id"]]
    members = {each["name"]: each for each in root["members"]}
    assert members["Beta"]["organization_id"] == story.world["Beta"].address
    assert members["Beta"]["encryption_kind"] == "x_wing"
    assert {each["admitted_by"] for each in read["nodes"]} == {"invitation"}


def test_nothing_in_a_proof_steers_the_terminal(tmp_path, capsys):
    story = told()
    hostile = Story(story.world, [])
    hostile.add(spec=story.world.task("Alpha", ("Beta",), name="\x1b[2J", purpose="a\rb\x9bc", labels=["\x07"]))
    path = tmp_path / "hostile.proof"
    path.write_bytes(hostile.proof())
    _, output, _ = verify(path, capsys)
    assert not {character for character in output if ord(character) < 32 or 127 <= ord(character) < 160} - {"\n"}


def test_altered_file_ends_with_the_code_for_what_is_not_proven(file, capsys):
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes((data[-1] ^ 1,)))
    code, output, errors = verify(file, capsys)
    assert (code, output) == (Exit.NOT_PROVEN, "")
    assert errors.startswith("folkmoot: PROOF_INVALID: The proof is not valid: task ")


def test_collaboration_without_its_fingerprint_is_no_comparison(file, capsys):
    code, _, errors = verify(file, capsys, "--collaboration", "lung")
    assert code == Exit.USAGE
    assert "FINGERPRINT_MISSING" in errors


def test_endless_file_is_read_no_further_than_a_proof_may_be_long(capsys):
    code, _, errors = verify(Path("/dev/zero"), capsys)
    assert code == Exit.NOT_PROVEN
    assert f"structure at byte {MAX_PROOF_BYTES}" in errors


def test_export_writes_over_an_older_proof_and_nothing_else(tmp_path: Path):
    older, key = tmp_path / "older.proof", tmp_path / "organization.pem"
    older.write_bytes(MAGIC + b"...")
    key.write_text("-----BEGIN PRIVATE KEY-----")
    require_free(tmp_path / "new.proof")
    require_free(older)
    with pytest.raises(click.ClickException, match="no proof"):
        require_free(key)
